"""Copies of files or of a device in a folder of a local disk, sparse, with a manifest by which they are checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from pvedrbdstor import native
from pvedrbdstor.fencing.split.direct import Reader, reader
from pvedrbdstor.fencing.split.files import open_below
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.mirror import mountinfo

MANIFEST = "MANIFEST.json"
DEVICE_FILE = "device.img"
SPARE = 64 << 20
"""Bytes to be left free on the file system of the copies."""
_ZERO = bytes(CHUNK)
_ELSEWHERE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "ocfs2", "gfs2", "9p")
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

Progress = Callable[[int], None]
"""Told of bytes read since it was last told."""


@dataclass(frozen=True, slots=True)
class Copied:
    """size: bytes. digest: of the content, holes and zeroes being the same."""

    size: int
    digest: str


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
    return max(0, found.f_bavail * found.f_frsize - SPARE)


def copy_file(root_fd: int, path: str, folder: str, progress: Progress) -> Copied:
    """Copy a file of the storage below ``folder``; under its name only once it is whole and on the disk. Raises OSError."""
    source = open_below(root_fd, path)
    try:
        status = os.fstat(source)
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        copied = _copy(source, status.st_size, native.data_extents(source, status.st_size, path), target, progress)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        return copied
    finally:
        os.close(source)


def copy_device(device: str, size: int, folder: str, progress: Progress) -> Copied:
    """Copy the first ``size`` bytes of a block device to DEVICE_FILE in ``folder``; blocks of zeroes become holes. Raises OSError.

    DRBD's data begin where the lower device does; internal metadata lie behind them (drbd.conf(5), meta-disk internal).
    """
    source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return _copy(source, size, [(0, size)], os.path.join(folder, DEVICE_FILE), progress)
    finally:
        os.close(source)


def write_manifest(folder: str, copied: dict[str, Copied]) -> None:
    """Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(f"{folder}/{MANIFEST}.new", "w", encoding="utf-8") as file:
        json.dump({path: asdict(found) for path, found in sorted(copied.items())}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{folder}/{MANIFEST}.new", f"{folder}/{MANIFEST}")


def read_manifest(folder: str) -> dict[str, Copied] | None:
    """None where there is none, or none of ours."""
    try:
        with open(f"{folder}/{MANIFEST}", encoding="utf-8") as file:
            return {
                str(path): Copied(int(found["size"]), str(found["digest"])) for path, found in json.load(file).items()
            }
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def are_there(folder: str) -> bool:
    """Whether all that the manifest names is there, by size."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    try:
        return all(os.stat(os.path.join(folder, path)).st_size == found.size for path, found in manifest.items())
    except OSError:
        return False


def wrong(folder: str, progress: Progress) -> str | None:
    """The first copy whose content, read from the disk, is not what was copied; None when all are right. Raises OSError."""
    for path, expected in (read_manifest(folder) or {}).items():
        fd = os.open(os.path.join(folder, path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if Copied(size, _digest(fd, path, size, native.data_extents(fd, size, path), progress)) != expected:
                return path
        finally:
            os.close(fd)
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


def _copy(source: int, size: int, extents: list[tuple[int, int]], target: str, progress: Progress) -> Copied:
    digest = _Digest()
    part = f"{target}.part"
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        with reader(source, target) as opened:
            for at, chunk in _chunks(opened, size, extents, progress):
                if digest.add(at, chunk):
                    _write(fd, chunk, at)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Copied(size, digest.text())


def _write(fd: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _digest(fd: int, path: str, size: int, extents: list[tuple[int, int]], progress: Progress) -> str:
    digest = _Digest()
    with reader(fd, path) as opened:
        for at, chunk in _chunks(opened, size, extents, progress):
            digest.add(at, chunk)
    return digest.text()


def _chunks(
    source: Reader, size: int, extents: list[tuple[int, int]], progress: Progress
) -> Iterator[tuple[int, bytes]]:
    """Every chunk that has data, whole, once."""
    done = 0
    for start, length in extents:
        for at in range(max(done, start // CHUNK * CHUNK), start + length, CHUNK):
            chunk = source.read(at, min(CHUNK, size - at))
            progress(len(chunk))
            yield at, chunk
            done = at + CHUNK
