"""The file system that something lies on: its kind, its sizes."""

from __future__ import annotations

import os
from typing import NamedTuple

from pvedrbdstor.native.extension import call, extension

# linux/magic.h, and fs/ocfs2/ocfs2_fs.h for the first
OCFS2_SUPER_MAGIC = 0x7461636F
XFS_SUPER_MAGIC = 0x58465342
EXT4_SUPER_MAGIC = 0xEF53
BTRFS_SUPER_MAGIC = 0x9123683E
TMPFS_MAGIC = 0x01021994
NFS_SUPER_MAGIC = 0x6969

_FILE_SYSTEMS = {
    OCFS2_SUPER_MAGIC: "OCFS2",
    XFS_SUPER_MAGIC: "XFS",
    EXT4_SUPER_MAGIC: "ext4",
    BTRFS_SUPER_MAGIC: "Btrfs",
    TMPFS_MAGIC: "tmpfs",
    NFS_SUPER_MAGIC: "NFS",
}


class StatFs(NamedTuple):
    """A file system as fstatfs(2) tells it. Blocks count in ``frsize`` bytes; ``fsid`` are two 32-bit halves."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namelen: int
    frsize: int
    flags: int
    fsid: tuple[int, int]

    @property
    def name(self) -> str:
        """The type's name for people: OCFS2, XFS, or its number in hexadecimal."""
        return _FILE_SYSTEMS.get(self.type, f"type 0x{self.type:x}")

    @property
    def total_bytes(self) -> int:
        return self.blocks * self.frsize

    @property
    def free_bytes(self) -> int:
        """What is free, counting what only root may use."""
        return self.bfree * self.frsize

    @property
    def available_bytes(self) -> int:
        """What is free for everybody."""
        return self.bavail * self.frsize

    @property
    def read_only(self) -> bool:
        return bool(self.flags & os.ST_RDONLY)


def fstatfs(fd: int, path: str = "") -> StatFs:
    """The file system that an open file or folder lies on."""
    ffi, lib = extension()
    found = ffi.new("struct native_statfs *")
    call(lib.sys_fstatfs, path, fd, found)
    return StatFs(
        type=found.type,
        bsize=found.bsize,
        blocks=found.blocks,
        bfree=found.bfree,
        bavail=found.bavail,
        files=found.files,
        ffree=found.ffree,
        namelen=found.namelen,
        frsize=found.frsize,
        flags=found.flags,
        fsid=(found.fsid[0], found.fsid[1]),
    )
