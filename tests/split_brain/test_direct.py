"""Reading past the page cache: whole, to the very end, and told where the end comes too early."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.fencing.split import direct
from pvedrbdstor.fencing.split.direct import Reader, reader
from pvedrbdstor.fencing.split.ranges import CHUNK

DATA = bytes(range(251)) * 9000  # two chunks and an end that is no multiple of anything


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    fd = os.open(path, os.O_RDONLY)
    try:
        with reader(fd, str(path)) as found:
            yield found
    finally:
        os.close(fd)


@pytest.mark.parametrize("direct_", [True, False])
def test_every_byte_is_read_to_the_unaligned_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_: bool
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    if not direct_:
        monkeypatch.setattr(direct, "_open_direct", lambda *_, **__: None)
    with opened(tmp_path / "file") as source:
        read = [source.read(at, min(CHUNK, len(DATA) - at)) for at in range(0, len(DATA), CHUNK)]
        assert b"".join(read) == DATA
        assert source.read(4096, 700) == DATA[4096:4796]


@pytest.mark.parametrize("direct_", [True, False])
def test_what_ends_too_early_is_never_taken_for_zeroes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_: bool
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    if not direct_:
        monkeypatch.setattr(direct, "_open_direct", lambda *_, **__: None)
    with opened(tmp_path / "file") as source, pytest.raises(OSError, match="ends at byte 5000") as raised:
        source.read(0, 5001)
    assert raised.value.errno == errno.EIO


def test_a_read_that_stops_at_a_sector_goes_on_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As of a device of 512-byte sectors, whose end need not be a multiple of 4 KiB."""
    (tmp_path / "file").write_bytes(b"x" * 1024 + b"y" * 512)
    ffi, lib = native.extension.extension()
    calls: list[int] = []

    class Short:
        @staticmethod
        def sys_pread(fd: int, memory: object, length: int, offset: int) -> int:
            calls.append(offset)
            return int(lib.sys_pread(fd, memory, min(length, 512), offset))

    monkeypatch.setattr(native.buffers, "extension", lambda: native.extension.Extension(ffi, Short))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with native.AlignedBuffer(CHUNK, alignment=512) as buffer:
        assert Reader(fd, "file", buffer, direct=True).read(0, 1536) == b"x" * 1024 + b"y" * 512
    os.close(fd)
    assert calls == [0, 512, 1024]


def test_a_file_system_without_it_is_read_through_a_cache_that_was_told_to_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    advised: list[tuple[int, int]] = []

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(native.AlignedBuffer, "pread", refuse)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, at, length, advice: advised.append((at, length)))
    with opened(tmp_path / "file") as source:
        assert source.read(0, 4096) == DATA[:4096]
    assert advised == [(0, 4096)]


def test_another_error_is_told_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(DATA)

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(native.AlignedBuffer, "pread", fail)
    with pytest.raises(OSError, match="Input/output") as raised, opened(tmp_path / "file"):
        pass
    assert raised.value.filename == str(tmp_path / "file")
