"""Another name or another guest for an image; its snapshots come along."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.errors import BadName, ReadOnlyVolume, VolumeExists, VolumeMissing
from pvedrbdstor.volumes import listing, renames, snapshots
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, set_immutable


@pytest.fixture
def volume(area: Area) -> VolumeName:
    """A raw image with two snapshots, of which each has other contents."""
    made = area.alloc(size=4 * MIB)
    for name in ("one", "two"):
        area.write(made, name.encode())
        area.do(snapshots.create_snapshot, made, name)
    area.write(made, b"now")
    return made


@pytest.mark.parametrize(("vmid", "name"), [(100, "vm-100-other.raw"), (200, "vm-200-other.raw"), (200, None)])
def test_image_and_snapshots_get_the_new_name_and_nothing_else_changes(
    area: Area, volume: VolumeName, vmid: int, name: str | None
) -> None:
    seen = area.view()[str(volume)]
    ids = area.do(snapshots.snapshot_info, volume)
    renamed = area.do(renames.rename_volume, volume, vmid, name)
    assert str(renamed) == f"{vmid}/{name or 'vm-200-disk-0.raw'}"
    assert area.view() == {str(renamed): seen}
    assert area.do(snapshots.snapshot_info, renamed) == ids
    assert area.leftovers() == []


def test_the_folders_that_become_empty_go(area: Area, volume: VolumeName) -> None:
    area.do(renames.rename_volume, volume, 200, None)
    assert [path.name for path in (area.folder / "images").iterdir()] == ["200"]


def test_other_images_of_both_guests_stay_with_their_snapshots(area: Area, volume: VolumeName) -> None:
    neighbours = [area.alloc(100), area.alloc(200)]
    for neighbour in neighbours:
        area.do(snapshots.create_snapshot, neighbour, "one")
    before = area.view()
    renamed = area.do(renames.rename_volume, volume, 200, None)
    assert str(renamed) == "200/vm-200-disk-1.raw"
    before[str(renamed)] = before.pop(str(volume))
    assert area.view() == before
    assert area.leftovers() == []


def test_rollback_works_under_the_new_name(area: Area, volume: VolumeName) -> None:
    renamed = area.do(renames.rename_volume, volume, 200, None)
    area.do(snapshots.rollback, renamed, "one")
    assert area.read(renamed, 3) == b"one"


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_the_format_stays(area: Area, fmt: str) -> None:
    renamed = area.do(renames.rename_volume, area.alloc(fmt=fmt), 200, None)
    assert str(renamed) == f"200/vm-200-disk-0.{fmt}"
    assert area.do(listing.size_info, renamed)["format"] == fmt


@pytest.mark.parametrize("name", ["100/vm-100-disk-0.raw", "200/vm-200-disk-0.raw"], ids=["its own name", "taken"])
def test_a_taken_name_is_refused(area: Area, volume: VolumeName, name: str) -> None:
    area.write(area.alloc(200), b"mine")
    before = area.view()
    target = parse_volume(name)
    with pytest.raises(VolumeExists):
        area.do(renames.rename_volume, volume, target.vmid, target.name)
    assert area.view() == before
    assert area.leftovers() == []


@pytest.mark.parametrize(
    ("vmid", "name"),
    [
        (200, "vm-100-disk-0.raw"),
        (200, "vm-200-disk-0.qcow2"),
        (200, "base-200-disk-0.raw"),
        (200, "../vm-200-disk-0.raw"),
        (200, "x" * 300 + ".raw"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(area: Area, volume: VolumeName, vmid: int, name: str) -> None:
    before = area.view()
    with pytest.raises(BadName):
        area.do(renames.rename_volume, volume, vmid, name)
    assert area.view() == before
    assert area.leftovers() == []


def test_a_template_keeps_its_name(area: Area) -> None:
    area.put("images/100/base-100-disk-0.raw", bytes(512))
    with pytest.raises(ReadOnlyVolume):
        area.do(renames.rename_volume, parse_volume("100/base-100-disk-0.raw"), 200, None)


def test_what_is_not_there_cannot_be_renamed(area: Area) -> None:
    for name in ("100/vm-100-disk-0.raw", "100/vm-100-disk-0.qcow2"):
        with pytest.raises(VolumeMissing):
            area.do(renames.rename_volume, parse_volume(name), 200, None)
    assert area.leftovers() == []


def test_snapshots_that_an_earlier_image_left_at_the_new_name_do_not_stay(area: Area, volume: VolumeName) -> None:
    earlier = area.alloc(200, size=MIB)
    for name in ("one", "three"):
        area.do(snapshots.create_snapshot, earlier, name)
    area.path(earlier).unlink()
    seen = area.view()[str(volume)]
    renamed = area.do(renames.rename_volume, volume, 200, None)
    assert renamed == earlier
    assert area.view() == {str(renamed): seen}
    assert area.leftovers() == []


def test_a_rename_that_fails_is_undone_by_recovery(area: Area, volume: VolumeName) -> None:
    before = area.view()
    set_immutable(area.path(volume), True)
    with pytest.raises(PermissionError):
        area.do(renames.rename_volume, volume, 200, None)
    set_immutable(area.path(volume), False)
    area.recover()
    assert area.view() == before
    assert area.leftovers() == []


def test_a_subvol_of_a_dir_storage_is_renamed_with_its_content(area: Area) -> None:
    area.put("images/100/subvol-100-disk-0.subvol/etc/hostname", b"web")
    subvol = parse_volume("100/subvol-100-disk-0.subvol")
    renamed = area.do(renames.rename_volume, subvol, 200, "subvol-200-disk-0.subvol")
    assert renamed == replace(subvol, vmid=200, name="subvol-200-disk-0.subvol")
    assert (area.folder / "images/200/subvol-200-disk-0.subvol/etc/hostname").read_bytes() == b"web"
