"""`pvedrbdstor mirror adopt` and `release`, with a storage.cfg that Proxmox's Perl (here: the stand-ins) really changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvedrbdstor import errors
from pvedrbdstor.cli import mirror_adopt
from pvedrbdstor.pve import adopt
from tests.cli.conftest import CommandLine

ROOT = Path(__file__).resolve().parents[2]
UUID = "0123456789ABCDEF0123456789ABCDEF"
NOTHING = {"snapshots": [], "chains": [], "subvolumes": [], "interrupted": 0}
LOCAL = "dir: local\n\tcontent iso\n\tpath /var/lib/vz\n\n"
FOLDER = "dir: ha\n\tcontent images,rootdir\n\tis_mountpoint yes\n\tpath /mnt/pve/ha\n\tshared 1\n\n"
OURS = (
    "drbdocfs2: ha\n\tcontent images,rootdir\n\tdrbdocfs2-resource r7\n"
    f"\tdrbdocfs2-uuid {UUID}\n\tdrbdocfs2-volume 1\n\tis_mountpoint yes\n\tpath /mnt/pve/ha\n\tshared 1\n\n"
)


@pytest.fixture
def node(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A node where /mnt/pve/ha was mounted by hand from volume 1 of r7."""
    folders = ("perl-shim", "tests/perl/standins", "tests/perl/lib")
    includes = [f"-I{ROOT / folder}" for folder in folders]
    perl = ["perl", "-T", *includes, f"-MStorageCfgFile={cli.etc_pve / 'storage.cfg'}"]
    monkeypatch.setattr(adopt, "PERL", perl)
    monkeypatch.setattr(mirror_adopt, "volume_under", lambda path, storage: ("r7", 1))
    cli.backend.answers |= {"get_identity": UUID, "survey": NOTHING}
    return configured(cli, FOLDER)


def configured(cli: CommandLine, section: str) -> CommandLine:
    (cli.etc_pve / "storage.cfg").write_text(section + LOCAL)
    return cli


def storage_cfg(cli: CommandLine) -> str:
    return (cli.etc_pve / "storage.cfg").read_text()


def test_adopting_changes_the_entry_and_nothing_else(node: CommandLine) -> None:
    result = node("mirror", "adopt", "ha")
    assert result.exit_code == 0, result.output
    assert storage_cfg(node) == OURS + LOCAL
    assert "Storage ha is of type drbdocfs2 now" in result.stdout
    assert "/etc/fstab" in result.stdout


def test_releasing_gives_back_what_was_adopted(node: CommandLine) -> None:
    configured(node, OURS)
    result = node("mirror", "release", "ha")
    assert result.exit_code == 0, result.output
    assert storage_cfg(node) == FOLDER + LOCAL
    assert "mount it yourself at each boot" in result.stdout


def test_releasing_what_was_never_a_folder_makes_a_shared_one_that_wants_its_mount(node: CommandLine) -> None:
    configured(node, "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tdrbdocfs2-resource r7\n\n")
    assert node("mirror", "release", "ha").exit_code == 0
    assert storage_cfg(node) == FOLDER + LOCAL


def test_the_whole_mount_is_verified_as_the_backend_does_before_anything_changes(node: CommandLine) -> None:
    refused = errors.WrongMount(storage="ha", path="/mnt/pve/ha", found="x", expected="y", remedy="Mount y")
    node.backend.answers["get_identity"] = refused
    result = node("mirror", "adopt", "ha")
    assert (result.exit_code, result.stderr) == (69, f"pvedrbdstor: {refused.message}\n")
    assert node.backend.requests[0][1]["storage"] == {
        "id": "ha",
        "path": "/mnt/pve/ha",
        "resource": "r7",
        "volume": 1,
        "uuid": None,
        "images_dir": "images",
        "preallocation": None,
    }
    assert storage_cfg(node) == FOLDER + LOCAL


@pytest.mark.parametrize(("command", "section"), [("adopt", FOLDER), ("release", OURS)])
def test_a_dry_run_shows_the_change_and_makes_none(node: CommandLine, command: str, section: str) -> None:
    configured(node, section)
    result = node("mirror", command, "ha", "--dry-run")
    assert result.exit_code == 0
    sign, other = ("+", "-") if command == "adopt" else ("-", "+")
    assert f"{sign} drbdocfs2: ha\n" in result.stdout
    assert f"{other} dir: ha\n" in result.stdout
    assert f"{sign} \tdrbdocfs2-resource r7\n" in result.stdout
    assert "  \tcontent images,rootdir\n" in result.stdout
    assert result.stdout.endswith("Nothing was changed.\n")
    assert storage_cfg(node) == section + LOCAL


@pytest.mark.parametrize(
    ("command", "section", "to"), [("adopt", OURS, "drbdocfs2"), ("release", FOLDER, "dir")], ids=lambda v: v[:7]
)
def test_a_second_time_there_is_nothing_to_change(node: CommandLine, command: str, section: str, to: str) -> None:
    configured(node, section)
    result = node("mirror", command, "ha")
    assert (result.exit_code, result.stdout) == (0, f"Storage ha is of type {to} already: nothing to change.\n")
    assert storage_cfg(node) == section + LOCAL
    assert node.backend.requests == []


@pytest.mark.parametrize(("command", "section"), [("adopt", FOLDER), ("release", OURS)])
@pytest.mark.usefixtures("on_a_terminal")
def test_it_asks_and_takes_no_for_an_answer(node: CommandLine, command: str, section: str) -> None:
    configured(node, section)
    assert node("mirror", command, "ha", input="n\n").exit_code == 1
    assert storage_cfg(node) == section + LOCAL


