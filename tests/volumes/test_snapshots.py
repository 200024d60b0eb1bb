"""Snapshots of raw images: made, listed, removed in any order, rolled back to, and never anybody else's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import (
    ForeignFile,
    LockTimeout,
    NoReflink,
    NotSupported,
    ReadOnlyVolume,
    SnapshotExists,
    SnapshotMissing,
    VolumeMissing,
)
from pvedrbdstor.volumes import failures, images, snapshots, templates
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area

ABSENT = parse_volume("100/vm-100-disk-7.raw")


@pytest.fixture
def volume(area: Area) -> VolumeName:
    """A raw image of 4 MiB that begins with `first`."""
    made = area.alloc(size=4 * MIB)
    area.write(made, b"first")
    return made


def take(area: Area, volume: VolumeName, *names: str) -> None:
    for name in names:
        area.do(snapshots.create_snapshot, volume, name)


def names_of(area: Area, volume: VolumeName) -> list[str]:
    return list(area.do(snapshots.snapshot_info, volume))


def test_a_snapshot_says_its_id_time_and_size(area: Area, volume: VolumeName) -> None:
    began = int(time.time())
    take(area, volume, "one", "two")
    info = area.do(snapshots.snapshot_info, volume)
    assert list(info) == ["one", "two"]
    assert info["one"]["id"] != info["two"]["id"]
    for entry in info.values():
        assert sorted(entry) == ["id", "timestamp", "virtual-size"]
        assert began <= entry["timestamp"] <= time.time()
        assert entry["virtual-size"] == 4 * MIB
    assert area.leftovers() == []


def test_a_snapshot_is_no_volume(area: Area, volume: VolumeName) -> None:
    take(area, volume, "one")
    assert area.volids() == [f"ha:{volume}"]


def test_a_snapshot_file_is_read_only_and_for_root_alone(area: Area, volume: VolumeName) -> None:
    take(area, volume, "one")
    assert area.path(volume, "one").stat().st_mode & 0o7777 == 0o440


def test_a_name_is_taken_once(area: Area, volume: VolumeName) -> None:
    take(area, volume, "one")
    before = area.view()
    with pytest.raises(SnapshotExists, match="'one'"):
        take(area, volume, "one")
    assert area.view() == before
    assert area.leftovers() == []


def test_image_and_snapshot_are_independent_both_ways(area: Area, volume: VolumeName) -> None:
    take(area, volume, "one")
    area.write(volume, b"after")
    assert area.path(volume, "one").read_bytes()[:5] == b"first"
    with area.path(volume, "one").open("r+b") as snapshot:
        snapshot.write(b"taint")
    assert area.read(volume, 5) == b"after"


def test_a_snapshot_has_the_holes_of_its_image(area: Area) -> None:
    volume = area.alloc(size=64 * MIB)
    area.write(volume, b"x" * 4096, 32 * MIB)
    take(area, volume, "one")
    path = area.path(volume, "one")
    with path.open("rb") as file:
        assert native.data_extents(file.fileno(), 64 * MIB) == [(32 * MIB, 4096)]
    assert path.stat().st_blocks * 512 <= MIB


def test_what_the_page_cache_holds_is_in_the_snapshot(area: Area, volume: VolumeName) -> None:
    with area.path(volume).open("r+b", buffering=0) as image:
        image.write(b"dirty page")
        take(area, volume, "one")
    assert area.path(volume, "one").read_bytes()[:10] == b"dirty page"


@pytest.mark.parametrize("order", ["abc", "cba", "bac"])
def test_snapshots_are_removed_in_any_order(area: Area, volume: VolumeName, order: str) -> None:
    for name in "abc":
        area.write(volume, name.encode())
        take(area, volume, name)
    left = set("abc")
    for name in order:
        area.do(snapshots.delete_snapshot, volume, name)
        left.discard(name)
        assert set(names_of(area, volume)) == left
        for other in left:
            assert area.path(volume, other).read_bytes()[:1] == other.encode()
        assert area.leftovers() == []
    assert not area.path(volume, "a").parent.parent.exists()


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_rollback_goes_to_any_snapshot_and_keeps_all(area: Area, volume: VolumeName, name: str) -> None:
    for other in "abc":
        area.write(volume, other.encode())
        take(area, volume, other)
    before = area.do(snapshots.snapshot_info, volume)
    area.write(volume, b"now")
    area.do(snapshots.rollback, volume, name)
    assert area.read(volume, 5) == name.encode() + b"irst"
    assert area.do(snapshots.snapshot_info, volume) == before
    assert area.leftovers() == []


def test_an_image_rolled_back_can_be_written_and_the_snapshot_stays_as_it_was(area: Area, volume: VolumeName) -> None:
    take(area, volume, "one")
    for _ in range(2):
        area.do(snapshots.rollback, volume, "one")
        assert area.read(volume, 5) == b"first"
        area.write(volume, b"again")
    assert area.path(volume).stat().st_mode & 0o7777 == 0o640


def test_rollback_restores_the_size(area: Area, volume: VolumeName) -> None:
    take(area, volume, "small")
    area.do(images.resize_image, volume, 9 * MIB)
    take(area, volume, "large")
    info = area.do(snapshots.snapshot_info, volume)
    assert {name: entry["virtual-size"] for name, entry in info.items()} == {"small": 4 * MIB, "large": 9 * MIB}
    area.do(snapshots.rollback, volume, "small")
    assert area.path(volume).stat().st_size == 4 * MIB
    area.do(snapshots.rollback, volume, "large")
    assert area.path(volume).stat().st_size == 9 * MIB


@pytest.mark.parametrize("action", [snapshots.delete_snapshot, snapshots.rollback])
def test_what_needs_a_snapshot_says_that_there_is_none(area: Area, volume: VolumeName, action: object) -> None:
    for _ in range(2):  # without any snapshot, then with another one
        with pytest.raises(SnapshotMissing, match="'nope'"):
            area.do(action, volume, "nope")  # type: ignore[arg-type]
        if not names_of(area, volume):
            take(area, volume, "one")
    assert names_of(area, volume) == ["one"]
    assert area.leftovers() == []


@pytest.mark.parametrize("action", [snapshots.create_snapshot, snapshots.delete_snapshot, snapshots.rollback])
def test_what_needs_an_image_says_that_there_is_none(area: Area, volume: VolumeName, action: object) -> None:
    for absent in (ABSENT, parse_volume("200/vm-200-disk-0.raw")):
        with pytest.raises(VolumeMissing):
            area.do(action, absent, "one")  # type: ignore[arg-type]
    assert area.leftovers() == []


def test_an_image_of_a_dir_storage_gets_its_id_with_its_first_snapshot(area: Area) -> None:
    area.put("images/100/vm-100-disk-0.raw", b"old world" + bytes(503))
    volume = parse_volume("100/vm-100-disk-0.raw")
    assert names_of(area, volume) == []
    with pytest.raises(SnapshotMissing):
        area.do(snapshots.rollback, volume, "one")
    take(area, volume, "one")
    area.write(volume, b"new")
    area.do(snapshots.rollback, volume, "one")
    assert area.read(volume, 9) == b"old world"
    assert names_of(area, volume) == ["one"]


def test_a_reused_name_inherits_nothing(area: Area, volume: VolumeName) -> None:
    take(area, volume, "old", "one")
    area.path(volume).unlink()  # as a `dir` storage frees it: it knows of no snapshots
    again = area.alloc(size=4 * MIB)
    assert again == volume
    assert names_of(area, again) == []
    for action in (snapshots.rollback, snapshots.delete_snapshot, snapshots.require_snapshot):
        with pytest.raises(SnapshotMissing):
            if action is snapshots.require_snapshot:
                with area.store() as store:
                    action(store, again, "old")
            else:
                area.do(action, again, "old")
    assert area.read(again, 5) == bytes(5)


def test_snapshots_of_an_earlier_image_make_room_for_those_of_the_new_one(area: Area, volume: VolumeName) -> None:
    take(area, volume, "old", "one")
    area.path(volume).unlink()
    again = area.alloc(size=4 * MIB)
    area.write(again, b"newer")
    take(area, again, "one")
    assert names_of(area, again) == ["one"]
    assert area.path(again, "one").read_bytes()[:5] == b"newer"
    area.do(images.free_image, again)
    assert area.leftovers() == []


def test_a_file_that_is_no_snapshot_is_never_replaced_by_one_of_its_name(area: Area, volume: VolumeName) -> None:
    """It may be a snapshot restored from a backup that knew no extended attributes."""
    path = area.put(f"images/100/.snapshots/{volume.name}/one.raw", b"precious")
    with pytest.raises(ForeignFile, match=r"\.snapshots/vm-100-disk-0\.raw/one\.raw"):
        area.do(snapshots.create_snapshot, volume, "one")
    assert path.read_bytes() == b"precious"
    assert area.do(snapshots.snapshot_info, volume) == {}


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_strange_things_among_the_snapshots_are_none(area: Area, volume: VolumeName, kind: str) -> None:
    take(area, volume, "one")
    strange = area.path(volume, "strange")
    make = {"link": lambda p: p.symlink_to("/etc/passwd"), "folder": Path.mkdir, "fifo": os.mkfifo}
    make[kind](strange)
    assert names_of(area, volume) == ["one"]
    with pytest.raises(SnapshotMissing):
        area.do(snapshots.rollback, volume, "strange")
    assert area.read(volume, 5) == b"first"


def test_a_template_takes_no_snapshot(area: Area, volume: VolumeName) -> None:
    base = area.do(templates.create_base, volume)
    with pytest.raises(ReadOnlyVolume):
        take(area, base, "one")
    assert area.leftovers() == []


@pytest.mark.parametrize("name", ["vm-100-disk-0.vmdk", "subvol-100-disk-0.subvol"])
def test_other_formats_have_no_snapshots(area: Area, name: str) -> None:
    area.put(f"images/100/{name}")
    for action in (snapshots.create_snapshot, snapshots.delete_snapshot, snapshots.rollback):
        with pytest.raises(NotSupported):
            area.do(action, parse_volume(f"100/{name}"), "one")
    with pytest.raises(NotSupported):
        area.do(snapshots.snapshot_info, parse_volume(f"100/{name}"))


def test_a_file_system_without_reflink_is_named_and_nothing_is_left(tmpfs_dir: Path) -> None:
    area = Area(tmpfs_dir)
    path = area.put("images/100/vm-100-disk-0.raw", bytes(4096))
    volume = parse_volume("100/vm-100-disk-0.raw")
    with pytest.raises(OSError) as caught:
        take(area, volume, "one")
    told = failures.explain(caught.value, area.config, "volume_snapshot")
    assert isinstance(told, NoReflink)
    assert "refcount" in told.message
    assert path.read_bytes() == bytes(4096)
    assert area.leftovers() == []


def test_a_full_file_system_keeps_image_and_snapshots(full_dir: Path) -> None:
    """A reflink needs hardly any space; writing to what is shared does."""
    area = Area(full_dir)
    volume = area.alloc(size=MIB)
    area.write(volume, b"first")
    take(area, volume, "one")
    area.do(snapshots.rollback, volume, "one")
    assert area.read(volume, 5) == b"first"
    assert names_of(area, volume) == ["one"]


def test_rollback_of_what_another_call_works_on_fails_and_changes_nothing(
    area: Area, volume: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(area, volume, "one")
    area.write(volume, b"after")
    before = area.view()

    def busy(*_: object) -> None:
        raise LockTimeout(what="Copying blocks", holder="held by nobody", seconds=5)

    monkeypatch.setattr(native, "clone_file", busy)
    with pytest.raises(LockTimeout):
        area.do(snapshots.rollback, volume, "one")
    assert area.view() == before
    assert area.leftovers() == []


def test_a_rollback_that_fails_at_its_last_step_keeps_the_image(
    area: Area, volume: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(area, volume, "one")
    area.write(volume, b"after")
    before = area.view()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        area.do(snapshots.rollback, volume, "one")
    monkeypatch.undo()
    assert area.view() == before
    assert area.path(volume).stat().st_nlink == 1
    assert area.leftovers() == []


def test_a_storage_whose_images_lie_elsewhere_has_snapshots_too(area: Area) -> None:
    area.config = StorageConfig("ha", str(area.folder), "r0", images_dir="vm/disks")
    volume = area.alloc()
    take(area, volume, "one")
    assert names_of(area, volume) == ["one"]
    assert (area.folder / "vm/disks/100/.snapshots/vm-100-disk-0.raw/one.raw").is_file()
