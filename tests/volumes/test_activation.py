"""Activation: content folders, what a crash left, and what an image may read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvedrbdstor.errors import BadImage, SnapshotMissing, VolumeMissing, WrongMount
from pvedrbdstor.volumes import activation, snapshots
from pvedrbdstor.volumes.names import parse_volume
from tests.loopback import Loopback, fill
from tests.volumes.support import MIB, Area, qemu_img

FOLDERS = ["images", "template/iso", "template/cache", "dump", "snippets"]


def test_missing_content_folders_are_made_and_others_are_left(area: Area) -> None:
    area.put("dump/vzdump.vma", b"backup")
    for _ in range(2):
        area.do(activation.activate_storage, FOLDERS)
    assert all((area.folder / name).is_dir() for name in FOLDERS)
    assert (area.folder / "dump/vzdump.vma").read_bytes() == b"backup"


def test_activation_recovers(area: Area) -> None:
    left = area.put(".drbdocfs2/work/new.100.0123456789abcdef")
    area.do(activation.activate_storage, [])
    assert not left.exists()


def test_a_read_only_file_system_is_activated_as_it_is(small_fs: Loopback, small_dir: Path) -> None:
    area = Area(small_dir)
    left = area.put(".drbdocfs2/work/new.100.0123456789abcdef")
    (area.folder / "images").mkdir()
    with small_fs.read_only():
        area.do(activation.activate_storage, FOLDERS)
    assert left.exists()
    assert not (area.folder / "dump").exists()


def test_a_full_file_system_is_activated_and_recovered(small_dir: Path) -> None:
    """Else nothing on it could be freed."""
    area = Area(small_dir)
    area.do(activation.activate_storage, [])
    left = area.put(".drbdocfs2/work/new.100.0123456789abcdef")
    fill(small_dir)
    with pytest.raises(OSError, match="No space left"):
        (small_dir / "another").mkdir()
    area.do(activation.activate_storage, FOLDERS)
    assert not left.exists()


def test_another_failure_is_told(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "mkdir", broken)
    with pytest.raises(OSError, match="Input/output"):
        area.do(activation.activate_storage, FOLDERS)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_content_folder_that_is_none_is_refused(area: Area, tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (area.folder / "dump").symlink_to(tmp_path)
    else:
        area.put("dump")
    with pytest.raises(WrongMount, match="'dump'"):
        area.do(activation.activate_storage, ["dump/deeper"])
    assert list(tmp_path.iterdir()) == []


def test_a_content_folder_on_another_file_system_is_refused(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    (area.folder / "dump").mkdir()
    with area.store() as store:
        monkeypatch.setattr(store, "_device", -1)
        with pytest.raises(WrongMount, match="another file system"):
            store.folder("dump")


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_and_its_snapshot_can_be_used(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt)
    area.do(snapshots.create_snapshot, volume, "one")
    for snap in (None, "one"):
        area.do(activation.activate_volume, volume, snap)
    with pytest.raises(SnapshotMissing):
        area.do(activation.activate_volume, volume, "two")


def test_what_is_not_there_cannot_be_used(area: Area) -> None:
    with pytest.raises(VolumeMissing):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.raw"), None)


@pytest.mark.parametrize("name", ["vm-100-disk-0.vmdk", "subvol-100-disk-0.subvol/etc"])
def test_other_formats_of_a_dir_storage_can_be_used(area: Area, name: str) -> None:
    area.put(f"images/100/{name}", b"KDMV")
    area.do(activation.activate_volume, parse_volume(f"100/{name.partition('/')[0]}"), None)


def test_a_damaged_qcow2_image_is_told_so(area: Area) -> None:
    area.put("images/100/vm-100-disk-0.qcow2", b"QFI\xfb")
    with pytest.raises(BadImage, match="damaged"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def backed_by(area: Area, backing: str, fmt: str = "raw", name: str = "vm-100-disk-0.qcow2") -> None:
    path = area.put(f"images/100/{name}")
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", fmt, "-b", backing, path, str(MIB))


@pytest.mark.parametrize("backing", ["../90/base-90-disk-0.raw", "base-100-disk-0.raw", "{path}/images/90/x.raw"])
def test_an_image_may_be_backed_by_one_of_this_storage(area: Area, backing: str) -> None:
    backed_by(area, backing.format(path=area.folder))
    area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


@pytest.mark.parametrize(
    "backing",
    [
        *("/etc/passwd", "../../../../etc/passwd", "../90/../../../x.raw", "{path}/../x.raw", "{path}x/y.raw"),
        *(
            "nbd://evil/x",
            'json:{{"file.filename":"/etc/passwd"}}',
            "fat:/etc",
            "./../../../etc/passwd",
            "../90/.x.raw",
        ),
    ],
)
def test_an_image_may_not_be_backed_by_anything_else(area: Area, backing: str) -> None:
    backed_by(area, backing.format(path=area.folder))
    with pytest.raises(BadImage, match="backed by"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_an_image_may_not_keep_its_data_elsewhere(area: Area, tmp_path: Path) -> None:
    path = area.put("images/100/vm-100-disk-0.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", path, "1M")
    with pytest.raises(BadImage, match="another file"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


@pytest.mark.parametrize(
    "backing", ["../100/base-100-disk-0.qcow2", "base-100-disk-0.qcow2", "{path}/images/100/base-100-disk-0.qcow2"]
)
@pytest.mark.parametrize("outside", ["/etc/passwd", "../../../../etc/passwd"])
def test_what_an_image_is_backed_by_may_not_lead_outside_either(area: Area, backing: str, outside: str) -> None:
    backed_by(area, outside, name="base-100-disk-0.qcow2")
    backed_by(area, backing.format(path=area.folder), "qcow2")
    with pytest.raises(BadImage, match="etc/passwd"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_a_name_that_leads_outside_from_where_its_image_lies_is_refused(area: Area) -> None:
    """`../90/x.raw` is inside for an image in images/100, and outside for one beside images."""
    backed_by(area, f"{area.folder}/lonely.qcow2", "qcow2")
    lonely = area.put("lonely.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "../90/x.raw", lonely, "1M")
    with pytest.raises(BadImage, match="outside the storage"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_what_a_guest_wrote_into_a_raw_base_is_not_taken_for_a_header(area: Area) -> None:
    backed_by(area, "/etc/passwd", name="base-100-disk-0.raw")
    backed_by(area, "../100/base-100-disk-0.raw", "raw")
    area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_images_that_are_backed_by_each_other_are_refused(area: Area) -> None:
    backed_by(area, "vm-100-disk-1.qcow2", "qcow2")
    backed_by(area, "vm-100-disk-0.qcow2", "qcow2", name="vm-100-disk-1.qcow2")
    with pytest.raises(BadImage, match="ring"):
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_a_long_chain_inside_the_storage_can_be_used(area: Area) -> None:
    backed_by(area, "snap-0-x.qcow2", "qcow2")
    for number in range(5):
        backed_by(area, f"snap-{number + 1}-x.qcow2", "qcow2", name=f"snap-{number}-x.qcow2")
    area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)


def test_reflinks_never_share_their_lock_file_with_a_guest(area: Area) -> None:
    """Else a snapshot would wait for itself, from the day the file system was full on."""
    area.do(activation.activate_storage, [])
    folder = area.folder / ".drbdocfs2/lock"
    assert (folder / "spare").stat().st_ino != (folder / "reflink").stat().st_ino


def test_a_message_names_a_hostile_backing_file_in_printable_text(area: Area) -> None:
    backed_by(area, "/etc/\x1b[2J\n" + "x" * 500)
    with pytest.raises(BadImage) as caught:
        area.do(activation.activate_volume, parse_volume("100/vm-100-disk-0.qcow2"), None)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
