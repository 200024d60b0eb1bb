"""The one importer of the C extension: its calls with types, and every failure an OSError with errno and path.

A ``path`` argument is never opened: it is what the error names. Sizes and offsets are bytes. A call interrupted by a
signal is repeated once the signal's handler has run, as Python's own os module does (PEP 475). Every function raises
OSError, and NativeMissing when the extension cannot be loaded.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from struct import Struct
from typing import Any, NamedTuple

from pvedrbdstor.errors import NativeMissing

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

# linux/fs.h
FS_IMMUTABLE_FL = 0x00000010

# linux/fiemap.h
FIEMAP_FLAG_SYNC = 0x00000001
FIEMAP_EXTENT_LAST = 0x00000001
FIEMAP_EXTENT_UNKNOWN = 0x00000002
FIEMAP_EXTENT_DELALLOC = 0x00000004
FIEMAP_EXTENT_UNWRITTEN = 0x00000800
FIEMAP_EXTENT_SHARED = 0x00002000

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

# What a kernel or a file system says to an ioctl it does not have; EINVAL is a refusal only some of the time.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL})

_EXTENT = Struct("=QQQI4x")
_EXTENTS_A_CALL = 256
FIEMAP_MAX_OFFSET = (1 << 64) - 1
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Extension(NamedTuple):
    ffi: Any
    lib: Any


@cache
def _extension() -> _Extension:
    try:
        from pvedrbdstor._native import ffi, lib
    except ImportError as error:
        raise NativeMissing(detail=str(error)) from error
    return _Extension(ffi, lib)


def _call(function: Callable[..., int], path: str, *arguments: object) -> int:
    """Call ``function`` until no signal interrupts it; what it returns, or OSError for the -errno it returns."""
    while (result := function(*arguments)) == -errno.EINTR:
        pass
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


# --- allocation --------------------------------------------------------------------------------------------------


def fallocate(fd: int, offset: int, length: int, *, keep_size: bool = False, path: str = "") -> None:
    """Reserve blocks for ``length`` bytes from ``offset`` with fallocate(2); they read as zeroes.

    The file grows to the end of the range unless ``keep_size``. Where the file system cannot do it the error is
    EOPNOTSUPP: zeroes are never written in its place. A reservation that fails may leave part of it allocated.
    """
    mode = FALLOC_FL_KEEP_SIZE if keep_size else 0
    _call(_extension().lib.sys_fallocate, path, fd, mode, offset, length)


def punch_hole(fd: int, offset: int, length: int, path: str = "") -> None:
    """Give back the blocks of ``length`` bytes from ``offset``, which then read as zeroes; the size stays."""
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    _call(_extension().lib.sys_fallocate, path, fd, mode, offset, length)


# --- sharing blocks ----------------------------------------------------------------------------------------------


def reflink_fd(source_fd: int, target_fd: int, path: str = "") -> None:
    """Make the open file ``target_fd`` share all blocks of ``source_fd`` (FICLONE, ioctl_ficlone(2)).

    EOPNOTSUPP, ENOTTY and EINVAL mean that the file system cannot, EXDEV that the two are on different ones.
    """
    _call(_extension().lib.sys_ficlone, path, source_fd, target_fd)


def ocfs2_reflink(fd: int, old_path: str, new_path: str, *, preserve: bool = False, path: str = "") -> None:
    """Create ``new_path`` as a reflink of ``old_path`` (OCFS2_IOC_REFLINK, issued on any ``fd`` of the file system).

    With ``preserve`` it also gets owner, mode, times and security attributes of the source; the user's extended
    attributes are copied either way. The last component of neither path may be a symbolic link
    (ocfs2_reflink_ioctl in fs/ocfs2/refcounttree.c). ``path`` defaults to ``new_path``.
    """
    _call(
        _extension().lib.sys_ocfs2_ioc_reflink,
        path or new_path,
        fd,
        os.fsencode(old_path),
        os.fsencode(new_path),
        int(preserve),
    )


def clone_file(
    source_fd: int,
    dir_fd: int,
    name: str,
    mode: int,
    path: str = "",
    made: Callable[[int], None] = lambda fd: None,
) -> int:
    """Create ``name`` in the folder ``dir_fd`` as a reflink of ``source_fd``; return it open for reading and writing.

    The file has exactly the permissions ``mode`` and no extended attributes of the source. An OCFS2 without FICLONE
    (before Linux 4.10) is asked with its own ioctl, which refuses an immutable source (EPERM). On failure nothing is
    left behind; EEXIST when ``name`` exists. Nothing is synced to disk. ``path`` defaults to ``name``. ``made`` is called
    with the new file as soon as others can see it, which with FICLONE is before it shares any block; OCFS2's own ioctl shows
    it only when it is done.
    """
    path = path or name
    try:
        return _clone_by_ficlone(source_fd, dir_fd, name, mode, path, made)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or fstatfs(dir_fd, path).type != OCFS2_SUPER_MAGIC:
            raise
    return _clone_by_ocfs2(source_fd, dir_fd, name, mode, path, made)


def _clone_by_ficlone(source_fd: int, dir_fd: int, name: str, mode: int, path: str, made: Callable[[int], None]) -> int:
    with _errors_name(path):
        target_fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        with _removed_on_failure(target_fd, dir_fd, name):
            made(target_fd)
            reflink_fd(source_fd, target_fd, path)
            os.fchmod(target_fd, mode)
    return target_fd


def _clone_by_ocfs2(source_fd: int, dir_fd: int, name: str, mode: int, path: str, made: Callable[[int], None]) -> int:
    with _errors_name(path), _folder_of(source_fd) as (source_dir_fd, source_name):
        ocfs2_reflink(
            dir_fd, f"/proc/self/fd/{source_dir_fd}/{source_name}", f"/proc/self/fd/{dir_fd}/{name}", path=path
        )
        try:
            target_fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        except BaseException:
            os.unlink(name, dir_fd=dir_fd)
            raise
        with _removed_on_failure(target_fd, dir_fd, name):
            made(target_fd)
            _check_is_named(source_fd, source_dir_fd, source_name)
            for attribute in os.listxattr(target_fd):
                if attribute.startswith(("user.", "trusted.")):
                    os.removexattr(target_fd, attribute)
            os.fchmod(target_fd, mode)
    return target_fd


@contextmanager
def _folder_of(fd: int) -> Iterator[tuple[int, str]]:
    """The folder of an open file, as a descriptor, and its name there.

    OCFS2's ioctl takes the source by name and does not follow a link in the last component, so /proc/self/fd/N itself
    will not do. ESTALE when the file no longer has the name it was opened by.
    """
    folder, name = os.path.split(os.readlink(f"/proc/self/fd/{fd}"))
    dir_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_is_named(fd, dir_fd, name)
        yield dir_fd, name
    finally:
        os.close(dir_fd)


def _check_is_named(fd: int, dir_fd: int, name: str) -> None:
    try:
        same = os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        same = False
    if not same:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@contextmanager
def _removed_on_failure(fd: int, dir_fd: int, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for clean_up in (partial(os.unlink, name, dir_fd=dir_fd), partial(os.close, fd)):
            with suppress(OSError):  # why we clean up says more than why we could not
                clean_up()
        raise


@contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Let every OSError from inside name ``path``, not the part of it a call was made with."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


# --- where the data is -------------------------------------------------------------------------------------------


def data_extents(fd: int, size: int, path: str = "") -> list[tuple[int, int]]:
    """Where the first ``size`` bytes have data: (offset, length), in order, with SEEK_DATA and SEEK_HOLE of lseek(2).

    Everything between reads as zeroes. Moves the file position, which descriptors made by dup() or fork() share.
    """
    seek = _extension().lib.sys_lseek
    extents = []
    position = 0
    while position < size:
        try:
            start = _call(seek, path, fd, position, os.SEEK_DATA)
            if start >= size:
                break
            position = _call(seek, path, fd, start, os.SEEK_HOLE)
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
    def located(self) -> bool:
        """``physical`` is a place on the device: it is none while data waits to be allocated."""
        return not self.flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC)


def fiemap(fd: int, start: int = 0, length: int | None = None, sync: bool = False, path: str = "") -> Iterator[Extent]:
    """The extents that touch ``length`` bytes from ``start`` (by default all from there), in order (FS_IOC_FIEMAP).

    With ``sync`` the file is written back first, so that every extent is located. Errors come when the first
    extents are asked for. A file that changes meanwhile gives a mixed picture, never an endless one.
    """
    ffi, lib = _extension()
    end = FIEMAP_MAX_OFFSET if length is None else min(start + length, FIEMAP_MAX_OFFSET)
    room = ffi.new("struct native_extent[]", _EXTENTS_A_CALL)
    flags = FIEMAP_FLAG_SYNC if sync else 0
    while start < end:
        count = _call(lib.sys_fiemap, path, fd, start, end - start, flags, room, _EXTENTS_A_CALL)
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


# --- reading and writing past the page cache ---------------------------------------------------------------------


class AlignedBuffer:
    """Memory that starts on a page, as O_DIRECT wants it (open(2), NOTES); a context manager.

    ``alignment`` is the unit in bytes that offsets and lengths must be multiples of, a power of two that is at most
    a page: the logical sector size of the device below. ``view`` is the memory.

    Raises ValueError for what is not aligned or not inside the buffer: the kernel would only say EINVAL.
    """

    def __init__(self, size: int, *, alignment: int = 4096) -> None:
        if alignment <= 0 or alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
            raise ValueError(f"alignment {alignment} is not a power of two up to {mmap.PAGESIZE}")
        if size <= 0 or size % alignment:
            raise ValueError(f"size {size} is not a multiple of {alignment}")
        self.size = size
        self.alignment = alignment
        self.view = memoryview(mmap.mmap(-1, size))

    def __enter__(self) -> AlignedBuffer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory. Slices of ``view`` stay valid; the last of them frees it."""
        self.view.release()

    def pread(self, fd: int, offset: int, length: int | None = None, path: str = "") -> int:
        """Read ``length`` bytes (by default ``size``) at ``offset`` into the start of the buffer.

        Returns how many were read: fewer only at the end of the file.
        """
        return self._transfer("sys_pread", fd, offset, length, path)

    def pwrite(self, fd: int, offset: int, length: int | None = None, path: str = "") -> None:
        """Write the first ``length`` bytes of the buffer (by default all) at ``offset``, all of them or OSError."""
        wanted = self.size if length is None else length
        if self._transfer("sys_pwrite", fd, offset, length, path) != wanted:
            raise OSError(errno.EIO, "short write", path)

    def _transfer(self, call: str, fd: int, offset: int, length: int | None, path: str) -> int:
        """Repeat the call until everything is moved, or until it moves nothing or an unaligned part (the end)."""
        length = self.size if length is None else length
        if not 0 <= length <= self.size:
            raise ValueError(f"length {length} is not within the buffer of {self.size} bytes")
        if offset < 0 or offset % self.alignment or length % self.alignment:
            raise ValueError(f"offset {offset} and length {length} are not multiples of {self.alignment}")
        ffi, lib = _extension()
        done = 0
        with ffi.from_buffer(self.view, require_writable=True) as memory:
            while done < length:
                moved = _call(getattr(lib, call), path, fd, memory + done, length - done, offset + done)
                done += moved
                if moved == 0 or moved % self.alignment:
                    break
        return done


