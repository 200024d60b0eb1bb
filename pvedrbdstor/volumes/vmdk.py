"""Read the virtual size of a monolithic sparse VMDK image, the only kind PVE makes, without a process.

The header is that of VMware's "Virtual Disk Format 5.0" ("Hosted Sparse Extent Header"); the limits are those of
QEMU's block/vmdk.c.
"""

from __future__ import annotations

import os
import struct

from pvedrbdstor.errors import BadImage, SystemCallFailed

MAGIC = b"KDMV"
SECTOR = 512

_HEADER = struct.Struct("<4sIIQQQQI")
_VERSIONS = (1, 2, 3)
_ENTRIES_MAX = 512  # entries in a grain table
_GRAIN_MAX = 0x200000  # sectors in a grain
_TABLES_MAX = 32 << 20  # grain tables of an image


def read_size(fd: int, volume: str) -> int:
    """Bytes of the guest's disk. `volume` names the image in errors. Raises BadImage, and SystemCallFailed."""
    try:
        data = os.pread(fd, SECTOR, 0)
    except OSError as error:
        raise SystemCallFailed(
            operation="Reading",
            path=f"'{volume}'",
            reason=error.strerror,
            remedy="Look at 'dmesg' for errors of the disk or the file system",
        ) from error
    return parse_size(data, volume)


def parse_size(data: bytes, volume: str = "image") -> int:
    """Bytes of the guest's disk, from the first sector of an image. Raises BadImage."""
    if data[:4] != MAGIC:
        raise _bad(volume, "it does not begin with the magic number of a monolithic sparse image")
    if len(data) < SECTOR:
        raise _bad(volume, "the file is cut short inside its header")
    _, version, _, capacity, grain, _, _, entries = _HEADER.unpack_from(data)
    if version not in _VERSIONS:
        raise _bad(volume, f"version {version} is not one of 1, 2 and 3")
    if not 0 < entries <= _ENTRIES_MAX:
        raise _bad(volume, f"its grain tables claim {entries} entries; 1 to {_ENTRIES_MAX} are possible")
    if not 0 < grain <= _GRAIN_MAX:
        raise _bad(volume, f"its grains claim {grain} sectors; 1 to {_GRAIN_MAX} are possible")
    if -(-capacity // (grain * entries)) > _TABLES_MAX:
        raise _bad(volume, f"its capacity of {capacity} sectors is too large")
    return int(capacity) * SECTOR


def _bad(volume: str, detail: str) -> BadImage:
    return BadImage(volume=volume, format="vmdk", detail=detail)