@pytest.mark.usefixtures("on_a_terminal")
def test_the_question_names_the_nodes_that_need_the_package(node: CommandLine) -> None:
    (node.etc_pve / "nodes" / "b").mkdir()
    assert "installed on every node (also on b)" in node("mirror", "adopt", "ha", input="y\n").stderr
    assert storage_cfg(node) == OURS + LOCAL


@pytest.mark.parametrize(
    ("command", "section", "survey", "said"),
    [
        pytest.param(
            "release",
            OURS,
            {"snapshots": [f"100/vm-100-disk-0.raw: s{n}" for n in range(7)]},
            "(100/vm-100-disk-0.raw: s0; 100/vm-100-disk-0.raw: s1; 100/vm-100-disk-0.raw: s2; "
            "100/vm-100-disk-0.raw: s3; 100/vm-100-disk-0.raw: s4 and 2 more)",
            id="snapshots",
        ),
        pytest.param("release", OURS, {"interrupted": 1}, "pvedrbdstor volume recover ha", id="interrupted work"),
        pytest.param("adopt", FOLDER, {"chains": ["100/snap-a-vm-100-disk-0.qcow2"]}, "snap-a-vm-100-", id="chains"),
        pytest.param("adopt", FOLDER, {"subvolumes": ["100/subvol-100-disk-0.subvol"]}, "subvol-100-", id="subvolumes"),
    ],
)
def test_what_the_other_type_would_lose_is_refused_by_name(
    node: CommandLine, command: str, section: str, survey: dict[str, object], said: str
) -> None:
    configured(node, section)
    node.backend.answers["survey"] = {**NOTHING, **survey}
    for options in ([], ["--dry-run"], ["--yes"]):
        result = node("mirror", command, "ha", *options)
        assert result.exit_code == 75
        assert said in result.stderr
        assert storage_cfg(node) == section + LOCAL


def test_raw_snapshots_do_not_stand_in_the_way_of_adopting_again(node: CommandLine) -> None:
    node.backend.answers["survey"] = {**NOTHING, "snapshots": ["100/vm-100-disk-0.raw: s0"]}
    assert node("mirror", "adopt", "ha").exit_code == 0


def test_volume_chains_are_refused_before_anything_is_looked_at(node: CommandLine) -> None:
    configured(node, FOLDER.rstrip() + "\n\tsnapshot-as-volume-chain 1\n\n")
    result = node("mirror", "adopt", "ha")
    assert result.exit_code == 75
    assert "snapshot-as-volume-chain" in result.stderr
    assert node.backend.requests == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adopt", "none"], "there is no such storage"),
        (["release", "none"], "there is no such storage"),
        (["adopt", "nas"], "it is of type 'nfs'"),
        (["adopt", "away"], "it is not for node 'a'. Run this on one of: b"),
    ],
)
def test_wrong_storages_are_refused(node: CommandLine, arguments: list[str], said: str) -> None:
    configured(node, "nfs: nas\n\tpath /mnt/pve/nas\n\ndir: away\n\tpath /mnt/away\n\tnodes b\n\n")
    result = node("mirror", *arguments)
    assert result.exit_code == 78
    assert said in result.stderr


def test_proxmoxs_own_refusal_is_passed_on_in_its_words(node: CommandLine) -> None:
    text = FOLDER + "drbdocfs2: first\n\tpath /mnt/pve/first\n\tdrbdocfs2-resource r7\n\tdrbdocfs2-volume 1\n\n"
    configured(node, text)
    result = node("mirror", "adopt", "ha")
    assert result.exit_code == 78
    assert "storage 'first' already lies on DRBD resource 'r7' volume 1" in result.stderr
    assert storage_cfg(node) == text + LOCAL


@pytest.mark.usefixtures("on_a_terminal")
def test_what_somebody_else_changes_meanwhile_is_not_overwritten(
    node: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = FOLDER.replace("images,rootdir", "images") + LOCAL

    def answer(*_: object, **__: object) -> bool:
        (node.etc_pve / "storage.cfg").write_text(changed)
        return True

    monkeypatch.setattr("click.confirm", answer)
    result = node("mirror", "adopt", "ha")
    assert result.exit_code == 78
    assert "modified" in result.stderr
    assert storage_cfg(node) == changed


def test_machines_get_one_document(node: CommandLine) -> None:
    document = json.loads(node("mirror", "adopt", "ha", "--json").stdout)
    assert (document["storage"], document["type"], document["changed"]) == ("ha", "drbdocfs2", True)
    assert (document["before"], document["after"], document["dropped"]) == (FOLDER, OURS, [])
    again = json.loads(node("mirror", "adopt", "ha", "--json").stdout)
    assert again == {"storage": "ha", "type": "drbdocfs2", "changed": False}


@pytest.mark.parametrize("command", ["adopt", "release"])
def test_the_vendors_start_scripts_follow_and_cannot_undo_the_change(
    node: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    configured(node, FOLDER if command == "adopt" else OURS)
    monkeypatch.setattr(mirror_adopt, "DEFAULT_CONFIG", str(node.etc_pve / "storage.cfg"))
    asked: list[str] = []

    class Failing:
        def __init__(self, *, node: str) -> None:
            asked.append(node)

        def follow(self) -> list[str]:
            raise errors.SystemCallFailed(operation="Masking", path="/x", reason="no", remedy="Try again")

    monkeypatch.setattr(mirror_adopt, "Vendor", Failing)
    result = node("mirror", command, "ha")
    assert (result.exit_code, asked) == (0, ["a"])
    assert "Masking of /x failed" in result.stderr
    assert storage_cfg(node) == (OURS if command == "adopt" else FOLDER) + LOCAL
