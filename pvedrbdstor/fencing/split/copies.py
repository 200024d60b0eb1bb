"""Copies of files or of a device in a folder of a local disk, sparse, with a manifest by which they are checked.

manifest.py has where they lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar, cast

from pvedrbdstor import native
from pvedrbdstor.fencing.split.direct import Reader, reader
from pvedrbdstor.fencing.split.files import open_below
from pvedrbdstor.fencing.split.manifest import DEVICE_FILE as DEVICE_FILE  # also named by others as ours
from pvedrbdstor.fencing.split.manifest import Copied, Manifest, path_of, read_manifest
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.files import sync_folder
from pvedrbdstor.mirror import mountinfo

PART = "part"
_SYNC_BYTES = 256 << 20
"""Written between two times that they are brought to the disk, so that no single one takes long."""
_SPARE_MOST, _SPARE_PART = 1 << 30, 20
"""To be left free on the file system of the copies, which may be the node's own: a GiB, or a twentieth of a small one."""
_ZERO = bytes(CHUNK)
_T = TypeVar("_T")
_ELSEWHERE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "ocfs2", "gfs2", "9p")
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

Progress = Callable[[int], None]
"""Told of bytes read since it was last told."""


def unfit(folder: str) -> str | None:
    """Why copies must not lie in a folder; None where they may. Raises OSError."""
    place = os.path.realpath(folder)
    with open("/proc/self/mountinfo", "rb") as file:
        entries = [found for line in file.read().splitlines() if (found := mountinfo.parse_line(line)) is not None]
    inside = [
        entry
        for entry in entries
        if place == entry.mount_point or place.startswith(entry.mount_point.rstrip("/") + "/")
    ]
    fs_type = max(inside, key=lambda entry: len(entry.mount_point)).fs_type if inside else "unknown"
    if fs_type in _ELSEWHERE:
        return f"it lies on {fs_type}, not on a local disk"
    if fs_type in _MEMORY:
        return f"it lies in memory ({fs_type}), which a reboot forgets"
    return None


def room(folder: str) -> int:
    """Bytes that copies may take there. Raises OSError."""
    found = os.statvfs(folder)
    spare = min(_SPARE_MOST, found.f_blocks * found.f_frsize // _SPARE_PART)
    return max(0, found.f_bavail * found.f_frsize - spare)


def copying(root_fd: int, path: str, folder: str) -> Generator[int, None, Copied]:
    """Copy a file of the storage below ``folder``, a chunk with each turn, which says how many bytes were read; under its name only
    once it is whole and on the disk. Raises OSError."""
    source = open_below(root_fd, path)
    try:
        status = os.fstat(source)
        target = path_of(folder, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        extents = native.data_extents(source, status.st_size, path)
        digest = yield from _copying(source, status.st_size, extents, folder, target)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        return Copied(status.st_size, digest, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    finally:
        os.close(source)


def copy_file(root_fd: int, path: str, folder: str, progress: Progress) -> Copied:
    """As copying(), all at once. Raises OSError."""
    return _driven(copying(root_fd, path, folder), progress)


def copy_device(device: str, size: int, folder: str, progress: Progress) -> Copied:
    """Copy the first ``size`` bytes of a block device to DEVICE_FILE in ``folder``; blocks of zeroes become holes. Raises OSError.

    DRBD's data begin where the lower device does; internal metadata lie behind them (drbd.conf(5), meta-disk internal).
    """
    source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        turns = _copying(source, size, [(0, size)], folder, os.path.join(folder, DEVICE_FILE))
        return Copied(size, _driven(turns, progress))
    finally:
        os.close(source)


def digest_of(path: str, size: int, progress: Progress) -> str:
    """Of the first ``size`` bytes of a file or block device, as Copied has it, read from the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        block = stat.S_ISBLK(os.fstat(fd).st_mode)
        return _digest(fd, path, size, [(0, size)] if block else native.data_extents(fd, size, path), progress)
    finally:
        os.close(fd)


def first_difference(one: str, other: str, size: int, progress: Progress) -> int | None:
    """Where the first ``size`` bytes of two block devices begin to differ, to the chunk; None where they are equal. Raises OSError."""
    with contextlib.ExitStack() as stack:
        readers = []
        for path in (one, other):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            readers.append(stack.enter_context(reader(fd, path)))
        for at in range(0, size, CHUNK):
            wanted = min(CHUNK, size - at)
            if readers[0].read(at, wanted) != readers[1].read(at, wanted):
                return at
            progress(wanted)
    return None


def prepare(folder: str) -> None:
    """Make the folder of the copies, and drop what a try that was cut off had half of. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, PART))


def wrong(folder: str, progress: Progress) -> str | None:
    """The first copy whose content, read from the disk, is not what was copied; None when all are right. Raises OSError."""
    manifest = read_manifest(folder) or Manifest()
    for path, place, expected in manifest.places(folder):
        if os.stat(place).st_size != expected.size or digest_of(place, expected.size, progress) != expected.digest:
            return path
    return None


class _Digest:
    """Of the chunks that are not all zeroes, each with its place."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, at: int, chunk: bytes) -> bool:
        """False for a chunk of zeroes."""
        if chunk == _ZERO[: len(chunk)]:
            return False
        self._sha.update(at.to_bytes(8, "big"))
        self._sha.update(chunk)
        return True

    def text(self) -> str:
        return self._sha.hexdigest()


def _driven(turns: Generator[int, None, _T], progress: Progress) -> _T:
    try:
        while True:
            progress(next(turns))
    except StopIteration as end:
        return cast(_T, end.value)


def _copying(
    source: int, size: int, extents: list[tuple[int, int]], folder: str, target: str
) -> Generator[int, None, str]:
    """The digest. What is half copied has one name for all, which no file of the storage can have."""
    digest = _Digest()
    part = os.path.join(folder, PART)
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        written = 0
        with reader(source, target) as opened:
            for at, chunk in _chunks(opened, size, extents):
                if digest.add(at, chunk):
                    _write(fd, chunk, at)
                    written += len(chunk)
                if written >= _SYNC_BYTES:
                    os.fdatasync(fd)
                    written = 0
                yield len(chunk)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, target)
    sync_folder(os.path.dirname(target))
    return digest.text()


def _write(fd: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _digest(fd: int, path: str, size: int, extents: list[tuple[int, int]], progress: Progress) -> str:
    digest = _Digest()
    with reader(fd, path) as opened:
        for at, chunk in _chunks(opened, size, extents):
            digest.add(at, chunk)
            progress(len(chunk))
    return digest.text()


def _chunks(source: Reader, size: int, extents: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Every chunk that has data, whole, once."""
    done = 0
    for start, length in extents:
        for at in range(max(done, start // CHUNK * CHUNK), start + length, CHUNK):
            chunk = source.read(at, min(CHUNK, size - at))
            yield at, chunk
            done = at + CHUNK
