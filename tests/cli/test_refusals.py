"""What the command line does not do: wrong names, other people's disks, an answer of no; and how it says so."""

from __future__ import annotations

import json

import pytest

from pvedrbdstor import errors
from tests.cli.conftest import CommandLine

DISK = "ha:100/vm-100-disk-0.raw"
SIZE_INFO = {"size": 1 << 30, "format": "raw", "used": 0, "parent": None, "ctime": 0}
GUARDED = [
    ["volume", "free", DISK],
    ["volume", "resize", DISK, "+1G"],
    ["volume", "snapshot", "rollback", DISK, "s1"],
    ["volume", "clone", DISK, "101"],
    ["volume", "template", DISK],
    ["volume", "rename", DISK, "--vmid", "101"],
]
ASKING = [
    ["volume", "free", DISK],
    ["volume", "snapshot", "rollback", DISK, "s1"],
    ["volume", "snapshot", "delete", DISK, "s1"],
    ["volume", "template", DISK],
]


def _name(arguments: list[str]) -> str:
    return " ".join(arguments)


@pytest.mark.parametrize("arguments", GUARDED, ids=_name)
def test_volume_of_a_guest_is_left_alone(cli: CommandLine, arguments: list[str]) -> None:
    cli.guest(f"scsi0: {DISK},size=1G\n", vmid=100, node="b")
    result = cli(*arguments)
    assert (result.exit_code, cli.backend.requests) == (75, [])
    assert result.stderr.startswith(f"pvedrbdstor: Volume '{DISK}' is used by VM 100 (scsi0).")
    assert "--even-if-in-use" in result.stderr


@pytest.mark.parametrize("arguments", GUARDED, ids=_name)
def test_volume_of_a_guest_is_touched_when_told_to(cli: CommandLine, arguments: list[str]) -> None:
    cli.guest(f"rootfs: {DISK},size=1G\n", folder="lxc")
    cli.backend.answers["volume_size_info"] = SIZE_INFO
    assert cli(*arguments, "--even-if-in-use").exit_code == 0
    assert cli.backend.requests


def test_snapshot_and_template_of_a_guest_may_be_cloned_for_they_never_change(cli: CommandLine) -> None:
    base = "ha:100/base-100-disk-0.raw"
    cli.guest(f"scsi0: {DISK},size=1G\nscsi1: {base},size=1G\n")
    assert cli("volume", "clone", DISK, "101", "--snapshot", "s1").exit_code == 0
    assert cli("volume", "clone", base, "101").exit_code == 0


@pytest.mark.parametrize("arguments", GUARDED, ids=_name)
def test_volume_is_left_alone_when_the_guests_are_unknown(cli: CommandLine, arguments: list[str]) -> None:
    (cli.etc_pve / "nodes" / "a").rmdir()
    (cli.etc_pve / "nodes").rmdir()
    result = cli(*arguments)
    assert (result.exit_code, cli.backend.requests) == (75, [])
    assert "cannot be told" in result.stderr
    assert str(cli.etc_pve / "nodes") in result.stderr


def test_volume_that_a_guest_knows_by_another_storage_on_the_same_path_is_left_alone(cli: CommandLine) -> None:
    with (cli.etc_pve / "storage.cfg").open("a") as file:
        file.write("\ndir: former\n\tpath /mnt/pve/ha/\n")
    cli.guest("scsi0: former:100/vm-100-disk-0.raw\n")
    assert cli("volume", "free", DISK).exit_code == 75
    assert not cli.backend.requests


def test_volume_that_a_guest_knows_by_its_path_is_left_alone(cli: CommandLine) -> None:
    cli.guest("scsi0: /mnt/pve/ha/images/100/vm-100-disk-0.raw,size=1G\n")
    assert cli("volume", "free", DISK).exit_code == 75
    assert not cli.backend.requests


@pytest.mark.parametrize("arguments", ASKING, ids=_name)
@pytest.mark.usefixtures("on_a_terminal")
def test_destroying_asks_on_a_terminal_and_takes_no_for_an_answer(cli: CommandLine, arguments: list[str]) -> None:
    result = cli(*arguments, input="n\n")
    assert (result.exit_code, cli.backend.requests) == (1, [])
    assert result.stdout.strip() in ("", "n")  # before click 8.2 its runner echoes the answer here
    assert DISK in result.stderr
    assert "nothing was done" in result.stderr


@pytest.mark.parametrize("arguments", ASKING, ids=_name)
@pytest.mark.usefixtures("on_a_terminal")
def test_destroying_goes_on_after_yes(cli: CommandLine, arguments: list[str]) -> None:
    assert cli(*arguments, input="y\n").exit_code == 0
    assert len(cli.backend.requests) == 1


