"""Copies of files or of a device in a folder of a local disk, sparse, with a manifest by which they are checked.

FOLDER/files/PATH or FOLDER/device.img, FOLDER/MANIFEST.json once all of them are whole, and FOLDER/copied.jsonl before that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pvedrbdstor import native
from pvedrbdstor.fencing.split.direct import Reader, reader
from pvedrbdstor.fencing.split.files import open_below
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.mirror import mountinfo

MANIFEST = "MANIFEST.json"
FILES = "files"
DEVICE_FILE = "device.img"
RECORD = "copied.jsonl"
PART = "part"
SPARE = 64 << 20
"""Bytes to be left free on the file system of the copies."""
_ZERO = bytes(CHUNK)
_ELSEWHERE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "ocfs2", "gfs2", "9p")
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

Progress = Callable[[int], None]
"""Told of bytes read since it was last told."""


@dataclass(frozen=True, slots=True)
class Copied:
    """size: bytes. digest: of the content, holes and zeroes being the same. inode, modified, status_changed (ns since 1970): of
    the file that was copied, 0 of a device."""

    size: int
    digest: str
    inode: int = 0
    modified: int = 0
    status_changed: int = 0

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """As FileState has it."""
        return (self.inode, self.size, self.modified, self.status_changed)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder has copies of. files: by their paths on the storage."""

    files: Mapping[str, Copied] = field(default_factory=dict)
    device: Copied | None = None

    def places(self, folder: str) -> Iterator[tuple[str, str, Copied]]:
        """(what it is a copy of, where it lies, what it should be)."""
        if self.device is not None:
            yield DEVICE_FILE, os.path.join(folder, DEVICE_FILE), self.device
        for path, copied in self.files.items():
            yield path, path_of(folder, path), copied


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


def path_of(folder: str, path: str) -> str:
    """Where the copy of a file of the storage lies: below a folder of its own, so that no name can be that of something of ours."""
    return os.path.join(folder, FILES, path)


def copy_file(root_fd: int, path: str, folder: str, progress: Progress) -> Copied:
    """Copy a file of the storage below ``folder``; under its name only once it is whole and on the disk. Raises OSError."""
    source = open_below(root_fd, path)
    try:
        status = os.fstat(source)
        target = path_of(folder, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        extents = native.data_extents(source, status.st_size, path)
        digest = _copy(source, status.st_size, extents, folder, target, progress)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        return Copied(status.st_size, digest, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    finally:
        os.close(source)


def copy_device(device: str, size: int, folder: str, progress: Progress) -> Copied:
    """Copy the first ``size`` bytes of a block device to DEVICE_FILE in ``folder``; blocks of zeroes become holes. Raises OSError.

    DRBD's data begin where the lower device does; internal metadata lie behind them (drbd.conf(5), meta-disk internal).
    """
    source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return Copied(size, _copy(source, size, [(0, size)], folder, os.path.join(folder, DEVICE_FILE), progress))
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


def keep(folder: str) -> None:
    """Every folder's entries on the disk, those above the folder of the copies, which may be new, as well. Raises OSError."""
    for inner, _, _ in os.walk(folder, topdown=False):
        _sync_folder(inner)
    _sync_folder(os.path.dirname(os.path.abspath(folder)))


def write_manifest(folder: str, manifest: Manifest) -> None:
    """After everything that it names is on the disk with its name. Raises OSError."""
    keep(folder)
    document = {
        "device": asdict(manifest.device) if manifest.device is not None else None,
        "files": {path: asdict(found) for path, found in sorted(manifest.files.items())},
    }
    with open(f"{folder}/{MANIFEST}.new", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{folder}/{MANIFEST}.new", f"{folder}/{MANIFEST}")
    _sync_folder(folder)


def read_manifest(folder: str) -> Manifest | None:
    """None where there is none, or none of ours."""
    try:
        with open(f"{folder}/{MANIFEST}", encoding="utf-8") as file:
            document = json.load(file)
        device = document["device"]
        return Manifest(
            files={str(path): _copied(found) for path, found in document["files"].items()},
            device=_copied(device) if device is not None else None,
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def note(folder: str, path: str, copied: Copied | None) -> None:
    """Write down a copy that is whole, so that another try need not make it again; None: it is not. Raises OSError."""
    line = json.dumps({"path": path, "copied": asdict(copied) if copied is not None else None})
    fd = os.open(os.path.join(folder, RECORD), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, f"\n{line}\n".encode(), 0)  # appended; the first newline ends what a crash may have cut off
        os.fsync(fd)
    finally:
        os.close(fd)


def noted(folder: str) -> dict[str, Copied]:
    """The copies that are on record and there, by size. What a crash has cut off in the record is passed over."""
    found: dict[str, Copied] = {}
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            path, copied = str(entry["path"]), entry["copied"]
            found.pop(path, None)
            if copied is not None:
                found[path] = _copied(copied)
        except (KeyError, TypeError, ValueError):
            continue
    return {path: copied for path, copied in found.items() if _has_size(path_of(folder, path), copied.size)}


def forget(folder: str, path: str) -> None:
    """A copy that is not what it should be: the next try makes it again. Raises OSError."""
    note(folder, path, None)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, MANIFEST))


def are_there(folder: str) -> bool:
    """Whether all that the manifest names is there, by size."""
    manifest = read_manifest(folder)
    return manifest is not None and all(_has_size(place, found.size) for _, place, found in manifest.places(folder))


def wrong(folder: str, progress: Progress) -> str | None:
    """The first copy whose content, read from the disk, is not what was copied; None when all are right. Raises OSError."""
    manifest = read_manifest(folder) or Manifest()
    for path, place, expected in manifest.places(folder):
        if os.stat(place).st_size != expected.size or digest_of(place, expected.size, progress) != expected.digest:
            return path
    return None


def _has_size(place: str, size: int) -> bool:
    try:
        return os.stat(place).st_size == size
    except OSError:
        return False


def _copied(found: Mapping[str, Any]) -> Copied:
    return Copied(
        size=int(found["size"]),
        digest=str(found["digest"]),
        inode=int(found["inode"]),
        modified=int(found["modified"]),
        status_changed=int(found["status_changed"]),
    )


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


def _copy(source: int, size: int, extents: list[tuple[int, int]], folder: str, target: str, progress: Progress) -> str:
    """The digest. What is half copied has one name for all, which no file of the storage can have."""
    digest = _Digest()
    part = os.path.join(folder, PART)
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
    _sync_folder(os.path.dirname(target))
    return digest.text()


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
