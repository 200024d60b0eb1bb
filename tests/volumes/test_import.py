"""Images made from streams: what arrives is what was sent, or nothing at all."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from pvedrbdstor.errors import (
    BadImage,
    BadName,
    BadSize,
    CallerGone,
    DeadlineExceeded,
    Error,
    NotSupported,
    StreamError,
    VolumeExists,
)
from pvedrbdstor.volumes import images, listing, snapshots, transfer
from pvedrbdstor.volumes.identity import image_id
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.examples import examples
from tests.volumes.support import GIB, MIB, Area, framed, qcow2_with_contents, qemu_img

RAW, QCOW2 = transfer.RAW, transfer.QCOW2
TARGET = parse_volume("200/vm-200-disk-0.raw")
QCOW2_TARGET = parse_volume("200/vm-200-disk-0.qcow2")


def refused(area: Area, error: type[Error], stream: bytes, target: VolumeName = TARGET) -> str:
    """Importing ``stream`` is refused by ``error`` and leaves nothing; the error's message."""
    before = area.view()
    with pytest.raises(error) as caught:
        area.receive(stream, target)
    assert area.view() == before
    assert area.leftovers() == []
    return caught.value.message


def test_a_raw_image_arrives_as_it_was_sent_holes_included(area: Area) -> None:
    volume = area.alloc(size=64 * MIB)
    area.write(volume, b"begin" * 1000)
    area.write(volume, b"end" * 1000, 48 * MIB)
    made = area.receive(area.send(volume), TARGET)
    assert made == TARGET
    path = area.path(made)
    assert path.read_bytes() == area.path(volume).read_bytes()
    assert path.stat().st_blocks * 512 <= MIB
    assert path.stat().st_mode & 0o7777 == 0o640
    with path.open("rb") as new, area.path(volume).open("rb") as old:
        assert image_id(new.fileno()) not in (None, image_id(old.fileno()))
        assert len(native.data_extents(new.fileno(), 64 * MIB)) == 2
    assert area.leftovers() == []


@given(pieces=st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 150_000)), max_size=5))
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_contents_survive_the_round_trip(area: Area, pieces: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece + bytes(zeros) for piece, zeros in pieces) or b"x"
    data += bytes(-len(data) % 512)
    made = area.receive(framed(data), TARGET)
    assert area.send(made) == framed(data)
    area.do(images.free_image, made)


@pytest.mark.parametrize("missing", [1, 511])
def test_the_rest_of_the_last_sector_need_not_be_sent(area: Area, missing: int) -> None:
    """Proxmox rounds the size it announces up."""
    made = area.receive(framed(b"x" * (1024 - missing), 1024), TARGET)
    assert area.path(made).read_bytes() == b"x" * (1024 - missing) + bytes(missing)


def test_a_qcow2_image_arrives_with_its_snapshots(area: Area) -> None:
    volume = area.alloc(fmt="qcow2", size=4 * MIB)
    area.do(snapshots.create_snapshot, volume, "one")
    stream = area.send(volume, QCOW2)
    assert stream == framed(area.path(volume).read_bytes(), 4 * MIB)
    made = area.receive(stream, QCOW2_TARGET)
    assert list(area.do(snapshots.snapshot_info, made)) == ["one"]
    assert area.path(made).read_bytes() == area.path(volume).read_bytes()
    assert area.leftovers() == []


@pytest.mark.parametrize(
    ("target", "fmt", "with_snapshots"),
    [
        (TARGET, RAW, True),
        (TARGET, QCOW2, True),
        (QCOW2_TARGET, QCOW2, False),
        (QCOW2_TARGET, RAW, False),
        (TARGET, "", 0),
    ],
)
def test_what_is_not_offered_is_refused(area: Area, target: VolumeName, fmt: str, with_snapshots: bool) -> None:
    with pytest.raises(NotSupported):
        area.do(transfer.import_image, target, fmt, with_snapshots, False, -1)


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (b"", "after 0 bytes, before its size"),
        (b"1234567", "after 7 bytes, before its size"),
        (framed(b"x" * 512, 4096), "after 512 of 4096 bytes"),
        (framed(b"", 4096), "after 0 of 4096"),
        (framed(b"x" * 8192, 4096), "more than the 4096 bytes"),
        (framed(b"x" * 4097, 4096), "more than the 4096 bytes"),
        (framed(bytes(3 * MIB), 2 * MIB), f"more than the {2 * MIB} bytes"),
    ],
    ids=range(7),
)
def test_a_raw_stream_of_another_length_than_it_says_is_broken(area: Area, data: bytes, because: str) -> None:
    assert because in refused(area, StreamError, data)


@pytest.mark.parametrize("size", [0, 2 * GIB, (1 << 64) - 1])
def test_a_size_that_cannot_be_is_refused_before_any_data_is_read(area: Area, size: int) -> None:
    refused(area, BadSize, framed(b"x" * 512, size))


def whole(area: Area) -> bytes:
    """A qcow2 image of 1 MiB with data to its end."""
    path = area.path(qcow2_with_contents(area))
    data = path.read_bytes()
    path.unlink()
    path.parent.rmdir()
    return data


@pytest.mark.parametrize("cut", [100, 70_000, -65_536 * 3, -65_536 * 10])
def test_a_qcow2_stream_that_is_cut_short_is_refused(area: Area, cut: int) -> None:
    data = whole(area)
    with pytest.raises((BadImage, StreamError)):
        area.receive(framed(data[:cut], MIB), QCOW2_TARGET)
    assert area.volids() == []
    assert area.leftovers() == []


