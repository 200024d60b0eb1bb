"""Where a file has data, and where that lies on the device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from pvedrbdstor.native.extension import call, extension

# linux/fiemap.h
FIEMAP_FLAG_SYNC = 0x00000001
FIEMAP_EXTENT_LAST = 0x00000001
FIEMAP_EXTENT_UNKNOWN = 0x00000002
FIEMAP_EXTENT_DELALLOC = 0x00000004
FIEMAP_EXTENT_DATA_INLINE = 0x00000200
FIEMAP_EXTENT_UNWRITTEN = 0x00000800
FIEMAP_EXTENT_SHARED = 0x00002000
FIEMAP_MAX_OFFSET = (1 << 64) - 1

_EXTENT = Struct("=QQQI4x")
_EXTENTS_A_CALL = 256


def data_extents(fd: int, size: int, path: str = "") -> list[tuple[int, int]]:
    """Where the first ``size`` bytes have data: (offset, length), in order, with SEEK_DATA and SEEK_HOLE of lseek(2).

    Everything between reads as zeroes. Moves the file position, which descriptors made by dup() or fork() share.
    """
    seek = extension().lib.sys_lseek
    extents = []
    position = 0
    while position < size:
        try:
            start = call(seek, path, fd, position, os.SEEK_DATA)
            if start >= size:
                break
            position = call(seek, path, fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end of the file
                break
            raise
        extents.append((start, min(position, size) - start))
    return extents


class Extent(NamedTuple):
    """One extent of a file as FIEMAP tells it: bytes in the file, bytes on the device, FIEMAP_EXTENT_* flags."""

    logical: int
    physical: int
    length: int
    flags: int

    @property
    def last(self) -> bool:
        """Nothing is allocated behind it."""
        return bool(self.flags & FIEMAP_EXTENT_LAST)

    @property
    def unwritten(self) -> bool:
        """Allocated, but reads as zeroes."""
        return bool(self.flags & FIEMAP_EXTENT_UNWRITTEN)

    @property
    def shared(self) -> bool:
        """Copied before it is written.

        XFS says so while another file has the same blocks; OCFS2 also when that other file has gone.
        """
        return bool(self.flags & FIEMAP_EXTENT_SHARED)

    @property
    def inline(self) -> bool:
        """The bytes lie inside the inode: nothing is allocated for them."""
        return bool(self.flags & FIEMAP_EXTENT_DATA_INLINE)

    @property
    def located(self) -> bool:
        """``physical`` is a place on the device: it is none while data waits to be allocated."""
        return not self.flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC)


def fiemap(fd: int, start: int = 0, length: int | None = None, sync: bool = False, path: str = "") -> Iterator[Extent]:
    """The extents that touch ``length`` bytes from ``start`` (by default all from there), in order (FS_IOC_FIEMAP).

    With ``sync`` the file is written back first, so that every extent is located. Errors come when the first
    extents are asked for. A file that changes meanwhile gives a mixed picture, never an endless one.
    """
    ffi, lib = extension()
    end = FIEMAP_MAX_OFFSET if length is None else min(start + length, FIEMAP_MAX_OFFSET)
    room = ffi.new("struct native_extent[]", _EXTENTS_A_CALL)
    flags = FIEMAP_FLAG_SYNC if sync else 0
    while start < end:
        count = call(lib.sys_fiemap, path, fd, start, end - start, flags, room, _EXTENTS_A_CALL)
        if count == 0:
            return
        extent = None
        for fields in _EXTENT.iter_unpack(ffi.buffer(room, count * _EXTENT.size)):
            extent = Extent(*fields)
            yield extent
        assert extent is not None
        if extent.last:
            return
        start = max(extent.logical + extent.length, start + 1)
        flags = 0


def shared_bytes(fd: int, sync: bool = False, path: str = "") -> int:
    """How many bytes of the file lie in shared extents; see :attr:`Extent.shared` for what OCFS2 counts."""
    return sum(extent.length for extent in fiemap(fd, sync=sync, path=path) if extent.shared)
