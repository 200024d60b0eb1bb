"""Images sent as streams: to the byte what a guest sees, and never a file of anybody else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pvedrbdstor.errors import BadImage, NotSupported, SnapshotMissing, StreamError, VolumeMissing
from pvedrbdstor.volumes import images, snapshots, transfer
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, framed, qcow2_with_contents, qemu_img

RAW, QCOW2 = transfer.RAW, transfer.QCOW2


@pytest.fixture
def nothing() -> Iterator[int]:
    """An empty file to send into."""
    fd = os.memfd_create("stream")
    yield fd
    os.close(fd)


@pytest.fixture
def volume(area: Area) -> VolumeName:
    """A raw image of 64 MiB with two blocks of data far apart."""
    made = area.alloc(size=64 * MIB)
    area.write(made, b"begin" * 1000)
    area.write(made, b"end" * 1000, 48 * MIB)
    return made


def test_a_snapshot_is_sent_as_it_was_taken(area: Area, volume: VolumeName) -> None:
    area.do(snapshots.create_snapshot, volume, "one")
    area.do(images.resize_image, volume, 65 * MIB)
    area.write(volume, b"after")
    stream = area.send(volume, snap="one")
    assert (len(stream), stream[8:13]) == (8 + 64 * MIB, b"begin")


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1000, 65537])
def test_an_image_of_an_odd_size_is_sent_in_whole_sectors(area: Area, length: int) -> None:
    area.put("images/100/vm-100-disk-0.raw", b"x" * length)
    assert area.send(parse_volume("100/vm-100-disk-0.raw")) == framed(b"x" * length + bytes(-length % 512))


def test_a_qcow2_stream_is_the_file_to_the_byte(area: Area) -> None:
    """Here the file is less than a sector shorter than the disk."""
    path = area.put("images/100/vm-100-disk-0.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", path, "197120")
    os.truncate(path, 197000)
    assert area.send(parse_volume("100/vm-100-disk-0.qcow2"), QCOW2) == framed(path.read_bytes(), 197120)


@pytest.mark.parametrize(("snap", "content"), [(None, b"new!"), ("one", b"old!")])
def test_a_qcow2_image_can_be_sent_as_raw(area: Area, snap: str | None, content: bytes) -> None:
    volume = qcow2_with_contents(area)
    assert area.send(volume, RAW, snap) == framed(content * (MIB // 4))
    assert area.leftovers() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_snapshot_that_is_not_there_cannot_be_sent(area: Area, fmt: str) -> None:
    volume = area.alloc(fmt=fmt)
    with pytest.raises(SnapshotMissing, match="'nope'"):
        area.send(volume, RAW, "nope")
    assert area.leftovers() == []


def test_a_linked_clone_is_sent_as_raw_but_not_as_qcow2(area: Area) -> None:
    area.put("images/90/base-90-disk-0.raw", b"base" * 1024)
    path = area.put("images/100/vm-100-disk-0.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "../90/base-90-disk-0.raw", path)
    volume = parse_volume("90/base-90-disk-0.raw/100/vm-100-disk-0.qcow2")
    assert area.send(volume) == framed(b"base" * 1024)
    with pytest.raises(BadImage, match="full copy"):
        area.send(volume, QCOW2)


def test_files_outside_the_storage_are_not_sent(area: Area) -> None:
    path = area.put("images/100/vm-100-disk-0.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", path)
    with pytest.raises(BadImage, match="outside the storage"):
        area.send(parse_volume("100/vm-100-disk-0.qcow2"))


@pytest.mark.parametrize(
    ("name", "fmt", "snap", "with_snapshots"),
    [
        ("100/vm-100-disk-0.raw", QCOW2, None, True),
        ("100/vm-100-disk-0.raw", RAW, None, True),
        ("100/vm-100-disk-0.qcow2", QCOW2, None, False),
        ("100/vm-100-disk-0.qcow2", QCOW2, "one", True),
        ("100/vm-100-disk-0.vmdk", RAW, None, False),
        ("100/subvol-100-disk-0.subvol", "tar+size", None, False),
        ("100/vm-100-disk-0.raw", "", None, False),
    ],
)
def test_what_is_not_offered_is_refused(
    area: Area, nothing: int, name: str, fmt: str, snap: str | None, with_snapshots: bool
) -> None:
    with pytest.raises(NotSupported):
        area.do(transfer.export_image, parse_volume(name), fmt, snap, with_snapshots, nothing)


def test_what_is_not_there_cannot_be_sent(area: Area) -> None:
    with pytest.raises(VolumeMissing):
        area.send(parse_volume("100/vm-100-disk-0.raw"))


@pytest.mark.parametrize("damage", ["no snapshot", "foreign file", "cut short"])
def test_nothing_is_sent_before_it_is_known_that_all_can_be(area: Area, nothing: int, damage: str) -> None:
    path = area.path(volume := area.alloc(fmt="qcow2"))
    if damage == "foreign file":
        qemu_img("rebase", "-u", "-F", "raw", "-b", "/etc/passwd", path)
    elif damage == "cut short":
        os.truncate(path, 1000)
    with pytest.raises((SnapshotMissing, BadImage)):
        area.do(transfer.export_image, volume, RAW, "nope" if damage == "no snapshot" else None, False, nothing)
    assert os.fstat(nothing).st_size == 0


@pytest.mark.parametrize("fmt", [RAW, QCOW2])
def test_a_receiver_that_goes_away_is_the_streams_failure(area: Area, volume: VolumeName, fmt: str) -> None:
    if fmt == QCOW2:
        volume = area.alloc(fmt="qcow2")
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(StreamError, match="closed"):
        area.do(transfer.export_image, volume, fmt, None, fmt == QCOW2, writer)
    os.close(writer)


def test_progress_reaches_the_whole(area: Area, volume: VolumeName, nothing: int) -> None:
    told: list[tuple[int, int]] = []
    area.do(transfer.export_image, volume, RAW, None, False, nothing, progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert told[-1] == (64 * MIB, 64 * MIB)
