"""What is seen of real files: where they lie, what waits in memory and stays there, what comes, goes or cannot be read."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import CallerGone
from pvedrbdstor.native import Extent
from pvedrbdstor.space.look import Looked, look
from pvedrbdstor.space.places import sets_of_files
from pvedrbdstor.volumes import qcow2, snapshots
from tests.volumes.support import MIB, Area

IMAGE = "images/100/vm-100-disk-0.raw"


@pytest.fixture
def area(reflink_dir: Path) -> Area:
    return Area(reflink_dir)


def seen(area: Area) -> Looked:
    found = area.do(look)
    assert isinstance(found, Looked)
    return found


def allocated(found: Looked) -> dict[str, int]:
    """Bytes of each file."""
    sets = sets_of_files([file.places for file in found.files])
    return {
        file.owner.path: sum(size for holders, size in sets.items() if holders >> at & 1)
        for at, file in enumerate(found.files)
    }


def synced(path: Path) -> Path:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def test_what_is_reserved_and_never_written_is_allocated(area: Area) -> None:
    path = area.put(IMAGE)
    with path.open("r+b") as image:
        native.fallocate(image.fileno(), 0, 3 * MIB)
        os.pwrite(image.fileno(), bytes(MIB), 0)
        os.ftruncate(image.fileno(), 64 * MIB)
        os.fsync(image.fileno())
    found = seen(area)
    assert allocated(found) == {IMAGE: 3 * MIB}
    assert found.files[0].apparent == 64 * MIB


def test_what_waits_to_be_written_is_counted_and_goes_on_waiting(area: Area) -> None:
    path = area.put(IMAGE, b"x" * (2 * MIB))
    with path.open("rb") as image:
        assert not any(extent.located for extent in native.fiemap(image.fileno()))  # else this tests nothing
        assert allocated(seen(area))[IMAGE] >= 2 * MIB
        assert not any(extent.located for extent in native.fiemap(image.fileno()))


def test_shared_blocks_are_seen_to_be_the_same(area: Area) -> None:
    volume = area.alloc()
    area.write(volume, os.urandom(MIB))
    area.do(snapshots.create_snapshot, volume, "one")
    area.write(volume, os.urandom(MIB // 4))
    synced(area.path(volume))
    found = seen(area)
    sets = sets_of_files([file.places for file in found.files])
    at = {file.owner.path: 1 << number for number, file in enumerate(found.files)}
    image, snapshot = at[IMAGE], at["images/100/.snapshots/vm-100-disk-0.raw/one.raw"]
    assert {image | snapshot: 3 * MIB // 4, image: MIB // 4, snapshot: MIB // 4}.items() <= sets.items()


def test_bytes_inside_the_inode_take_no_space(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    area.put(IMAGE, b"x")
    inline = Extent(0, 4096 * 7 + 192, 1, native.FIEMAP_EXTENT_DATA_INLINE | native.FIEMAP_EXTENT_LAST)
    monkeypatch.setattr(native, "fiemap", lambda fd, path: iter([inline]))
    assert allocated(seen(area)) == {IMAGE: 0}


def test_a_file_with_two_names_is_one_and_has_the_better_one(area: Area) -> None:
    """As while a rollback replaces an image."""
    path = synced(area.put(".drbdocfs2/work/new.100.0123456789abcdef", b"x" * 8192))
    (area.folder / "images/100").mkdir(parents=True)
    os.link(path, area.folder / IMAGE)
    assert allocated(seen(area)) == {IMAGE: 8192}


def test_what_is_mounted_below_lies_on_another_device(area: Area, small_dir: Path) -> None:
    area.put(IMAGE, b"x")
    (small_dir / "backup.vma").write_bytes(b"x" * MIB)
    (area.folder / "dump").mkdir()
    subprocess.run(["mount", "--bind", str(small_dir), str(area.folder / "dump")], check=True)
    try:
        assert [file.owner.path for file in seen(area).files] == [IMAGE]
    finally:
        subprocess.run(["umount", str(area.folder / "dump")], check=True)


def test_what_goes_meanwhile_is_passed_over(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [area.put(f"images/100/vm-100-disk-{number}.raw", b"x") for number in range(3)]
    fiemap = native.fiemap

    def removing(fd: int, path: str) -> Iterator[Extent]:
        for other in paths[1:]:
            other.unlink(missing_ok=True)
        return fiemap(fd, path=path)

    monkeypatch.setattr(native, "fiemap", removing)
    found = seen(area)
    assert ([file.owner.path for file in found.files], found.failed) == ([IMAGE], [])


def test_what_cannot_be_looked_into_is_told_and_the_rest_is_seen(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    area.put("images/100/\x1bbad.raw", b"x")
    area.put(IMAGE, b"x")
    fiemap = native.fiemap

    def failing(fd: int, path: str) -> Iterator[Extent]:
        if "bad" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return fiemap(fd, path=path)

    monkeypatch.setattr(native, "fiemap", failing)
    found = seen(area)
    assert [file.owner.path for file in found.files] == [IMAGE]
    assert found.failed == [("images/100/?bad.raw", "Input/output error")]


def test_a_broken_qcow2_image_is_counted_as_any_file(area: Area) -> None:
    area.put("images/100/vm-100-disk-0.qcow2", qcow2.MAGIC + bytes(5000))
    (file,) = seen(area).files
    assert (file.apparent, file.backing, file.inner) == (5004, None, ())


@pytest.mark.parametrize(
    ("named", "means"),
    [
        ("../90/base-90-disk-0.qcow2", "images/90/base-90-disk-0.qcow2"),
        ("{root}/images/90/base-90-disk-0.qcow2", "images/90/base-90-disk-0.qcow2"),
        ("/etc/passwd", None),
        ("../../../x", None),
    ],
)
def test_a_backing_file_is_told_by_its_path_in_the_storage(area: Area, named: str, means: str | None) -> None:
    path = area.put("images/100/vm-100-disk-0.qcow2")
    backing = named.format(root=area.folder)
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, str(path), "1M"]
    subprocess.run(command, check=True)
    assert [file.backing for file in seen(area).files] == [means]


def test_it_ends_when_its_caller_has_gone(area: Area) -> None:
    area.put(IMAGE, b"x")
    call = Call("space", "ha")
    call.gone = lambda: True
    with area.store() as store, pytest.raises(CallerGone):
        look(store, call)


def test_a_file_of_very_many_extents_gives_signs_of_life(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    area.put(IMAGE, b"x")
    many = [Extent(at * 8192, at * 8192, 4096, 0) for at in range(20_000)]
    monkeypatch.setattr(native, "fiemap", lambda fd, path: iter(many))
    signs: list[tuple[int, int]] = []
    with area.store() as store:
        look(store, Call("space", "ha", progress=lambda done, total: signs.append((done, total))))
    assert len(signs) >= 5 and set(signs) <= {(0, 1), (1, 1)}
