"""native.AlignedBuffer: transfers past the page cache, on files and on block devices of both sector sizes."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from tests.examples import examples
from tests.loopback import fill
from tests.native.conftest import Opener

SECTOR = 512


@pytest.fixture
def direct(reflink_dir: Path) -> Iterator[int]:
    fd = os.open(reflink_dir / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    yield fd
    os.close(fd)


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 40).map(lambda sectors: sectors * SECTOR),
    offset=st.integers(0, 40).map(lambda sectors: sectors * SECTOR),
    dice=st.randoms(use_true_random=True),
)
def test_what_is_written_is_read_back(size: int, offset: int, dice: random.Random, direct: int) -> None:
    content = dice.randbytes(size)
    os.ftruncate(direct, 0)
    with native.AlignedBuffer(size, alignment=SECTOR) as buffer:
        buffer.view[:] = content
        buffer.pwrite(direct, offset)
        buffer.view[:] = bytes(size)
        assert buffer.pread(direct, offset) == size
        assert bytes(buffer.view) == content
    assert os.fstat(direct).st_size == offset + size


def test_only_the_length_asked_for_is_moved(direct: int) -> None:
    with native.AlignedBuffer(8192) as buffer:
        buffer.view[:] = b"a" * 8192
        buffer.pwrite(direct, 0, 4096)
        assert os.fstat(direct).st_size == 4096
        buffer.view[:] = b"b" * 8192
        assert buffer.pread(direct, 0, 4096) == 4096
        assert bytes(buffer.view) == b"a" * 4096 + b"b" * 4096
        assert buffer.pread(direct, 0, 0) == 0


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 10000])
def test_a_read_at_the_end_tells_how_much_there_was(length: int, reflink_dir: Path, direct: int) -> None:
    (reflink_dir / "direct").write_bytes(b"e" * length)
    with native.AlignedBuffer(16384) as buffer:
        assert buffer.pread(direct, 0) == length
        assert bytes(buffer.view[:length]) == b"e" * length
        assert buffer.pread(direct, 1 << 40) == 0


def test_a_short_transfer_is_continued_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = [1024, 512, 2560]
    calls: list[tuple[bytes, int, int]] = []

    def short(_function: object, _path: str, _fd: int, memory: Any, length: int, offset: int) -> int:
        calls.append((native.extension.extension().ffi.buffer(memory, 2)[:], length, offset))
        return moved.pop(0)

    monkeypatch.setattr(native.buffers, "call", short)
    with native.AlignedBuffer(4096, alignment=SECTOR) as buffer:
        for start, mark in ((0, b"at"), (1024, b"bt"), (1536, b"ct")):
            buffer.view[start : start + 2] = mark
        buffer.pwrite(3, 8192)
    assert calls == [(b"at", 4096, 8192), (b"bt", 3072, 9216), (b"ct", 2560, 9728)]


def test_a_read_that_ends_within_a_sector_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # Going on from there would be unaligned, which some file systems refuse even at the end of the file.
    moved = [1024, 100]
    monkeypatch.setattr(native.buffers, "call", lambda *_arguments: moved.pop(0))
    with native.AlignedBuffer(4096, alignment=SECTOR) as buffer:
        assert buffer.pread(3, 0) == 1124


def test_a_write_that_stops_short_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.buffers, "call", lambda *_arguments: 0)
    with native.AlignedBuffer(4096) as buffer, pytest.raises(OSError) as caught:
        buffer.pwrite(3, 0, path="image")
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "image")


def test_a_full_file_system_is_enospc(small_dir: Path) -> None:
    fd = os.open(small_dir / "image", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    try:
        fill(small_dir)
        with native.AlignedBuffer(1 << 20) as buffer, pytest.raises(OSError) as caught:
            buffer.pwrite(fd, 0, path="image")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "image")
    finally:
        os.close(fd)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_device_is_read_and_written_by_its_sectors(sector_size: int, loop_device: Callable[..., str]) -> None:
    path = loop_device(8, sector_size)
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        assert native.logical_sector_size(fd) == sector_size
        assert native.physical_sector_size(fd) == sector_size
        assert native.device_size(fd) == 8 << 20
        with native.AlignedBuffer(sector_size, alignment=sector_size) as buffer:
            buffer.view[:] = b"s" * sector_size
            buffer.pwrite(fd, 3 * sector_size)
            native.fsync(fd)
            buffer.view[:] = bytes(sector_size)
            assert buffer.pread(fd, 3 * sector_size) == sector_size
            assert bytes(buffer.view) == b"s" * sector_size
            assert buffer.pread(fd, 8 << 20) == 0
            with pytest.raises(OSError) as caught:
                buffer.pwrite(fd, 8 << 20, path=path)
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, path)
    finally:
        os.close(fd)


def test_a_sector_too_small_for_the_device_is_einval(loop_device: Callable[..., str]) -> None:
    fd = os.open(loop_device(8, 4096), os.O_RDWR | os.O_DIRECT)
    try:
        with native.AlignedBuffer(512, alignment=512) as buffer, pytest.raises(OSError) as caught:
            buffer.pread(fd, 0)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(fd)


@pytest.mark.parametrize("query", [native.device_size, native.logical_sector_size, native.physical_sector_size])
def test_a_regular_file_is_no_device(query: Callable[[int, str], int], reflink_dir: Path, opened: Opener) -> None:
    with pytest.raises(OSError) as caught:
        query(opened(reflink_dir / "a"), "a")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTTY, "a")


@pytest.mark.parametrize("alignment", [0, -512, 3, 1000, 2 * mmap.PAGESIZE])
def test_an_impossible_alignment_is_refused(alignment: int) -> None:
    with pytest.raises(ValueError, match="alignment"):
        native.AlignedBuffer(1 << 20, alignment=alignment)


@pytest.mark.parametrize("size", [0, -4096, 100, 4097])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        native.AlignedBuffer(size)


@pytest.mark.parametrize(
    ("offset", "length"), [(1, 4096), (-4096, 4096), (0, 100), (0, -4096), (0, 12288), (100, None)]
)
def test_a_transfer_that_is_unaligned_or_outside_never_reaches_the_kernel(offset: int, length: int | None) -> None:
    with native.AlignedBuffer(8192) as buffer:
        for transfer in (buffer.pread, buffer.pwrite):
            with pytest.raises(ValueError, match=str(offset if length is None else length)):
                transfer(-1, offset, length)


def test_a_closed_buffer_cannot_be_used(direct: int) -> None:
    with native.AlignedBuffer(4096) as buffer:
        kept = buffer.view[:10]
    with pytest.raises(ValueError):
        buffer.pread(direct, 0)
    assert bytes(kept) == bytes(10)
    buffer.close()
