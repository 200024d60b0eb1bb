"""Snapshots of qcow2 images lie inside the image, as QEMU makes them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pvedrbdstor.errors import BadImage, Error, SnapshotExists, SnapshotMissing
from pvedrbdstor.volumes import images, listing, snapshots
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, qemu_img


@pytest.fixture
def volume(area: Area) -> VolumeName:
    return area.alloc(fmt="qcow2", size=4 * MIB)


def names_of(area: Area, volume: VolumeName) -> list[str]:
    return list(area.do(snapshots.snapshot_info, volume))


def seen_by_qemu(area: Area, volume: VolumeName) -> list[str]:
    info = json.loads(qemu_img("info", "--output=json", area.path(volume)))
    return [entry["name"] for entry in info.get("snapshots", [])]


def test_snapshots_are_made_listed_and_removed_inside_the_image(area: Area, volume: VolumeName) -> None:
    for name in ("a", "b", "c"):
        area.do(snapshots.create_snapshot, volume, name)
    assert names_of(area, volume) == seen_by_qemu(area, volume) == ["a", "b", "c"]
    area.do(snapshots.delete_snapshot, volume, "b")
    assert names_of(area, volume) == seen_by_qemu(area, volume) == ["a", "c"]
    assert area.leftovers() == []


def test_snapshots_that_qemu_made_are_seen_and_used(area: Area, volume: VolumeName) -> None:
    qemu_img("snapshot", "-c", "before", area.path(volume))
    info = area.do(snapshots.snapshot_info, volume)
    assert info["before"]["virtual-size"] == 4 * MIB
    assert info["before"]["id"] == "1"
    with pytest.raises(SnapshotExists):
        area.do(snapshots.create_snapshot, volume, "before")
    area.do(snapshots.rollback, volume, "before")
    area.do(snapshots.delete_snapshot, volume, "before")
    assert seen_by_qemu(area, volume) == []


def test_rollback_restores_content_and_size(area: Area, volume: VolumeName) -> None:
    area.do(snapshots.create_snapshot, volume, "small")
    area.do(images.resize_image, volume, 8 * MIB)
    area.do(snapshots.rollback, volume, "small")
    assert area.do(listing.size_info, volume)["size"] == 4 * MIB
    qemu_img("check", "-q", area.path(volume))


@pytest.mark.parametrize("action", [snapshots.delete_snapshot, snapshots.rollback])
def test_a_snapshot_that_is_not_there_is_missing(area: Area, volume: VolumeName, action: Callable[..., None]) -> None:
    with pytest.raises(SnapshotMissing):
        area.do(action, volume, "nope")


def test_an_image_that_is_none_is_told_so(area: Area) -> None:
    area.put("images/100/vm-100-disk-0.qcow2", b"not at all")
    volume = parse_volume("100/vm-100-disk-0.qcow2")
    for action in (snapshots.create_snapshot, snapshots.delete_snapshot, snapshots.rollback):
        with pytest.raises(BadImage):
            area.do(action, volume, "one")


def test_a_folder_of_an_images_name_is_told_so(area: Area) -> None:
    (area.folder / "images/100/vm-100-disk-0.qcow2").mkdir(parents=True)
    with pytest.raises(Error, match="a link, folder or device"):
        area.do(snapshots.snapshot_info, parse_volume("100/vm-100-disk-0.qcow2"))
