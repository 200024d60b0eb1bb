"""Nothing happens after its caller was told that it failed: a guest may have been started on what was there before.

The file system stalls in one system call for longer than the caller waits, as it does when a node dies, and then goes on.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import native
from pvedrbdstor.errors import DeadlineExceeded, ImageInUse
from pvedrbdstor.volumes import images, snapshots
from pvedrbdstor.volumes.locks import hold_image
from tests.volumes.support import MIB, Area, is_immutable
from tests.volumes.test_crash import IMAGE, SCENARIOS, Scenario, parse_volume

PATIENCE = 0.3  # seconds a caller waits here
PATIENCE_FOR_QEMU_IMG = 2.0  # which takes a second to start on a busy machine
BY_LINK = ["alloc raw", "alloc qcow2", "first snapshot", "another snapshot", "clone template", "clone snapshot"]
BY_RENAME = ["roll back", "rename", "rename with snapshots", "template"]
STALLS = [
    *((name, native, "fsync") for name in BY_LINK + BY_RENAME),
    *((name, os, "link") for name in BY_LINK),
    *((name, os, "rename") for name in BY_RENAME),
]


def _impatient(area: Area, patience: float = PATIENCE) -> Area:
    """The same storage, whose calls end after ``patience`` seconds."""
    patient = area.do

    def do(function: Callable[..., Any], *arguments: Any, **call: Any) -> Any:
        return patient(function, *arguments, **{"timeout": patience, **call})

    area.do = do  # type: ignore[method-assign]
    return area


def _stall_first(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, patience: float = PATIENCE) -> None:
    """Let the first call of a function take longer than any caller waits."""
    real, stalled = getattr(module, name), []

    def slow(*arguments: Any, **keywords: Any) -> Any:
        if not stalled:
            stalled.append(True)
            time.sleep(patience * 1.5)
        return real(*arguments, **keywords)

    monkeypatch.setattr(module, name, slow)


@pytest.mark.parametrize(("name", "module", "function"), STALLS, ids=lambda value: str(value).replace(" ", "-"))
def test_a_call_that_stalls_beyond_its_deadline_changes_nothing(
    name: str, module: Any, function: str, area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = next(s for s in SCENARIOS if s.name == name)
    scenario.prepare(area)
    before, inodes = area.view(), _inodes(area)
    with monkeypatch.context() as patch, pytest.raises(DeadlineExceeded):
        patience = PATIENCE_FOR_QEMU_IMG if "qcow2" in name else PATIENCE
        _stall_first(patch, module, function, patience)
        scenario.act(_impatient(area, patience))
    del area.do
    area.recover()
    assert area.view() == before
    assert _inodes(area) == inodes
    assert area.leftovers() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_what_a_late_rollback_takes_back_survives_everybody_elses_cleaning_up(
    area: Area, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    volume, other = area.alloc(fmt=fmt), area.alloc(vmid=300)
    area.do(snapshots.create_snapshot, volume, "one")
    inode = area.path(volume).stat().st_ino
    elsewhere = Area(area.folder)
    real = os.rename

    def slow(*arguments: Any, **keywords: Any) -> None:
        real(*arguments, **keywords)
        if arguments[1] == volume.name and keywords.get("dst_dir_fd") is not None and not stalled:
            stalled.append(True)
            time.sleep(PATIENCE * 1.5)
            elsewhere.do(images.free_image, other)  # which empties the trash of all
            elsewhere.recover()

    stalled: list[bool] = []
    monkeypatch.setattr(os, "rename", slow)
    with pytest.raises(DeadlineExceeded):
        area.do(snapshots.rollback, volume, "one", timeout=PATIENCE)
    monkeypatch.undo()
    assert stalled
    assert area.path(volume).stat().st_ino == inode
    area.recover()
    assert area.leftovers() == []


def test_a_file_that_is_being_reflinked_is_not_taken_for_a_dead_one(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = area.alloc()
    real, done = native.reflink_fd, []

    def slow(*arguments: Any) -> None:
        done.append(True)
        Area(area.folder).recover()  # as every activation does, meanwhile
        real(*arguments)

    monkeypatch.setattr(native.sharing, "reflink_fd", slow)
    area.do(snapshots.create_snapshot, volume, "one")
    assert len(done) == 1


def _inodes(area: Area) -> dict[str, int]:
    """Which file has which name: a guest that has one open keeps that, whatever gets its name."""
    return {volid: area.path(volid.partition(":")[2]).stat().st_ino for volid in area.volids()}


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s.name in ("free", "delete snapshot", "resize raw")], ids=lambda s: s.name
)
def test_what_cannot_be_taken_back_is_not_begun_late(
    scenario: Scenario, area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.prepare(area)
    before = area.view()
    patient = area.do
    area.do = lambda function, *arguments, **call: patient(function, *arguments, **{**call, "timeout": 0.0})  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded):
        scenario.act(area)
    del area.do
    assert area.view() == before


@pytest.mark.parametrize("action", ["alloc", "snapshot"])
def test_an_error_after_the_name_was_given_takes_the_name_back(
    area: Area, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    volume = area.alloc()
    before = area.view()
    real = native.fsync

    def broken(fd: int, path: str = "") -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error", path)
        real(fd, path)

    monkeypatch.setattr(native, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        if action == "alloc":
            area.alloc()
        else:
            area.do(snapshots.create_snapshot, volume, "one")
    monkeypatch.undo()
    assert area.view() == before
    assert area.leftovers() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_disk_that_qemu_has_open_is_not_swapped_under_it(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt)
    area.do(snapshots.create_snapshot, volume, "one")
    with area.path(volume).open("r+b") as qemu:
        hold_image(qemu.fileno(), volume)
        with pytest.raises(ImageInUse):
            area.do(snapshots.rollback, volume, "one")
    area.do(snapshots.rollback, volume, "one")


def test_a_template_that_is_taken_back_is_an_ordinary_image_again(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    template = next(s for s in SCENARIOS if s.name == "template")
    template.prepare(area)
    _stall_first(monkeypatch, native, "set_immutable")
    with pytest.raises(DeadlineExceeded):
        template.act(_impatient(area))
    path = area.path(parse_volume(IMAGE))
    assert not is_immutable(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_guest_s_other_disks_can_be_freed_while_an_interrupted_rename_cannot_be_finished(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, other = area.alloc(), area.alloc()
    plan = {"do": "rename", "vmid": 100, "name": moved.name, "target_vmid": 200, "target_name": "vm-200-disk-0.raw"}
    area.put(".drbdocfs2/work/intent.100.0123456789abcdef", (str(plan).replace("'", '"') + "\n").encode())
    (area.folder / "images/200").mkdir()
    moved_to = area.folder / "images/200/vm-200-disk-0.raw"
    area.path(moved).rename(moved_to)

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pvedrbdstor.volumes.recovery.move_snapshots", no_room)
    area.do(images.free_image, other)
    assert area.volids() == ["ha:200/vm-200-disk-0.raw"]


def test_a_full_dir_storage_that_was_never_used_by_us_lets_go_of_its_images(small_dir: Path) -> None:
    from tests.loopback import fill

    area = Area(small_dir)
    area.put("images/100/vm-100-disk-0.raw", bytes(4 * MIB))
    fill(small_dir)
    area.do(images.free_image, parse_volume(IMAGE))
    assert area.volids() == []