@pytest.mark.parametrize("size", [512, 2 * MIB])
def test_a_qcow2_stream_of_another_size_than_it_says_is_refused(area: Area, size: int) -> None:
    assert f"{size} bytes" in refused(area, BadImage, framed(whole(area), size), QCOW2_TARGET)


@pytest.mark.parametrize("options", ["backing", "data file"])
def test_a_qcow2_stream_that_depends_on_another_file_is_refused(area: Area, tmp_path: Path, options: str) -> None:
    image = tmp_path / "evil.qcow2"
    if options == "backing":
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow", image, "1M")
    else:
        data = f"data_file={tmp_path / 'data'},data_file_raw=on"
        qemu_img("create", "-q", "-f", "qcow2", "-o", data, image, "1M")
    refused(area, BadImage, framed(image.read_bytes(), MIB), QCOW2_TARGET)


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"x" * 100_000, bytes(100_000)], ids=range(4))
def test_a_stream_that_is_no_qcow2_image_is_refused(area: Area, data: bytes) -> None:
    refused(area, BadImage, framed(data, MIB), QCOW2_TARGET)


@pytest.mark.parametrize("name", ["vm-100-disk-0.raw", "base-100-disk-0.raw"])
def test_a_name_that_does_not_fit_is_refused(area: Area, name: str) -> None:
    refused(area, BadName, framed(b"x" * 512), VolumeName(200, name))


def test_a_taken_name_is_refused_before_anything_is_read(area: Area) -> None:
    area.alloc(200)
    refused(area, VolumeExists, b"")


def test_a_taken_name_is_replaced_by_a_free_one_where_that_is_allowed(area: Area) -> None:
    area.write(area.alloc(200), b"mine")
    made = area.receive(framed(b"x" * 512), TARGET, allow_rename=True)
    assert str(made) == "200/vm-200-disk-1.raw"
    assert area.read(TARGET, 4) == b"mine"
    assert area.leftovers() == []


@pytest.mark.parametrize("allow_rename", [False, True])
def test_a_name_that_is_taken_while_the_stream_arrives_is_not_overwritten(area: Area, allow_rename: bool) -> None:
    def meanwhile(done: int, total: int) -> None:
        if not area.volids():
            area.write(area.alloc(200), b"mine")

    if allow_rename:
        made = area.receive(framed(b"x" * 512), TARGET, True, progress=meanwhile)
        assert str(made) == "200/vm-200-disk-1.raw"
    else:
        with pytest.raises(VolumeExists):
            area.receive(framed(b"x" * 512), TARGET, False, progress=meanwhile)
    assert area.read(TARGET, 4) == b"mine"
    assert area.leftovers() == []


def test_a_caller_that_goes_away_in_the_middle_leaves_nothing(area: Area) -> None:
    steps: list[int] = []
    with pytest.raises(CallerGone):
        area.receive(
            framed(b"x" * 8 * MIB),
            TARGET,
            progress=lambda done, _: steps.append(done),
            gone=lambda: len(steps) > 2,
        )
    assert len(steps) == 3
    assert area.volids() == []
    assert area.leftovers() == []


@pytest.mark.parametrize("sent", [b"", b"1234", framed(b"x", 4096)], ids=range(3))
def test_a_silent_sender_is_not_waited_for_beyond_the_deadline(area: Area, sent: bytes) -> None:
    reader, writer = os.pipe()
    os.write(writer, sent)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        area.do(transfer.import_image, TARGET, RAW, False, False, reader, timeout=0.2)
    assert time.monotonic() - began < 2
    os.close(reader)
    os.close(writer)
    assert area.leftovers() == []


def test_a_stream_in_small_pieces_is_put_together(area: Area) -> None:
    reader, writer = os.pipe()
    data = framed(bytes(range(256)) * 8)

    def drip() -> None:
        for start in range(0, len(data), 7):
            os.write(writer, data[start : start + 7])
        os.close(writer)

    thread = threading.Thread(target=drip)
    thread.start()
    made = area.do(transfer.import_image, TARGET, RAW, False, False, reader)
    thread.join()
    os.close(reader)
    assert area.path(made).read_bytes() == data[8:]


@pytest.mark.parametrize("mode", [None, "falloc"])
def test_a_storage_that_gets_full_keeps_nothing_of_the_import(full_dir: Path, mode: str | None) -> None:
    area = Area(full_dir, mode)
    with pytest.raises(OSError, match="No space left"):
        area.receive(framed(b"x" * 16 * MIB), TARGET)
    assert area.volids() == []
    assert area.leftovers() == ["ballast"]


def test_an_import_is_preallocated_as_the_storage_says(area: Area) -> None:
    made = area.preallocating("falloc").receive(framed(bytes(8 * MIB)), TARGET)
    assert area.do(listing.size_info, made)["used"] == 8 * MIB


def test_a_template_that_is_sent_over_is_a_template_here_too(area: Area) -> None:
    """PVE's offline migration of a template keeps its name."""
    made = area.receive(framed(b"x" * MIB), parse_volume("100/base-100-disk-0.raw"))
    assert str(made) == "100/base-100-disk-0.raw"
    assert area.view()[str(made)].immutable
    assert area.leftovers() == []
