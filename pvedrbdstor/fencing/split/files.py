"""The files of a mounted storage: which lie on changed blocks, and digests of their parts, read past the page cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

from pvedrbdstor import native
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import BadRequest
from pvedrbdstor.fencing.split.ranges import CHUNK, changed_parts, total
from pvedrbdstor.fencing.split.side import FileState
from pvedrbdstor.mirror.walk import GONE, OPEN_FILE, Entry
from pvedrbdstor.mirror.walk import walk as walk_files

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECTOR = 512


def walk(root_fd: int, sure: Sequence[Range], perhaps: Sequence[Range] | None) -> Iterator[FileState]:
    """Every regular file below the root but our own lock and work files, by name.

    sure: blocks that were written since the copies parted. perhaps: those that may have been, None where all may.
    """
    for entry in walk_files(root_fd):
        try:
            found = _state(entry, sure, perhaps)
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        yield found


def _state(entry: Entry, sure: Sequence[Range], perhaps: Sequence[Range] | None) -> FileState:
    status = entry.status
    extents = list(native.fiemap(entry.fd, sync=True, path=entry.path)) if status.st_size else []
    parts = changed_parts(extents, sure)
    known = _within(parts, status.st_size)
    more = changed_parts(extents, perhaps) if perhaps is not None else ((0, status.st_size),)
    changed = _within(merged([*parts, *more]), status.st_size)
    used = sum(extent.length for extent in extents if not extent.unwritten)
    return FileState(
        path=entry.path,
        size=status.st_size,
        used=used,
        modified=status.st_mtime_ns,
        changed=changed,
        sure=total(known),
        status_changed=status.st_ctime_ns,
        inode=status.st_ino,
    )


def _within(parts: Sequence[Range], size: int) -> tuple[Range, ...]:
    """Without what lies behind the end of the file, in its last cluster."""
    return tuple((start, min(length, size - start)) for start, length in parts if start < size)


def open_below(root_fd: int, path: str) -> int:
    """A file of the storage by its relative path, no component of which is a link. Raises FileNotFoundError, OSError, BadRequest."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        raise BadRequest(detail=f"{path!r} is not the path of a file below the storage")
    fd = os.dup(root_fd)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(parts[-1], OPEN_FILE, dir_fd=fd)
    finally:
        os.close(fd)


def digests(root_fd: int, wanted: Mapping[str, Sequence[Range]]) -> dict[str, tuple[str, ...]]:
    """path -> one digest for each chunk of the ranges (of whole chunks), in order; a file that is not there is left out."""
    found = {}
    with native.AlignedBuffer(CHUNK) as buffer:
        for path, ranges in wanted.items():
            try:
                fd = open_below(root_fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                found[path] = tuple(_digest(fd, at, buffer, path) for at in _starts(ranges))
            finally:
                os.close(fd)
    return found


def _starts(ranges: Sequence[Range]) -> Iterator[int]:
    for start, length in ranges:
        yield from range(start, start + length, CHUNK)


def _digest(fd: int, at: int, buffer: native.AlignedBuffer, path: str) -> str:
    """Past the page cache where the file system can, so that what is compared is what lies on the disk."""
    direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        count = buffer.pread(direct, at, path=path)
    finally:
        os.close(direct)
    return hashlib.sha256(buffer.view[:count]).hexdigest()[:32]
