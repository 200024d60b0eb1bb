"""Images only grow, and what does not fit changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.errors import BadImage, BadSize, NotSupported, ReadOnlyVolume, ShrinkRefused, VolumeMissing
from pvedrbdstor.volumes import images, listing, snapshots
from pvedrbdstor.volumes.names import parse_volume
from tests.volumes.support import GIB, MIB, Area, qemu_img


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("mode", [None, "off", "metadata", "falloc", "full"])
def test_an_image_grows_and_keeps_its_contents(area: Area, fmt: str, mode: str | None) -> None:
    area = area.preallocating(mode)
    volume = area.alloc(fmt=fmt, size=2 * MIB)
    if fmt == "raw":
        area.write(volume, b"mine")
    area.do(images.resize_image, volume, 8 * MIB)
    info = area.do(listing.size_info, volume)
    assert info["size"] == 8 * MIB
    # XFS gives a reflink no unwritten blocks, which OCFS2 does: of a qcow2 image only what was added is reserved here.
    reserved = 8 * MIB if fmt == "raw" else 6 * MIB
    assert (info["used"] >= reserved) == (mode in ("falloc", "full"))
    if fmt == "raw":
        assert area.read(volume, 8 * MIB) == b"mine" + bytes(8 * MIB - 4)
    else:
        qemu_img("check", "-q", area.path(volume))
    assert area.path(volume).stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_the_same_size_is_no_change(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt, size=2 * MIB)
    before = area.view()
    area.do(images.resize_image, volume, 2 * MIB)
    assert area.view() == before


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("size", [MIB, 2 * MIB - 1, 1])
def test_an_image_never_shrinks(area: Area, fmt: str, size: int) -> None:
    volume = area.alloc(fmt=fmt, size=2 * MIB)
    before = area.view()
    with pytest.raises(ShrinkRefused, match=f"{2 * MIB} bytes; {size} bytes"):
        area.do(images.resize_image, volume, size)
    assert area.view() == before


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_what_is_beyond_the_file_system_is_refused(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt)
    before = area.view()
    with pytest.raises(BadSize):
        area.do(images.resize_image, volume, 2 * GIB)
    assert area.view() == before


@pytest.mark.parametrize("reserved", [0, 1 << 16], ids=["at once", "half way"])
def test_a_reservation_that_does_not_fit_is_given_back(
    full_dir: Path, monkeypatch: pytest.MonkeyPatch, reserved: int
) -> None:
    """XFS refuses at once, OCFS2 reserves what there is."""

    def fallocate(fd: int, offset: int, length: int, *, keep_size: bool = False, path: str = "") -> None:
        if reserved:
            really(fd, offset, reserved, keep_size=keep_size, path=path)
        really(fd, offset, length, keep_size=keep_size, path=path)

    really = native.fallocate
    monkeypatch.setattr(native, "fallocate", fallocate)
    area = Area(full_dir)
    volume = area.alloc(size=MIB)
    before = area.path(volume).stat()
    with pytest.raises(OSError, match="No space left"):
        area.preallocating("falloc").do(images.resize_image, volume, 64 * MIB)
    after = area.path(volume).stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)


def test_an_image_with_snapshots_grows_alone(area: Area) -> None:
    volume = area.alloc(size=2 * MIB)
    area.do(snapshots.create_snapshot, volume, "one")
    area.do(images.resize_image, volume, 4 * MIB)
    assert area.do(snapshots.snapshot_info, volume)["one"]["virtual-size"] == 2 * MIB
    assert area.path(volume, "one").stat().st_size == 2 * MIB


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("100/base-100-disk-0.raw", ReadOnlyVolume),
        ("100/vm-100-disk-0.vmdk", NotSupported),
        ("100/subvol-100-disk-0.subvol", NotSupported),
        ("100/vm-100-disk-0.qcow2", BadImage),
        ("100/vm-100-disk-9.raw", VolumeMissing),
    ],
)
def test_what_cannot_grow_says_why(area: Area, name: str, error: type[Exception]) -> None:
    if not name.endswith("9.raw"):
        area.put(f"images/{name}", b"not an image")
    with pytest.raises(error):
        area.do(images.resize_image, parse_volume(name), 8 * MIB)


def test_a_dir_storages_image_of_an_odd_size_grows_from_its_last_sector(area: Area) -> None:
    path = area.put("images/100/vm-100-disk-0.raw", b"x" * 1000)
    volume = parse_volume("100/vm-100-disk-0.raw")
    with pytest.raises(ShrinkRefused):
        area.do(images.resize_image, volume, 1000)
    area.do(images.resize_image, volume, 4096)
    assert path.read_bytes() == b"x" * 1000 + bytes(3096)
