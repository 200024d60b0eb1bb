"""Reading past the page cache, which may be older than the disk, or newer. Of files and of block devices."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from pvedrbdstor import native
from pvedrbdstor.fencing.split.ranges import CHUNK

_FILE_ALIGNMENT = 4096
"""Of files: a multiple of every logical sector size that Linux has (BLKSSZGET: 512 to 4096 on the disks of today)."""


class Reader:
    """Reads of at most a chunk. It belongs to reader(), which opens and closes what it has."""

    def __init__(self, fd: int, path: str, buffer: native.AlignedBuffer, *, direct: bool) -> None:
        self._fd, self._path, self._buffer, self._direct = fd, path, buffer, direct

    def read(self, at: int, length: int) -> bytes:
        """``length`` bytes at ``at``, a multiple of the chunk's alignment. Raises OSError, also where there are fewer."""
        data = self._read_direct(at, length) if self._direct else self._read_cached(at, length)
        if len(data) != length:
            raise OSError(errno.EIO, f"it ends at byte {at + len(data)}, before it should", self._path)
        return data

    def _read_direct(self, at: int, length: int) -> bytes:
        """What is behind the wanted bytes is read along up to the next sector, and left away."""
        alignment = self._buffer.alignment
        whole = -(-length // alignment) * alignment
        count = self._buffer.pread(self._fd, at, whole, self._path)
        return bytes(self._buffer.view[: min(count, length)])

    def _read_cached(self, at: int, length: int) -> bytes:
        os.posix_fadvise(self._fd, at, length, os.POSIX_FADV_DONTNEED)
        found = b""
        while len(found) < length and (part := os.pread(self._fd, length - len(found), at + len(found))):
            found += part
        return found


@contextmanager
def reader(fd: int, path: str) -> Iterator[Reader]:
    """Of an open file or block device. Where a file system cannot read past its cache, the kernel is asked to drop what it has
    of the file first, which is no more than a hint (posix_fadvise(2)); of a block device that never happens.

    Raises OSError.
    """
    block = stat.S_ISBLK(os.fstat(fd).st_mode)
    alignment = native.logical_sector_size(fd, path) if block else _FILE_ALIGNMENT
    opened = _open_direct(fd, path, alignment, may_refuse=not block)
    try:
        with native.AlignedBuffer(CHUNK, alignment=alignment) as buffer:
            yield Reader(fd if opened is None else opened, path, buffer, direct=opened is not None)
    finally:
        if opened is not None:
            os.close(opened)


def _open_direct(fd: int, path: str, alignment: int, *, may_refuse: bool) -> int | None:
    """A new descriptor with O_DIRECT; None where the file system has no such thing: some say so at open(), some at read()."""
    opened = None
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        with native.AlignedBuffer(alignment, alignment=alignment) as probe:
            probe.pread(opened, 0, path=path)
    except OSError as error:
        if opened is not None:
            os.close(opened)
        if may_refuse and error.errno == errno.EINVAL:
            return None
        raise OSError(error.errno, error.strerror, path) from error
    return opened
