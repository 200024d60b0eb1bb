"""Making images: the formats and their preallocation, names, limits, a full or read-only file system, races."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import (
    BadName,
    BadSize,
    CallerGone,
    CommandFailed,
    CommandTimeout,
    DeadlineExceeded,
    Error,
    NotSupported,
    VolumeExists,
)
from pvedrbdstor.volumes import images, listing, work
from pvedrbdstor.volumes.identity import image_id
from pvedrbdstor.volumes.names import parse_volume
from pvedrbdstor.volumes.store import Store
from tests.loopback import Loopback, fill
from tests.volumes.support import GIB, MIB, Area


@pytest.mark.parametrize(
    ("mode", "used"), [(None, 0), ("off", 0), ("metadata", 0), ("falloc", 8 * MIB), ("full", 8 * MIB)]
)
def test_a_raw_image_takes_the_space_its_preallocation_says(area: Area, mode: str | None, used: int) -> None:
    volume = area.preallocating(mode).alloc(size=8 * MIB)
    status = area.path(volume).stat()
    assert (status.st_size, status.st_blocks * 512) == (8 * MIB, used)
    assert area.read(volume, 8 * MIB) == bytes(8 * MIB)


def test_full_preallocation_really_writes(area: Area) -> None:
    with area.path(area.preallocating("full").alloc(size=5 * MIB)).open("rb") as file:
        assert native.data_extents(file.fileno(), 5 * MIB) == [(0, 5 * MIB)]


@pytest.mark.parametrize(
    ("mode", "least", "most"),
    [("off", 0, MIB), ("metadata", 0, MIB), (None, 0, MIB), ("falloc", 8 * MIB, 9 * MIB), ("full", 8 * MIB, 9 * MIB)],
)
def test_a_qcow2_image_takes_the_space_its_preallocation_says(
    area: Area, mode: str | None, least: int, most: int
) -> None:
    volume = area.preallocating(mode).alloc(fmt="qcow2", size=8 * MIB)
    info = area.do(listing.size_info, volume)
    assert (info["format"], info["size"], info["parent"]) == ("qcow2", 8 * MIB, None)
    assert least <= info["used"] <= most


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_is_for_root_alone_whatever_the_umask(area: Area, fmt: str) -> None:
    before = os.umask(0o777)
    try:
        status = area.path(area.alloc(fmt=fmt)).stat()
    finally:
        os.umask(before)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 0, 0)


def test_every_raw_image_has_an_id_of_its_own(area: Area) -> None:
    ids = set()
    for _ in range(3):
        with area.path(area.alloc()).open("rb") as file:
            ids.add(image_id(file.fileno()))
    assert len(ids - {None}) == 3


def test_images_without_a_name_are_counted_up(area: Area) -> None:
    assert [str(area.alloc()) for _ in range(3)] == [f"100/vm-100-disk-{number}.raw" for number in range(3)]
    assert area.leftovers() == []


@pytest.mark.parametrize(
    "name", ["vm-100-state-before.raw", "vm-100-cloudinit.raw", "vm-100-fleece-0.raw", "other.raw"]
)
def test_an_image_gets_the_name_that_is_asked_for(area: Area, name: str) -> None:
    assert str(area.alloc(name=name)) == f"100/{name}"


def test_a_name_is_given_once(area: Area) -> None:
    area.write(area.alloc(name="vm-100-x.raw"), b"mine")
    before = area.view()
    with pytest.raises(VolumeExists):
        area.alloc(name="vm-100-x.raw", size=2 * MIB)
    assert area.view() == before
    assert area.leftovers() == []


@pytest.mark.parametrize(
    ("fmt", "name", "error"),
    [
        ("raw", "vm-100-disk-0.qcow2", BadName),
        ("raw", "vm-200-disk-0.raw", BadName),
        ("raw", "base-100-disk-0.raw", BadName),
        ("raw", "x" * 300 + ".raw", BadName),
        ("raw", "../escape.raw", BadName),
        ("subvol", None, NotSupported),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    area: Area, fmt: str, name: str | None, error: type[Error]
) -> None:
    with pytest.raises(error):
        area.alloc(fmt=fmt, name=name)
    assert list(area.folder.rglob("*")) == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_larger_than_the_file_system_is_refused(area: Area, fmt: str) -> None:
    with pytest.raises(BadSize, match="never fits storage 'ha'"):
        area.alloc(fmt=fmt, size=2 * GIB)
    assert list(area.folder.rglob("*")) == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_a_full_file_system_is_left_as_it_was(full_dir: Path, fmt: str, mode: str) -> None:
    area = Area(full_dir, mode)
    with pytest.raises((OSError, CommandFailed), match="No space left"):
        area.alloc(fmt=fmt, size=64 * MIB)
    assert [p for p in area.leftovers() if p != "ballast"] == []
    assert area.volids() == []


def test_not_a_single_free_block_is_an_error_that_says_so(small_dir: Path) -> None:
    fill(small_dir)
    with pytest.raises(OSError, match="No space left"):
        Area(small_dir).alloc()


def test_a_failure_to_make_the_images_folder_is_told_as_it_is(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if path == "images":
            raise OSError(28, "No space left on device", path)
        mkdir(path, mode, dir_fd=dir_fd)

    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        area.alloc()
    assert area.leftovers() == []


def test_a_read_only_file_system_is_told_as_it_is(small_fs: Loopback, small_dir: Path) -> None:
    area = Area(small_dir)
    area.alloc()
    with small_fs.read_only():
        with pytest.raises(OSError, match="Read-only file system"):
            area.alloc()
        assert len(area.volids()) == 1


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_caller_that_went_away_leaves_nothing(area: Area, fmt: str) -> None:
    with pytest.raises(CallerGone):
        area.preallocating("full").do(images.alloc_image, 100, fmt, None, 64 * MIB, gone=lambda: True)
    assert area.leftovers() == []


def test_writing_out_that_takes_too_long_says_what_to_set(area: Area) -> None:
    with pytest.raises(NotSupported, match="'falloc'"):
        area.preallocating("full").do(images.alloc_image, 100, "raw", None, 64 * MIB, timeout=0.0)
    assert area.leftovers() == []


def test_a_qcow2_image_that_takes_too_long_is_undone(area: Area) -> None:
    with pytest.raises((DeadlineExceeded, CommandTimeout)):
        area.preallocating("full").do(images.alloc_image, 100, "qcow2", None, 900 * MIB, timeout=0.05)
    assert area.leftovers() == []


def test_progress_is_told_in_bytes(area: Area) -> None:
    told: list[tuple[int, int]] = []
    area.preallocating("full").do(
        images.alloc_image, 100, "raw", None, 9 * MIB, progress=lambda *step: told.append(step)
    )
    assert told == [(4 * MIB, 9 * MIB), (8 * MIB, 9 * MIB), (9 * MIB, 9 * MIB)]


def _alloc_three(folder: Path) -> list[str]:
    return [str(Area(folder).alloc(size=4096)) for _ in range(3)]


def test_eight_processes_at_once_get_names_of_their_own(area: Area) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        made = pool.map(_alloc_three, [area.folder] * 8, chunksize=1)
    assert sorted(name for names in made for name in names) == sorted(
        f"100/vm-100-disk-{number}.raw" for number in range(24)
    )
    assert area.leftovers() == []


@pytest.mark.parametrize("moment", ["listed", "link"])
def test_a_guest_folder_that_is_removed_at_that_moment_is_made_again(
    area: Area, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A cleaner on the other node removes empty folders without the guest's lock."""
    pending = [area.folder / "images" / "100"]
    publish, open_folder = work.Building.publish, Store.open_folder

    def removed_before_it_is_opened(store: Store, parent: int, name: str) -> int:
        if name == "100" and pending and moment == "listed":
            pending.pop().rmdir()
        return open_folder(store, parent, name)

    def removed_before_the_link(item: work.Building, call: Call, folder_fd: int, name: str) -> None:
        if pending and moment == "link":
            pending.pop().rmdir()
        publish(item, call, folder_fd, name)

    monkeypatch.setattr(Store, "open_folder", removed_before_it_is_opened)
    monkeypatch.setattr(work.Building, "publish", removed_before_the_link)
    assert area.volids() == []
    area.alloc()
    assert pending == []
    assert area.volids() == ["ha:100/vm-100-disk-0.raw"]
    assert area.leftovers() == []


def test_an_image_that_a_call_makes_can_be_read_by_the_name_it_returns(area: Area) -> None:
    with area.store() as store:
        volume = images.alloc_image(store, Call("alloc_image", "ha"), 100, "raw", None, MIB)
    assert area.do(listing.size_info, parse_volume(str(volume)))["size"] == MIB


def test_a_vmdk_image_is_made_for_pve_to_unpack_an_ova_into(area: Area) -> None:
    volume = area.alloc(fmt="vmdk", size=8 * MIB)
    info = area.do(listing.size_info, volume)
    assert (str(volume), info["format"], info["size"]) == ("100/vm-100-disk-0.vmdk", "vmdk", 8 * MIB)
