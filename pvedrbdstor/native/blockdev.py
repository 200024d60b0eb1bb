"""An open block device: its size, and its sectors."""

from __future__ import annotations

from pvedrbdstor.native.extension import call, extension


def device_size(fd: int, path: str = "") -> int:
    """The size of an open block device in bytes (BLKGETSIZE64)."""
    return call(extension().lib.sys_blkgetsize64, path, fd)


def logical_sector_size(fd: int, path: str = "") -> int:
    """The logical sector size of an open block device in bytes, the unit of O_DIRECT (BLKSSZGET)."""
    return call(extension().lib.sys_blksszget, path, fd)


def physical_sector_size(fd: int, path: str = "") -> int:
    """The physical sector size of an open block device in bytes (BLKPBSZGET)."""
    return call(extension().lib.sys_blkpbszget, path, fd)
