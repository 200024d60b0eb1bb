"""What is told to be freed is what the file system has more of when it is done, for real deletions on real reflinks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor.space.report import report
from pvedrbdstor.volumes import images, snapshots, templates
from pvedrbdstor.volumes.names import parse_volume
from tests.loopback import Loopback
from tests.volumes.support import MIB, Area

GRAIN = 64 << 10
"""Bytes that folders, inodes and trees of extents may give back beside the data."""
_Found = dict[str, Any]
DISK, OTHER = "100/vm-100-disk-0.raw", "100/vm-100-disk-1.raw"
CLONE = "101/vm-101-disk-0.raw"
BASE = "90/base-90-disk-0.raw"


@pytest.fixture
def area(small_dir: Path) -> Area:
    """A template with two clones, which have changed since; snapshots, one below another; a disk of its own; an ISO image."""
    area = Area(small_dir)
    volume = area.alloc(90, size=16 * MIB)
    area.write(volume, os.urandom(8 * MIB))
    base = area.do(templates.create_base, volume)
    for vmid in (100, 101):
        clone = area.do(templates.clone_image, base, vmid, None)
        for step, name in enumerate(("one", "two", "three")):
            area.write(clone, os.urandom(2 * MIB), step * MIB)
            area.do(snapshots.create_snapshot, clone, name)
        area.write(clone, os.urandom(3 * MIB), MIB)
    area.write(area.alloc(100, size=8 * MIB), os.urandom(3 * MIB))
    area.put("template/iso/a.iso", os.urandom(MIB))
    return area


def settled(fs: Loopback) -> int:
    """Bytes in use, once what XFS keeps for files to grow and gives back in the background has been given back."""
    with fs.read_only():
        found = os.statvfs(fs.path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def guest(found: _Found, vmid: int) -> _Found:
    (one,) = (one for one in found["guests"] if one["vmid"] == vmid)
    return dict(one)


def image(found: _Found, volume: str) -> _Found:
    (one,) = (one for one in guest(found, int(volume.partition("/")[0]))["images"] if one["volume"] == volume)
    return dict(one)


def snapshot_frees(found: _Found, volume: str, name: str) -> int:
    return next(int(one["frees"]) for one in image(found, volume)["snapshots"] if one["name"] == name)


def delete(area: Area, volume: str, *names: str) -> None:
    for name in names:
        area.do(snapshots.delete_snapshot, parse_volume(volume), name)


def free(area: Area, *volumes: str) -> None:
    for volume in volumes:
        area.do(images.free_image, parse_volume(volume))


DELETIONS: dict[str, tuple[Callable[[_Found], int], Callable[[Area], None]]] = {
    # what is told, and the deletion
    "the oldest snapshot": (lambda f: snapshot_frees(f, DISK, "one"), lambda a: delete(a, DISK, "one")),
    "a snapshot between others": (lambda f: snapshot_frees(f, DISK, "two"), lambda a: delete(a, DISK, "two")),
    "the newest snapshot": (lambda f: snapshot_frees(f, DISK, "three"), lambda a: delete(a, DISK, "three")),
    "all snapshots of an image": (
        lambda f: image(f, DISK)["snapshots_free"],
        lambda a: delete(a, DISK, "two", "one", "three"),
    ),
    "an image with its snapshots": (lambda f: image(f, DISK)["frees"], lambda a: free(a, DISK)),
    "an image that shares nothing": (lambda f: image(f, OTHER)["frees"], lambda a: free(a, OTHER)),
    "a whole guest": (lambda f: guest(f, 100)["frees"], lambda a: free(a, DISK, OTHER)),
    "a template that clones still use": (lambda f: guest(f, 90)["frees"], lambda a: free(a, BASE)),
    "a template with its clones": (lambda f: f["families"][0]["frees"], lambda a: free(a, BASE, DISK, OTHER, CLONE)),
}


@pytest.mark.parametrize("deletion", DELETIONS)
def test_what_is_told_is_freed(area: Area, small_fs: Loopback, deletion: str) -> None:
    told, do = DELETIONS[deletion]
    before = settled(small_fs)
    frees = told(area.do(report))
    do(area)
    assert abs(before - settled(small_fs) - frees) <= GRAIN


def test_what_the_deletions_free_is_not_nothing(area: Area, small_fs: Loopback) -> None:
    """Else the tests above could agree on little."""
    settled(small_fs)
    found = area.do(report)
    frees = {deletion: told(found) for deletion, (told, _) in DELETIONS.items()}
    assert min(size for deletion, size in frees.items() if "still use" not in deletion) >= MIB
    assert frees["all snapshots of an image"] > sum(s["frees"] for s in image(found, DISK)["snapshots"])
    assert frees["a template with its clones"] > frees["a whole guest"] + guest(found, 101)["frees"] + 2 * MIB


def test_the_lines_add_up_to_what_df_has(area: Area, small_fs: Loopback) -> None:
    settled(small_fs)
    found = area.do(report)
    parts = [*found["guests"], *found["others"]]
    assert sum(part["frees"] for part in parts) + found["between"] + found["itself"] == found["used"]
    status = os.statvfs(small_fs.path)
    assert found["used"] == (status.f_blocks - status.f_bfree) * status.f_frsize
    assert 0 <= found["itself"] < 80 * MIB  # the log and the reservations of an XFS of 320 MiB


def test_a_look_changes_nothing(area: Area) -> None:
    def everything() -> list[tuple[str, int, int]]:
        return [(str(p), s.st_mtime_ns, s.st_ctime_ns) for p in sorted(area.folder.rglob("*")) for s in [p.lstat()]]

    before = everything()
    area.do(report)
    assert everything() == before
