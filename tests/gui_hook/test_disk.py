"""gui-hook replaces the template in one step, whatever happens meanwhile, and keeps what else a file has."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.gui_hook.node import HOOK, SCRIPT, TEMPLATE, Node, make_node
from tests.gui_hook.power import switch
from tests.loopback import fill


def test_mode_and_owner_stay(node: Node) -> None:
    node.template.chmod(0o640)
    os.chown(node.template, 12, 34)
    for command in ("enable", "disable"):
        node.does(command)
        now = node.template.stat()
        assert (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid) == (0o640, 12, 34)


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_a_template_that_is_a_link_is_not_replaced_by_a_file(node: Node, command: str) -> None:
    node.template.rename(node.folder / "real.tpl")
    node.template.symlink_to("real.tpl")
    done = node.run(command)
    assert done.returncode == 1
    assert "index.html.tpl" in done.stderr
    assert node.template.is_symlink()
    assert (node.folder / "real.tpl").read_bytes() == TEMPLATE


def test_two_at_once_take_turns(node: Node) -> None:
    """One that enables and one that disables, again and again: the template is always one of the two."""
    enabled = node.does("enable")
    environment = {**os.environ, "DPKG_ROOT": str(node.root)}
    loop = 'for i in 1 2 3 4 5 6 7 8 9 10; do "$1" enable || exit 1; "$1" disable || exit 1; done'
    children = [
        subprocess.Popen(["sh", "-c", loop, "sh", str(HOOK)], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while any(child.poll() is None for child in children):
        assert node.template.read_bytes() in (enabled, TEMPLATE)
    for child in children:
        assert child.stderr is not None
        assert (child.wait(), child.stderr.read()) == (0, "")
        child.stderr.close()
    assert node.does("disable") == TEMPLATE
    assert node.files() == ["index.html.tpl", "js"]


def test_it_waits_for_another_one(node: Node) -> None:
    holder = subprocess.Popen(
        ["flock", str(node.folder), "sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen([str(HOOK), "enable"], env={**os.environ, "DPKG_ROOT": str(node.root)})
    # it holds no lock yet, so it is asked for one again and again: /proc tells that it got as far as the folder
    while str(node.folder) not in _open_files(waiting.pid):
        assert waiting.poll() is None
        time.sleep(0.01)
    assert node.template.read_bytes() == TEMPLATE
    holder.communicate("\n", timeout=20)
    assert waiting.wait(20) == 0
    assert SCRIPT in node.template.read_bytes()


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            found.add(str(link.readlink()))
    except OSError:
        pass  # it has just ended, or closed a file
    return found


def calls(node: Node, library: Path, command: str, at: int = 0) -> tuple[int, list[str]]:
    """Run with the power cut at call number ``at``: how it ended, and the calls it got to."""
    log = node.root / "calls"
    log.unlink(missing_ok=True)
    done = node.run(command, **switch(str(library), str(log), at))
    return done.returncode, log.read_text().splitlines() if log.exists() else []


def test_the_new_text_is_on_the_disk_before_it_takes_the_place_of_the_old_one(node: Node, library: Path) -> None:
    status, order = calls(node, library, "enable")
    assert status == 0
    assert order == ["create", "write", "fchown", "fchmod", "fsync", "rename", "fsync of the folder"]


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_a_power_cut_at_any_step_leaves_the_old_text_or_the_new_one(
    tmp_path: Path, library: Path, command: str
) -> None:
    """And the next run, of either kind, finds nothing in its way and leaves nothing behind."""
    enabled = make_node(tmp_path / "model").does("enable")
    start, wanted = (TEMPLATE, enabled) if command == "enable" else (enabled, TEMPLATE)
    for at in range(1, 30):
        node = make_node(tmp_path / str(at), start)
        status, order = calls(node, library, command, at)
        if status == 0:
            break
        assert (status, len(order)) == (-signal.SIGKILL, at)
        renamed = "rename" in order[:-1]
        assert node.template.read_bytes() == (wanted if renamed else start)
        assert node.does(command) == wanted
        assert node.files() == ["index.html.tpl", "js"]
    assert at > 7, "the calls that the test above names"


def test_a_template_that_changes_while_it_works_is_not_overwritten(node: Node, library: Path) -> None:
    """As when dpkg unpacks a newer pve-manager in that moment: an old page under new scripts would be a blank GUI."""
    _, order = calls(make_node(node.root / "model"), library, "enable")
    power = {**switch(str(library), str(node.root / "calls"), order.index("fsync") + 1), "POWER_CUT_STOPS": "1"}
    environment = {**os.environ, "DPKG_ROOT": str(node.root), **power}
    hook = subprocess.Popen([str(HOOK), "enable"], env=environment, stderr=subprocess.PIPE, text=True)
    _, how = os.waitpid(hook.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(how)
    newer = TEMPLATE.replace(b"html>", b"html><!-- newer -->")
    node.template.with_suffix(".dpkg-new").write_bytes(newer)
    node.template.with_suffix(".dpkg-new").rename(node.template)
    hook.send_signal(signal.SIGCONT)
    assert hook.wait(20) == 1
    assert hook.stderr is not None
    assert "changed by somebody else" in hook.stderr.read()
    hook.stderr.close()
    assert node.template.read_bytes() == newer
    assert node.files() == ["index.html.tpl", "js"]


def test_a_full_disk_changes_nothing(small_dir: Path) -> None:
    node = make_node(small_dir)
    fill(small_dir)
    done = node.run("enable")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert node.template.read_bytes() == TEMPLATE
    assert node.files() == ["index.html.tpl", "js"]