# --- durability --------------------------------------------------------------------------------------------------


def fsync(fd: int, path: str = "") -> None:
    """Bring a file, or a folder's entries, to stable storage (fsync(2))."""
    _call(_extension().lib.sys_fsync, path, fd)


def fdatasync(fd: int, path: str = "") -> None:
    """Bring a file's data, and what is needed to read it back, to stable storage (fdatasync(2))."""
    _call(_extension().lib.sys_fdatasync, path, fd)


# --- the file system and its inodes ------------------------------------------------------------------------------


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
    ffi, lib = _extension()
    found = ffi.new("struct native_statfs *")
    _call(lib.sys_fstatfs, path, fd, found)
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


def inode_flags(fd: int, path: str = "") -> int:
    """The FS_*_FL flags of an inode (FS_IOC_GETFLAGS, ioctl_iflags(2))."""
    return _call(_extension().lib.sys_fs_ioc_getflags, path, fd)


def set_immutable(fd: int, immutable: bool, path: str = "") -> None:
    """Set or lift the immutable flag (chattr +i) of an inode; its other flags stay. Needs CAP_LINUX_IMMUTABLE."""
    flags = inode_flags(fd, path)
    wanted = flags | FS_IMMUTABLE_FL if immutable else flags & ~FS_IMMUTABLE_FL
    if wanted != flags:
        _call(_extension().lib.sys_fs_ioc_setflags, path, fd, wanted)


# --- block devices -----------------------------------------------------------------------------------------------


def device_size(fd: int, path: str = "") -> int:
    """The size of an open block device in bytes (BLKGETSIZE64)."""
    return _call(_extension().lib.sys_blkgetsize64, path, fd)


def logical_sector_size(fd: int, path: str = "") -> int:
    """The logical sector size of an open block device in bytes, the unit of O_DIRECT (BLKSSZGET)."""
    return _call(_extension().lib.sys_blksszget, path, fd)


def physical_sector_size(fd: int, path: str = "") -> int:
    """The physical sector size of an open block device in bytes (BLKPBSZGET)."""
    return _call(_extension().lib.sys_blkpbszget, path, fd)
