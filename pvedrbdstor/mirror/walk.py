"""The files of a mounted storage, opened one after the other from its root, without following links."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from pvedrbdstor.volumes.store import INTERNAL

OWN = (INTERNAL, "lost+found")
"""Names at the root that are nobody's data."""
GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ESTALE)
"""What a name that was removed or replaced since it was read answers; the last on OCFS2, by the other node."""
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file or a folder, open until the next one is asked for. path: relative to the root."""

    path: str
    fd: int
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(
    root_fd: int,
    *,
    leave_out: Collection[str] = OWN,
    folders: bool = False,
    failed: Callable[[OSError], None] | None = None,
) -> Iterator[Entry]:
    """Every regular file below the root, by name, and with `folders` every folder before what is in it.

    leave_out: names at the root. What goes meanwhile is passed over. failed: told of a folder that cannot be read, which
    is then passed over as well, and of a file; without it the latter is raised.
    """
    for folder, inner, names, fd in os.fwalk(".", dir_fd=root_fd, follow_symlinks=False, onerror=_passed_on(failed)):
        inner.sort()
        if folder == ".":
            inner[:] = [name for name in inner if name not in leave_out]
        if folders:
            yield Entry(os.path.normpath(folder), fd, os.fstat(fd))
        for name in sorted(names):
            path = os.path.normpath(os.path.join(folder, name))
            try:
                opened = _open(fd, name)
            except OSError as error:
                if error.errno in GONE:
                    continue
                if failed is None:
                    raise
                failed(OSError(error.errno, error.strerror, path))
                continue
            if opened is not None:
                try:
                    yield Entry(path, opened[0], opened[1])
                finally:
                    os.close(opened[0])


def _passed_on(failed: Callable[[OSError], None] | None) -> Callable[[OSError], None] | None:
    if failed is None:
        return None

    def told(error: OSError) -> None:
        if error.errno not in GONE:
            failed(error)

    return told


def _open(folder_fd: int, name: str) -> tuple[int, os.stat_result] | None:
    """A regular file; None for anything else, which is not opened: a device or a pipe would notice."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
        return None
    fd = os.open(name, OPEN_FILE, dir_fd=folder_fd)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, status
    os.close(fd)
    return None