@pytest.mark.parametrize("arguments", ASKING, ids=_name)
@pytest.mark.usefixtures("on_a_terminal")
def test_yes_option_answers_the_question(cli: CommandLine, arguments: list[str]) -> None:
    result = cli(*arguments, "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(cli.backend.requests) == 1


@pytest.mark.usefixtures("on_a_terminal")
def test_ctrl_c_at_the_question_does_nothing_and_exits_130(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.confirm", interrupted)
    assert cli("volume", "free", DISK).exit_code == 130
    assert not cli.backend.requests


ERRORS = [
    errors.VolumeMissing(volume="100/x.raw", storage="ha"),
    errors.VolumeExists(volume="100/x.raw", storage="ha"),
    errors.StorageFull(storage="ha", detail="1 byte is left"),
    errors.NotMounted(storage="ha", path="/mnt/pve/ha", resource="r0"),
    errors.InternalError(where="a test", detail="on purpose"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_error_is_told_to_people_with_its_exit_status(cli: CommandLine, error: errors.Error) -> None:
    cli.backend.answers["list_images"] = error
    result = cli("volume", "list", "ha")
    assert (result.exit_code, result.stdout) == (error.exit_status, "")
    assert result.stderr == f"pvedrbdstor: {error.message}\n"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_error_is_told_to_machines_as_one_document(cli: CommandLine, error: errors.Error) -> None:
    cli.backend.answers["list_images"] = error
    result = cli("volume", "list", "ha", "--json")
    assert (result.exit_code, result.stdout) == (error.exit_status, "")
    assert json.loads(result.stderr) == {
        "error": {"code": error.code, "kind": error.kind, "message": error.message, "exit_status": error.exit_status}
    }


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_recovery_that_left_something_prints_its_report_and_fails(cli: CommandLine, options: list[str]) -> None:
    cli.backend.answers["recover"] = {"removed": 1, "finished": 0, "undone": 0, "failed": 2}
    result = cli("volume", "recover", "ha", *options)
    assert result.exit_code == 75
    assert "removed" in result.stdout
    assert "2 leftovers on storage 'ha' could not be dealt with" in result.stderr


def test_failure_nobody_foresaw_is_called_a_bug(cli: CommandLine) -> None:
    cli.backend.answers["list_images"] = ZeroDivisionError("on purpose")
    result = cli("volume", "list", "ha", "--json")
    assert result.exit_code == 70
    assert "ZeroDivisionError: on purpose" in json.loads(result.stderr)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["volume", "list", "none"], 78, "there is no such storage. Storages of type drbdocfs2: ha, off, elsewhere"),
        (["volume", "list", "local"], 78, "it is of type 'dir'"),
        (["volume", "list", "off"], 78, "it is disabled"),
        (["volume", "list", "elsewhere"], 78, "it is not for node 'a'. Work on one of: b, c"),
        (["volume", "info", "vm-100-disk-0.raw"], 64, "write STORAGE:VMID/NAME"),
        (["volume", "info", ":100/x.raw"], 64, "write STORAGE:VMID/NAME"),
        (["volume", "info", "ha:"], 64, "write STORAGE:VMID/NAME"),
        (["volume", "rename", "ha:x.raw", "--name", "y.raw"], 64, "write STORAGE:VMID/NAME"),
        (["volume", "alloc", "ha", "100", "0"], 64, "more than zero"),
        (["volume", "alloc", "ha", "100", "12Q"], 64, "is not a size"),
        (["volume", "alloc", "ha", "99", "1G"], 2, "VMID"),
        (["volume", "alloc", "ha", "100", "1G", "--format", "vmdk"], 2, "vmdk"),
        (["volume", "rename", DISK], 2, "--vmid"),
        (["rpc", "--stream"], 2, "--request"),
        (["rpc", "--request", "{}"], 2, "--stream"),
        (["nonsense"], 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_line_is_refused_before_the_backend_is_asked(
    cli: CommandLine, arguments: list[str], status: int, said: str
) -> None:
    result = cli(*arguments)
    assert (result.exit_code, result.stdout, cli.backend.requests) == (status, "", [])
    assert said in result.stderr


def test_wrong_command_line_is_told_to_machines_as_json(cli: CommandLine) -> None:
    result = cli("volume", "alloc", "ha", "99", "1G", "--json")
    assert json.loads(result.stderr)["error"]["exit_status"] == result.exit_code == 2


def test_missing_storage_cfg_is_named(cli: CommandLine) -> None:
    (cli.etc_pve / "storage.cfg").unlink()
    result = cli("volume", "list", "ha")
    assert result.exit_code == 78
    assert str(cli.etc_pve / "storage.cfg") in result.stderr


def test_config_option_reads_another_storage_cfg(cli: CommandLine) -> None:
    other = cli.etc_pve / "other.cfg"
    other.write_text("drbdocfs2: lab\n\tpath /mnt/lab\n\tdrbdocfs2-resource r9\n")
    cli.backend.answers["list_images"] = []
    assert cli("--config", str(other), "volume", "list", "lab").exit_code == 0
    assert cli.backend.calls[0].storage == "lab"
