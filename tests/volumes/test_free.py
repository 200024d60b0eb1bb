"""Removing images: what is refused, what goes along, and when the blocks come back."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.errors import BaseInUse, VolumeMissing
from pvedrbdstor.volumes import activation, images, locks, snapshots, templates, work
from pvedrbdstor.volumes.names import parse_volume
from tests.loopback import fill
from tests.volumes.support import MIB, Area, is_immutable, qemu_img, set_immutable


def linked_clone(area: Area, backing: str, name: str = "200/vm-200-disk-0.qcow2") -> str:
    """A clone as a `dir` storage makes it: a qcow2 image backed by the template's."""
    path = area.put(f"images/{name}")
    qemu_img("create", "-q", "-f", "qcow2", "-F", backing.rpartition(".")[2], "-b", backing, path)
    return name


def template(area: Area, fmt: str = "qcow2") -> str:
    return str(area.do(templates.create_base, area.alloc(90, fmt)))


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_freed_image_is_gone_and_so_is_its_folder(area: Area, fmt: str) -> None:
    area.do(images.free_image, area.alloc(fmt=fmt))
    assert area.volids() == []
    assert area.leftovers() == []
    assert not (area.folder / "images/100").exists()


def test_other_images_of_the_guest_stay(area: Area) -> None:
    first, second = area.alloc(), area.alloc()
    area.do(images.free_image, first)
    assert area.volids() == [f"ha:{second}"]


@pytest.mark.parametrize("name", ["100/vm-100-disk-1.raw", "100/base-100-disk-0.raw", "200/vm-200-disk-0.raw"])
def test_what_does_not_exist_cannot_be_freed(area: Area, name: str) -> None:
    area.alloc()
    before = area.view()
    with pytest.raises(VolumeMissing, match=name):
        area.do(images.free_image, parse_volume(name))
    assert area.view() == before
    assert area.leftovers() == []


def test_an_empty_storage_has_nothing_to_free(area: Area) -> None:
    with pytest.raises(VolumeMissing):
        area.do(images.free_image, parse_volume("100/vm-100-disk-0.raw"))


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("written", ["as PVE does", "absolute"])
def test_a_template_that_backs_an_image_stays_and_stays_protected(area: Area, fmt: str, written: str) -> None:
    base = template(area, fmt)
    linked_clone(area, f"../{base}" if written == "as PVE does" else str(area.path(base)))
    with pytest.raises(BaseInUse, match=r"200/vm-200-disk-0\.qcow2"):
        area.do(images.free_image, parse_volume(base))
    assert is_immutable(area.path(base))
    assert list((area.folder / ".drbdocfs2/work").iterdir()) == []


def test_a_template_that_backs_an_image_of_its_own_guest_by_bare_name_stays(area: Area) -> None:
    base = template(area)
    linked_clone(area, base.partition("/")[2], "90/vm-90-disk-7.qcow2")
    with pytest.raises(BaseInUse, match="vm-90-disk-7"):
        area.do(images.free_image, parse_volume(base))


def test_a_template_that_backs_a_snapshot_of_a_volume_chain_stays(area: Area) -> None:
    """Proxmox VE 9 keeps snapshots of a chain in files snap-*.qcow2, which are no volumes."""
    base = template(area)
    linked_clone(area, f"../{base}", "200/snap-one-vm-200-disk-0.qcow2")
    with pytest.raises(BaseInUse, match="snap-one"):
        area.do(images.free_image, parse_volume(base))


def test_many_users_of_a_template_are_counted(area: Area) -> None:
    base = template(area)
    for number in range(7):
        linked_clone(area, f"../{base}", f"200/vm-200-disk-{number}.qcow2")
    with pytest.raises(BaseInUse, match="and 2 more"):
        area.do(images.free_image, parse_volume(base))


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_template_can_be_freed_when_nothing_uses_it(area: Area, fmt: str) -> None:
    base = template(area, fmt)
    name = linked_clone(area, f"../{base}")
    area.do(images.free_image, parse_volume(f"{base}/{name}"))
    area.do(images.free_image, parse_volume(base))
    assert area.volids() == []
    assert area.leftovers() == []


def test_snapshots_go_with_their_image(area: Area) -> None:
    volume = area.alloc()
    for name in ("one", "two"):
        area.do(snapshots.create_snapshot, volume, name)
    area.do(images.free_image, volume)
    assert area.leftovers() == []
    assert not (area.folder / "images/100").exists()


def test_snapshots_of_another_image_of_the_guest_stay(area: Area) -> None:
    first, second = area.alloc(), area.alloc()
    for volume in (first, second):
        area.do(snapshots.create_snapshot, volume, "one")
    area.do(images.free_image, first)
    assert list(area.do(snapshots.snapshot_info, second)) == ["one"]
    assert area.leftovers() == []


def test_snapshots_of_an_earlier_image_of_the_name_go_too(area: Area) -> None:
    volume = area.alloc()
    area.do(snapshots.create_snapshot, volume, "old")
    area.path(volume).unlink()  # as a `dir` storage frees it
    again = area.alloc()
    assert again == volume
    area.do(images.free_image, again)
    assert area.leftovers() == []


