"""Every command's request to the backend, and what it prints of the answer, for people and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import HA, CommandLine

DISK = "ha:100/vm-100-disk-0.raw"
VOLNAME = "100/vm-100-disk-0.raw"
SIZE_INFO = {"size": 32 << 30, "format": "raw", "used": 5 << 20, "parent": None, "ctime": 1700000000}
IMAGES = [
    {"volid": DISK, "vmid": 100, **SIZE_INFO},
    {
        "volid": "ha:100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2",
        "vmid": 101,
        "size": 1 << 40,
        "format": "qcow2",
        "used": None,
        "parent": "100/base-100-disk-0.qcow2",
        "ctime": None,
    },
]
SNAPSHOTS = {
    "later": {"id": "b" * 32, "timestamp": 1700000060, "virtual-size": 32 << 30},
    "first": {"id": "a" * 32, "timestamp": 1700000000, "virtual-size": 16 << 30},
}

CASES: list[tuple[list[str], str, dict[str, Any], Any, str, Any]] = [
    # arguments, method, its parameters, its answer, what people see, the JSON document
    (
        ["volume", "list", "ha"],
        "list_images",
        {"vmid": None, "volids": None},
        IMAGES,
        """\
Volume                                                Format    Size   Used  Created              Parent
ha:100/vm-100-disk-0.raw                              raw     32 GiB  5 MiB  2023-11-14 22:13:20  -
ha:100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2  qcow2    1 TiB      -  -                    100/base-100-disk-0.qcow2
""",
        IMAGES,
    ),
    (
        ["volume", "list", "ha", "--vmid", "101"],
        "list_images",
        {"vmid": 101, "volids": None},
        [],
        "No volumes on storage ha.\n",
        [],
    ),
    (
        ["volume", "info", DISK],
        "volume_size_info",
        {"volname": VOLNAME},
        SIZE_INFO,
        """\
Volume:  ha:100/vm-100-disk-0.raw
Format:  raw
Size:    32 GiB (34359738368 bytes)
Used:    5 MiB
Created: 2023-11-14 22:13:20
Parent:  -
""",
        {"volid": DISK, **SIZE_INFO},
    ),
    (
        ["volume", "alloc", "ha", "100", "32G"],
        "alloc_image",
        {"vmid": 100, "format": "raw", "name": None, "size_kib": 33554432},
        VOLNAME,
        f"Made {DISK} with 32 GiB.\n",
        {"volid": DISK, "size": 32 << 30},
    ),
    (
        ["volume", "alloc", "ha", "100", "1024", "--format", "qcow2", "--name", "vm-100-x.qcow2"],
        "alloc_image",
        {"vmid": 100, "format": "qcow2", "name": "vm-100-x.qcow2", "size_kib": 1024},
        "100/vm-100-x.qcow2",
        "Made ha:100/vm-100-x.qcow2 with 1 MiB.\n",
        {"volid": "ha:100/vm-100-x.qcow2", "size": 1 << 20},
    ),
    (
        ["volume", "free", DISK],
        "free_image",
        {"volname": VOLNAME, "is_base": False},
        None,
        f"Freed {DISK}.\n",
        {"volid": DISK},
    ),
    (
        ["volume", "free", "ha:100/base-100-disk-0.raw"],
        "free_image",
        {"volname": "100/base-100-disk-0.raw", "is_base": True},
        None,
        "Freed ha:100/base-100-disk-0.raw.\n",
        {"volid": "ha:100/base-100-disk-0.raw"},
    ),
    (
        ["volume", "snapshot", "list", DISK],
        "volume_snapshot_info",
        {"volname": VOLNAME},
        SNAPSHOTS,
        """\
