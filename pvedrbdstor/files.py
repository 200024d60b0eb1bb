"""Small files of ours that are replaced as a whole, and locks of which one process has one at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Held(BlockingIOError):
    """Another process has the lock. pid: as it has written it down, empty where it has not yet."""

    def __init__(self, path: str, pid: str) -> None:
        super().__init__(f"{path} is held by process {pid or 'unknown'}")
        self.pid = pid


def replace(path: str, text: str, *, durable: bool = False, mode: int = 0o644, beside: str | None = None) -> None:
    """Whoever reads ``path`` finds the old content or the new one. Raises OSError, and leaves nothing beside it then.

    durable: it is on the disk, under its name, when this returns. mode: whatever the umask. beside: where it is written first, PATH.new by
    default, by one writer at a time; what is there, a link that somebody else has put there as well, is removed and not followed.
    """
    new = beside or f"{path}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    if durable:
        sync_folder(os.path.dirname(path) or ".")


def sync_folder(folder: str) -> None:
    """Its entries on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path: str) -> int:
    """Hold the lock for as long as the descriptor is open, and write down who does. Raises Held, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace")
        os.close(fd)
        raise Held(path, pid) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def only_one(path: str) -> Iterator[None]:
    """lock(), in a folder of root's that is made where it is missing, for as long as the block runs. Raises Held, OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = lock(path)
    try:
        yield
    finally:
        os.close(fd)
