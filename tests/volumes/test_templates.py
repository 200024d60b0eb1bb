"""Templates are read-only for good; clones are independent from their birth."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvedrbdstor.errors import (
    BadName,
    HasSnapshots,
    NoReflink,
    NotSupported,
    ReadOnlyVolume,
    SnapshotMissing,
    VolumeExists,
    VolumeMissing,
)
from pvedrbdstor.volumes import failures, images, listing, renames, snapshots, templates
from pvedrbdstor.volumes.identity import image_id
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, is_immutable, qemu_img


@pytest.fixture
def volume(area: Area) -> VolumeName:
    made = area.alloc(size=4 * MIB)
    area.write(made, b"golden")
    return made


def id_of(path: Path) -> str | None:
    with path.open("rb") as file:
        return image_id(file.fileno())


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_template_has_a_base_name_and_cannot_be_changed(area: Area, fmt: str) -> None:
    base = area.do(templates.create_base, area.alloc(fmt=fmt))
    assert str(base) == f"100/base-100-disk-0.{fmt}"
    path = area.path(base)
    assert path.stat().st_mode & 0o7777 == 0o444
    assert is_immutable(path)
    with pytest.raises(PermissionError):
        path.open("r+b")
    assert area.volids() == [f"ha:{base}"]
    assert area.leftovers() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_with_snapshots_becomes_no_template(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt)
    area.do(snapshots.create_snapshot, volume, "one")
    before = area.view()
    with pytest.raises(HasSnapshots, match="one"):
        area.do(templates.create_base, volume)
    assert area.view() == before
    assert area.leftovers() == []


def test_snapshots_of_an_earlier_image_do_not_count(area: Area, volume: VolumeName) -> None:
    area.do(snapshots.create_snapshot, volume, "one")
    area.path(volume).unlink()
    assert area.do(templates.create_base, area.alloc()).is_base


@pytest.mark.parametrize("name", ["100/base-100-disk-0.raw", "100/other.raw", "100/subvol-100-disk-0.subvol"])
def test_only_an_image_of_a_guest_becomes_a_template(area: Area, name: str) -> None:
    area.put(f"images/{name}")
    with pytest.raises(BadName, match="vm-"):
        area.do(templates.create_base, parse_volume(name))


def test_a_template_of_that_name_stays(area: Area, volume: VolumeName) -> None:
    area.do(templates.create_base, volume)
    area.put("images/100/vm-100-disk-0.raw", bytes(512))
    before = area.view()
    with pytest.raises(VolumeExists, match="base-100-disk-0"):
        area.do(templates.create_base, volume)
    assert area.view() == before


@pytest.mark.parametrize("action", ["rename", "resize", "rollback-free name"])
def test_a_template_never_changes(area: Area, volume: VolumeName, action: str) -> None:
    base = area.do(templates.create_base, volume)
    before = area.view()
    if action == "rename":
        with pytest.raises(ReadOnlyVolume):
            area.do(renames.rename_volume, base, 200, None)
    elif action == "resize":
        with pytest.raises(ReadOnlyVolume):
            area.do(images.resize_image, base, 8 * MIB)
    else:
        assert str(area.alloc()) == "100/vm-100-disk-1.raw"
        area.do(images.free_image, parse_volume("100/vm-100-disk-1.raw"))
    assert area.view() == before


def test_a_file_system_without_immutable_files_can_have_templates(
    area: Area, volume: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pvedrbdstor.native.set_immutable", refuse)
    base = area.do(templates.create_base, volume)
    assert area.path(base).stat().st_mode & 0o7777 == 0o444


@pytest.mark.parametrize("source", ["template", "snapshot", "current"])
@pytest.mark.parametrize("vmid", [100, 200])
def test_a_clone_has_the_contents_of_its_source_and_its_own_life(
    area: Area, volume: VolumeName, source: str, vmid: int
) -> None:
    snap = None
    if source == "template":
        volume = area.do(templates.create_base, volume)
    elif source == "snapshot":
        area.do(snapshots.create_snapshot, volume, snap := "one")
        area.write(volume, b"newer!")
    before = area.view()
    clone = area.do(templates.clone_image, volume, vmid, snap)
    assert (clone.vmid, clone.base) == (vmid, None)
    path = area.path(clone)
    assert (path.stat().st_mode & 0o7777, is_immutable(path)) == (0o640, False)
    assert area.read(clone, 6) == b"golden"
    assert id_of(path) not in (None, id_of(area.path(volume)))
    area.write(clone, b"mine!!")
    assert {name: seen for name, seen in area.view().items() if name != str(clone)} == before
    assert area.do(snapshots.snapshot_info, clone) == {}
    assert area.leftovers() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_template_can_be_freed_after_it_was_cloned(area: Area, fmt: str) -> None:
    base = area.do(templates.create_base, area.alloc(fmt=fmt, size=4 * MIB))
    clone = area.do(templates.clone_image, base, 200, None)
    seen = area.view()[str(clone)]
    area.do(images.free_image, base)
    assert area.view() == {str(clone): seen}
    assert area.leftovers() == []


def test_cloning_what_is_not_there_leaves_nothing(area: Area, volume: VolumeName) -> None:
    for absent in ("100/base-100-disk-9.raw", "300/base-300-disk-0.raw", "100/base-100-disk-9.qcow2"):
        with pytest.raises(VolumeMissing):
            area.do(templates.clone_image, parse_volume(absent), 200, None)
    with pytest.raises(SnapshotMissing):
        area.do(templates.clone_image, volume, 200, "nope")
    assert area.volids() == [f"ha:{volume}"]
    assert area.leftovers() == []


def test_a_qcow2_image_with_snapshots_is_not_cloned_in_place(area: Area) -> None:
    volume = area.alloc(fmt="qcow2")
    area.do(snapshots.create_snapshot, volume, "one")
    for snap in (None, "one"):
        with pytest.raises(NotSupported, match="full clone"):
            area.do(templates.clone_image, volume, 200, snap)
    assert area.leftovers() == []


@pytest.mark.parametrize("name", ["base-100-disk-0.vmdk", "subvol-100-disk-0.subvol"])
def test_other_formats_are_not_cloned_in_place(area: Area, name: str) -> None:
    area.put(f"images/100/{name}")
    with pytest.raises(NotSupported, match="full clone"):
        area.do(templates.clone_image, parse_volume(f"100/{name}"), 200, None)


class TestLinkedClonesOfADirStorage:
    """qcow2 images that are backed by a template, as a `dir` storage left them."""

    @pytest.fixture
    def linked(self, area: Area) -> VolumeName:
        base = area.do(templates.create_base, area.alloc(90, "qcow2", 4 * MIB))
        path = area.put("images/100/vm-100-disk-0.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", f"../{base}", path)
        return parse_volume(f"{base}/100/vm-100-disk-0.qcow2")

    def test_the_base_is_part_of_the_listed_name(self, area: Area, linked: VolumeName) -> None:
        assert area.volids() == ["ha:90/base-90-disk-0.qcow2", f"ha:{linked}"]
        info = area.do(listing.size_info, linked)
        assert (info["parent"], info["size"]) == ("../90/base-90-disk-0.qcow2", 4 * MIB)

    def test_a_clone_of_it_is_backed_by_the_same_base(self, area: Area, linked: VolumeName) -> None:
        clone = area.do(templates.clone_image, linked, 200, None)
        assert str(clone) == "90/base-90-disk-0.qcow2/200/vm-200-disk-0.qcow2"
        assert f"ha:{clone}" in area.volids()
        qemu_img("check", "-q", area.path(clone))

    def test_it_keeps_its_base_under_another_name(self, area: Area, linked: VolumeName) -> None:
        renamed = area.do(renames.rename_volume, linked, 300, None)
        assert str(renamed) == "90/base-90-disk-0.qcow2/300/vm-300-disk-0.qcow2"
        assert f"ha:{renamed}" in area.volids()
        qemu_img("check", "-q", area.path(renamed))

    def test_it_can_become_a_template_itself(self, area: Area, linked: VolumeName) -> None:
        base = area.do(templates.create_base, linked)
        assert str(base) == "90/base-90-disk-0.qcow2/100/base-100-disk-0.qcow2"
        assert f"ha:{base}" in area.volids()

    @pytest.mark.parametrize("action", [templates.clone_image, renames.rename_volume])
    def test_an_image_backed_by_its_neighbour_does_not_go_to_another_guest(
        self, area: Area, linked: VolumeName, action: object
    ) -> None:
        """A bare name means a file in the image's own folder: elsewhere it is another file, or none."""
        path = area.put("images/100/vm-100-disk-1.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", linked.name, path)
        before = area.view()
        with pytest.raises(NotSupported, match="part of a chain"):
            area.do(action, parse_volume("100/vm-100-disk-1.qcow2"), 200, None)  # type: ignore[arg-type]
        assert area.view() == before
        assert area.leftovers() == []


def test_a_clone_on_a_file_system_without_reflink_leaves_nothing(tmpfs_dir: Path) -> None:
    area = Area(tmpfs_dir)
    area.put("images/100/base-100-disk-0.raw", bytes(4096))
    with pytest.raises(OSError, match="not supported") as caught:
        area.do(templates.clone_image, parse_volume("100/base-100-disk-0.raw"), 200, None)
    assert isinstance(failures.explain(caught.value, area.config, "clone_image"), NoReflink)
    assert area.leftovers() == []
