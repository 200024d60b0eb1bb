"""An open file or folder: allocation, durability, and the flags of its inode."""

from __future__ import annotations

from pvedrbdstor.native.extension import call, extension

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

# linux/fs.h
FS_IMMUTABLE_FL = 0x00000010


def fallocate(fd: int, offset: int, length: int, *, keep_size: bool = False, path: str = "") -> None:
    """Reserve blocks for ``length`` bytes from ``offset`` with fallocate(2); they read as zeroes.

    The file grows to the end of the range unless ``keep_size``. Where the file system cannot do it the error is
    EOPNOTSUPP: zeroes are never written in its place. A reservation that fails may leave part of it allocated.
    """
    mode = FALLOC_FL_KEEP_SIZE if keep_size else 0
    call(extension().lib.sys_fallocate, path, fd, mode, offset, length)


def punch_hole(fd: int, offset: int, length: int, path: str = "") -> None:
    """Give back the blocks of ``length`` bytes from ``offset``, which then read as zeroes; the size stays."""
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    call(extension().lib.sys_fallocate, path, fd, mode, offset, length)


def fsync(fd: int, path: str = "") -> None:
    """Bring a file, or a folder's entries, to stable storage (fsync(2))."""
    call(extension().lib.sys_fsync, path, fd)


def fdatasync(fd: int, path: str = "") -> None:
    """Bring a file's data, and what is needed to read it back, to stable storage (fdatasync(2))."""
    call(extension().lib.sys_fdatasync, path, fd)


def inode_flags(fd: int, path: str = "") -> int:
    """The FS_*_FL flags of an inode (FS_IOC_GETFLAGS, ioctl_iflags(2))."""
    return call(extension().lib.sys_fs_ioc_getflags, path, fd)


def set_immutable(fd: int, immutable: bool, path: str = "") -> None:
    """Set or lift the immutable flag (chattr +i) of an inode; its other flags stay. Needs CAP_LINUX_IMMUTABLE."""
    flags = inode_flags(fd, path)
    wanted = flags | FS_IMMUTABLE_FL if immutable else flags & ~FS_IMMUTABLE_FL
    if wanted != flags:
        call(extension().lib.sys_fs_ioc_setflags, path, fd, wanted)
