"""gui-hook changes one line of the template it knows, leaves every other template alone, and says why."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.gui_hook.node import AFTER, ANCHOR, BEFORE, HOOK, SCRIPT, TEMPLATE, VERSION, Node, make_node


def lines_with(text: bytes, word: bytes) -> list[bytes]:
    return [line for line in text.splitlines(keepends=True) if word in line]


def test_enable_adds_one_line_after_proxmoxs_script(node: Node) -> None:
    text = node.does("enable")
    (ours,) = lines_with(text, SCRIPT)
    assert text == BEFORE + ANCHOR + ours + AFTER
    assert ours.startswith(b'    <script type="text/javascript" src="' + SCRIPT + b"?ver=" + VERSION + b'"></script>')
    assert ours.rstrip().endswith(b"-->"), "marked, so that it is known again"
    assert b"[%" not in ours, "nothing that Proxmox's template language would look at"


def test_enable_twice_is_enable_once_and_writes_nothing(node: Node) -> None:
    once = node.does("enable")
    before = node.template.stat()
    assert node.does("enable") == once
    assert (node.template.stat().st_ino, node.template.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_disable_gives_the_template_back_byte_by_byte(node: Node) -> None:
    node.does("enable")
    assert node.does("disable") == TEMPLATE
    assert node.files() == ["index.html.tpl", "js"], "no copy, no lock, no temporary file"


def test_disable_of_what_was_never_enabled_writes_nothing(node: Node) -> None:
    before = node.template.stat()
    assert node.does("disable") == TEMPLATE
    assert node.template.stat().st_ino == before.st_ino


def test_another_dialog_has_another_version_and_there_is_still_one_line(node: Node) -> None:
    first = node.does("enable")
    (node.folder / "js" / "drbdocfs2.js").write_bytes(b"// a newer dialog\n")
    second = node.does("enable")
    assert second != first
    assert len(lines_with(second, SCRIPT)) == 1
    assert node.does("disable") == TEMPLATE


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(TEMPLATE.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(TEMPLATE.rstrip(b"\n"), id="no newline at the end"),
        pytest.param(ANCHOR, id="the anchor alone"),
        pytest.param(BEFORE + "    <!-- dépôt -->\n".encode("latin-1") + ANCHOR + b"\0\n", id="not UTF-8"),
        pytest.param(TEMPLATE.replace(b' type="text/javascript"', b""), id="no type"),
        pytest.param(TEMPLATE + b"<!-- drbdocfs2.js -->\n", id="our file's name elsewhere"),
    ],
)
def test_any_text_around_the_anchor_stays_as_it_is(node: Node, template: bytes) -> None:
    node.template.write_bytes(template)
    text = node.does("enable")
    (ours,) = lines_with(text, SCRIPT)
    (anchor,) = lines_with(template, b"pvemanagerlib.js")
    assert text == template.replace(anchor, anchor + ours)
    assert ours.endswith(b"\r\n") == anchor.endswith(b"\r\n")
    assert node.does("disable") == template


NOT_UNDERSTOOD = [
    pytest.param(BEFORE + AFTER, "0 places", id="anchor gone"),
    pytest.param(b"", "0 places", id="empty"),
    pytest.param(BEFORE + ANCHOR + ANCHOR + AFTER, "2 places", id="anchor twice"),
    pytest.param(BEFORE + ANCHOR.rstrip() * 2 + b"\n" + AFTER, "2 places", id="anchor twice in one line"),
    pytest.param(BEFORE + ANCHOR.rstrip(), "not one whole script element", id="anchor in a line without an end"),
    pytest.param(
        BEFORE + b'<script\n  src="/pve2/js/pvemanagerlib.js"\n></script>\n' + AFTER,
        "not one whole script element",
        id="an element of several lines",
    ),
    pytest.param(
        TEMPLATE.replace(ANCHOR, ANCHOR + b'<script src="' + SCRIPT + b'"></script>\n'),
        "another line",
        id="a foreign second tag",
    ),
]


@pytest.mark.parametrize(("template", "reason"), NOT_UNDERSTOOD)
def test_a_template_that_is_not_understood_is_left_alone_with_a_warning(
    node: Node, template: bytes, reason: str
) -> None:
    node.template.write_bytes(template)
    done = node.run("enable")
    assert done.returncode == 0
    assert reason in done.stderr
    assert "all else works" in done.stderr
    assert node.template.read_bytes() == template
    status = node.run("status")
    assert (status.returncode, status.stderr) == (1, "")
    assert reason in status.stdout


def test_a_foreign_second_tag_beside_ours_changes_nothing_and_outlives_ours(node: Node) -> None:
    foreign = b'<script src="' + SCRIPT + b'"></script>\n'
    both = node.does("enable") + foreign
    node.template.write_bytes(both)
    assert "another line" in node.run("enable").stderr
    assert node.template.read_bytes() == both
    done = node.run("disable")
    assert done.returncode == 0
    assert "did not put there" in done.stderr
    assert node.template.read_bytes() == TEMPLATE + foreign


def test_our_line_can_be_taken_out_of_a_template_that_is_not_understood_any_more(node: Node) -> None:
    text = node.does("enable")
    node.template.write_bytes(text.replace(ANCHOR, b""))
    assert node.does("disable") == BEFORE + AFTER


def test_a_line_that_differs_from_ours_in_anything_is_never_taken_out(node: Node) -> None:
    text = node.does("enable").replace(b"?ver=", b"?version=")
    node.template.write_bytes(text)
    node.run("disable")
    assert node.template.read_bytes() == text


def test_our_lines_in_other_places_become_one_in_the_right_place(node: Node) -> None:
    text = node.does("enable")
    (ours,) = lines_with(text, SCRIPT)
    node.template.write_bytes(ours + TEMPLATE + ours)
    assert node.does("enable") == text


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_without_pve_manager_there_is_nothing_to_do_or_to_say(tmp_path: Path, command: str) -> None:
    assert Node(tmp_path).run(command).returncode == 0
    node = make_node(tmp_path, template=None)
    done = node.run(command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert node.files() == ["js"]
    assert node.run("status").returncode == 1


def test_without_the_dialog_no_line_is_put_in(node: Node) -> None:
    (node.folder / "js" / "drbdocfs2.js").unlink()
    done = node.run("enable")
    assert done.returncode == 1
    assert "drbdocfs2.js" in done.stderr
    assert node.template.read_bytes() == TEMPLATE
    assert node.files() == ["index.html.tpl", "js"]


def test_status_says_what_is_so_and_changes_nothing(node: Node) -> None:
    said = [node.run("status")]
    node.does("enable")
    said.append(node.run("status"))
    (node.folder / "js" / "drbdocfs2.js").write_bytes(b"// a newer dialog\n")
    said.append(node.run("status"))
    assert [one.returncode for one in said] == [1, 0, 1]
    assert [one.stdout.partition(":")[0] for one in said] == ["disabled", "enabled", "outdated"]
    assert VERSION in node.template.read_bytes()


def test_help_and_a_wrong_command_line(node: Node) -> None:
    assert node.run("--help").stdout.startswith("Usage: gui-hook enable|disable|status")
    for arguments in ([], ["remove"], ["enable", "now"], ["--root=/"]):
        done = node.run(*arguments)
        assert done.returncode == 64
        assert done.stderr.startswith("Usage: ")
    assert node.template.read_bytes() == TEMPLATE


def test_it_uses_nothing_that_perl_base_lacks() -> None:
    """It runs in the middle of upgrades, when the package perl may be half installed."""
    architecture = subprocess.run(
        ["dpkg-architecture", "-qDEB_HOST_MULTIARCH"], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    only = f"BEGIN {{ @INC = '/usr/lib/{architecture}/perl-base' }}"
    program = HOOK.read_text().replace("\nuse strict;", f"\n{only}\nuse strict;", 1)
    done = subprocess.run(
        ["perl", "-T", "-", "--help"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


PIECES = st.lists(
    st.sampled_from([ANCHOR, ANCHOR.rstrip(), BEFORE, AFTER, b"\n", b"\r\n", b"<!--", b"-->", b"  ", b"\xff", b"\0"])
    | st.binary(max_size=12),
    max_size=8,
).map(b"".join)


@settings(max_examples=examples(60), deadline=None)
@given(template=st.one_of(PIECES, st.tuples(PIECES, PIECES).map((b"\n" + ANCHOR).join)))
def test_whatever_the_template_enable_then_disable_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, template: bytes
) -> None:
    node = make_node(tmp_path_factory.mktemp("any"), template)
    assert node.run("enable").returncode == 0
    once = node.template.read_bytes()
    assert node.run("enable").returncode == 0
    assert node.template.read_bytes() == once
    anchors = [line for line in re.findall(rb"[^\n]*\n?", template) if b'src="/pve2/js/pvemanagerlib.js' in line]
    one_whole_line = len(anchors) == 1 and re.fullmatch(rb"\s*<script [^<>]*></script>\s*\n", anchors[0])
    assert (once != template) == bool(one_whole_line)
    assert node.run("disable").returncode == 0
    assert node.template.read_bytes() == template