def test_a_subvol_folder_of_a_dir_storage_is_removed_with_its_content(area: Area) -> None:
    area.put("images/100/subvol-100-disk-0.subvol/etc/passwd", b"root")
    (area.folder / "images/100/subvol-100-disk-0.subvol/link").symlink_to("/etc")
    area.do(images.free_image, parse_volume("100/subvol-100-disk-0.subvol"))
    assert area.leftovers() == []
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("name", ["vm-100-disk-0.raw", "base-100-disk-0.raw"])
def test_of_a_link_only_the_link_is_freed(area: Area, name: str) -> None:
    target = area.put("dump/precious", b"precious")
    link = area.folder / "images/100" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    area.do(images.free_image, parse_volume(f"100/{name}"))
    assert not link.is_symlink()
    assert target.read_bytes() == b"precious"


def test_the_name_is_free_before_the_blocks_are_and_the_blocks_come_back(area: Area) -> None:
    volume = area.preallocating("full").alloc(size=64 * MIB)
    call = Call("free_image", "ha")
    with area.store() as store:
        before = store.capacity().free_bytes
        images.free_image(store, call, volume)
        assert area.volids() == []
        assert store.capacity().free_bytes - before < 32 * MIB, "the caller was kept waiting for the removal of blocks"
        call.run_after()
        deadline = time.monotonic() + 5
        while store.capacity().free_bytes - before < 60 * MIB:  # XFS does it in the background
            assert time.monotonic() < deadline, "the blocks never came back"
            time.sleep(0.01)
    assert area.leftovers() == []


def test_trash_that_cannot_be_removed_does_not_keep_the_rest_from_being_removed(area: Area) -> None:
    volume = area.alloc()
    area.do(snapshots.create_snapshot, volume, "one")
    call = Call("free_image", "ha")
    with area.store() as store:
        images.free_image(store, call, volume)
    image = next(p for p in (area.folder / ".drbdocfs2/work").iterdir() if stat.S_ISREG(p.stat().st_mode))
    set_immutable(image, True)
    call.run_after()
    assert area.leftovers() == []


def test_removing_a_tree_that_another_node_removes_too_is_no_failure(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    area.put("tree/a/file")
    area.put("tree/b/file")
    listdir = os.listdir

    def vanishing(fd: int) -> list[str]:
        found = listdir(fd)
        for path in (area.folder / "tree").rglob("file"):
            path.unlink()
        return found

    monkeypatch.setattr(os, "listdir", vanishing)
    with area.store() as store:
        work.remove_tree(store.root_fd, "tree")
    assert not (area.folder / "tree").exists()


@pytest.mark.parametrize("snapped", [False, True], ids=["plain", "with snapshots"])
def test_a_file_system_without_a_free_block_lets_images_be_freed(small_dir: Path, snapped: bool) -> None:
    """Else a full storage could never be emptied."""
    area = Area(small_dir, "falloc")
    volume = area.alloc(size=4 * MIB)
    if snapped:
        area.do(snapshots.create_snapshot, volume, "one")
    fill(small_dir)
    area.do(images.free_image, volume)
    assert area.volids() == []


def test_a_lock_file_that_cannot_name_its_holder_on_a_full_file_system_is_still_a_lock(small_dir: Path) -> None:
    area = Area(small_dir, "falloc")
    volume = area.alloc(size=4 * MIB)
    lock = area.put(".drbdocfs2/lock/guest-100")
    fill(small_dir)
    area.do(images.free_image, volume)
    assert area.volids() == []
    assert lock.stat().st_size == 0, "the file system was not as full as this test needs it"


def test_a_full_file_system_lets_go_of_an_image_that_never_had_a_lock_file(small_dir: Path) -> None:
    area = Area(small_dir)
    area.do(activation.activate_storage, ["images"])
    area.put("images/100/vm-100-disk-0.raw", bytes(4 * MIB))
    fill(small_dir)
    with pytest.raises(OSError, match="No space left"):
        (small_dir / "another").write_text("x")
    area.do(images.free_image, parse_volume("100/vm-100-disk-0.raw"))
    assert area.volids() == []


def test_an_image_is_removed_at_once_where_there_is_no_room_to_set_it_aside(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = area.alloc(size=4 * MIB)
    area.do(snapshots.create_snapshot, volume, "one")

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", no_room)
    area.do(images.free_image, volume)
    assert area.leftovers() == []


def test_the_trash_is_emptied_by_one_process_at_a_time_and_by_it_for_all(area: Area) -> None:
    """However many images are freed at once, and however long their blocks take, one process is enough."""
    first, second = area.alloc(), area.alloc()
    with area.store() as store:
        busy = locks.open_lock(store, "purge")
        assert locks.try_lock(busy)
        area.do(images.free_image, first)
        assert len(list((area.folder / ".drbdocfs2/work").iterdir())) == 1
        os.close(busy)
    area.do(images.free_image, second)
    assert area.leftovers() == []