Snapshot    Size  Created
first     16 GiB  2023-11-14 22:13:20
later     32 GiB  2023-11-14 22:14:20
""",
        [{"name": "first", **SNAPSHOTS["first"]}, {"name": "later", **SNAPSHOTS["later"]}],
    ),
    (
        ["volume", "snapshot", "list", DISK],
        "volume_snapshot_info",
        {"volname": VOLNAME},
        {},
        f"{DISK} has no snapshots.\n",
        [],
    ),
    (
        ["volume", "snapshot", "create", DISK, "s1"],
        "volume_snapshot",
        {"volname": VOLNAME, "snap": "s1"},
        None,
        f"Took snapshot s1 of {DISK}.\n",
        {"volid": DISK, "snapshot": "s1"},
    ),
    (
        ["volume", "snapshot", "delete", DISK, "s1"],
        "volume_snapshot_delete",
        {"volname": VOLNAME, "snap": "s1"},
        None,
        f"Deleted snapshot s1 of {DISK}.\n",
        {"volid": DISK, "snapshot": "s1"},
    ),
    (
        ["volume", "snapshot", "rollback", DISK, "s1"],
        "volume_snapshot_rollback",
        {"volname": VOLNAME, "snap": "s1"},
        None,
        f"Rolled {DISK} back to s1.\n",
        {"volid": DISK, "snapshot": "s1"},
    ),
    (
        ["volume", "clone", DISK, "101"],
        "clone_image",
        {"volname": VOLNAME, "vmid": 101, "snap": None},
        "101/vm-101-disk-0.raw",
        f"Made ha:101/vm-101-disk-0.raw from {DISK}.\n",
        {"volid": "ha:101/vm-101-disk-0.raw"},
    ),
    (
        ["volume", "clone", DISK, "101", "--snapshot", "s1"],
        "clone_image",
        {"volname": VOLNAME, "vmid": 101, "snap": "s1"},
        "101/vm-101-disk-0.raw",
        f"Made ha:101/vm-101-disk-0.raw from {DISK} at s1.\n",
        {"volid": "ha:101/vm-101-disk-0.raw"},
    ),
    (
        ["volume", "template", DISK],
        "create_base",
        {"volname": VOLNAME},
        "100/base-100-disk-0.raw",
        f"{DISK} is the template ha:100/base-100-disk-0.raw now.\n",
        {"volid": "ha:100/base-100-disk-0.raw"},
    ),
    (
        ["volume", "rename", DISK, "--vmid", "101"],
        "rename_volume",
        {"volname": VOLNAME, "target_vmid": 101, "target_name": None},
        "101/vm-101-disk-0.raw",
        f"{DISK} is called ha:101/vm-101-disk-0.raw now.\n",
        {"volid": "ha:101/vm-101-disk-0.raw"},
    ),
    (
        ["volume", "rename", DISK, "--name", "vm-100-disk-7.raw"],
        "rename_volume",
        {"volname": VOLNAME, "target_vmid": 100, "target_name": "vm-100-disk-7.raw"},
        "100/vm-100-disk-7.raw",
        f"{DISK} is called ha:100/vm-100-disk-7.raw now.\n",
        {"volid": "ha:100/vm-100-disk-7.raw"},
    ),
    (
        ["volume", "import", "ha", VOLNAME],
        "volume_import",
        {"volname": VOLNAME, "format": "raw+size", "with_snapshots": False, "allow_rename": False},
        VOLNAME,
        f"Made {DISK}.\n",
        {"volid": DISK},
    ),
    (
        ["volume", "recover", "ha"],
        "recover",
        {},
        {"removed": 2, "finished": 1, "undone": 0, "failed": 0},
        "Leftovers removed: 2, operations finished: 1, undone: 0.\n",
        {"removed": 2, "finished": 1, "undone": 0, "failed": 0},
    ),
    (
        ["volume", "recover", "ha"],
        "recover",
        {},
        {"removed": 0, "finished": 0, "undone": 0, "failed": 0},
        "Nothing was left over.\n",
        {"removed": 0, "finished": 0, "undone": 0, "failed": 0},
    ),
]


def _name(case: tuple[Any, ...]) -> str:
    return " ".join(case[0])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_command_asks_the_backend_and_prints_for_people(cli: CommandLine, case: tuple[Any, ...]) -> None:
    arguments, method, params, answer, text, _ = case
    cli.backend.answers[method] = answer
    result = cli(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert cli.backend.requests == [(method, {"storage": HA, **params})]
    assert result.stdout == text


@pytest.mark.parametrize("case", CASES, ids=_name)
@pytest.mark.parametrize("place", ["before", "after"])
def test_json_option_makes_one_document_of_the_answer(cli: CommandLine, case: tuple[Any, ...], place: str) -> None:
    arguments, method, _, answer, _, document = case
    cli.backend.answers[method] = answer
    result = cli(*(["--json", *arguments] if place == "before" else [*arguments, "--json"]))
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == document


@pytest.mark.parametrize(("size", "wanted"), [("64G", 64 << 30), ("+10G", 42 << 30), ("+1024", (32 << 30) + (1 << 20))])
def test_resize_asks_for_the_new_size_in_bytes(cli: CommandLine, size: str, wanted: int) -> None:
    cli.backend.answers["volume_size_info"] = SIZE_INFO
    result = cli("volume", "resize", DISK, size, "--json")
    assert result.exit_code == 0
    assert cli.backend.methods == ["volume_size_info", "volume_resize"]
    assert cli.backend.requests[1][1] == {"storage": HA, "volname": VOLNAME, "size": wanted}
    assert json.loads(result.stdout) == {"volid": DISK, "size": wanted}


def test_resize_tells_people_the_size_it_has_now(cli: CommandLine) -> None:
    cli.backend.answers["volume_size_info"] = SIZE_INFO
    assert cli("volume", "resize", DISK, "64G").stdout == f"{DISK} has 64 GiB (68719476736 bytes) now.\n"


@pytest.mark.parametrize("size", ["-1G", "0", "12Q"])
def test_resize_to_what_is_no_larger_size_changes_nothing(cli: CommandLine, size: str) -> None:
    cli.backend.answers["volume_size_info"] = SIZE_INFO
    result = cli("volume", "resize", DISK, size)
    assert result.exit_code == 64
    assert result.stderr.startswith("pvedrbdstor: ")
    assert "volume_resize" not in cli.backend.methods


QCOW2 = "100/vm-100-disk-1.qcow2"


@pytest.mark.parametrize(
    ("volname", "options", "params"),
    [
        (VOLNAME, [], {"format": "raw+size", "snap": None, "with_snapshots": False}),
        (VOLNAME, ["--snapshot", "s1"], {"format": "raw+size", "snap": "s1", "with_snapshots": False}),
        (QCOW2, [], {"format": "qcow2+size", "snap": None, "with_snapshots": True}),
        (QCOW2, ["--snapshot", "s1"], {"format": "raw+size", "snap": "s1", "with_snapshots": False}),
        (QCOW2, ["--format", "raw+size"], {"format": "raw+size", "snap": None, "with_snapshots": False}),
    ],
)
def test_export_streams_to_standard_output_and_prints_nothing_else(
    cli: CommandLine, volname: str, options: list[str], params: dict[str, object]
) -> None:
    result = cli("volume", "export", f"ha:{volname}", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert cli.backend.requests == [("volume_export", {"storage": HA, "volname": volname, **params})]
    assert cli.backend.streams == [1]


def test_import_streams_from_standard_input(cli: CommandLine) -> None:
    cli.backend.answers["volume_import"] = QCOW2
    assert cli("volume", "import", "ha", QCOW2).exit_code == 0
    params = {"volname": QCOW2, "format": "qcow2+size", "with_snapshots": True, "allow_rename": False}
    assert cli.backend.requests == [("volume_import", {"storage": HA, **params})]
    assert cli.backend.streams == [0]


@pytest.mark.parametrize("arguments", [["export", DISK], ["import", "ha", VOLNAME]], ids=lambda words: words[0])
def test_disk_images_are_kept_off_terminals(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr("pvedrbdstor.cli.transfer.stream_is_terminal", lambda descriptor: True)
    result = cli("volume", *arguments)
    assert (result.exit_code, cli.backend.requests) == (64, [])
    assert "FILE'" in result.stderr


def test_work_put_off_until_after_the_answer_is_done_before_the_program_ends(cli: CommandLine) -> None:
    done: list[str] = []
    cli.backend.answers["free_image"] = lambda call: call.after.append(lambda: done.append("blocks"))
    assert cli("volume", "free", DISK).exit_code == 0
    assert done == ["blocks"]


def test_copying_may_take_longer_than_a_look(cli: CommandLine) -> None:
    cli.backend.answers.update(list_images=[], volume_import=VOLNAME)
    cli("volume", "list", "ha")
    cli("volume", "import", "ha", VOLNAME)
    look, copy = cli.backend.calls
    assert look.timeout == 50
    assert copy.timeout > 86400
