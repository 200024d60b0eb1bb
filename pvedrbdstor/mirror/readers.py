"""Who of ours has the DRBD device of a storage open on this node to compare it, and how it is asked to let go.

Each such process holds a file of its own below FOLDER locked (fcntl(2), F_SETLK) for that time. The kernel tells whose lock it is
(F_GETLK), and a pidfd is of one process for ever: no signal goes to one that only has the number of another that has ended.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FOLDER = "/run/pvedrbdstor/readers"
LET_GO_SECONDS = 20.0
"""A comparison stops within a second, and then waits for its other side, and for a read that hangs, for a few."""
_LOOK = 0.1
_FLOCK = struct.Struct("hhqqi")  # struct flock of fcntl(2), on 64 bits


@contextmanager
def reading(storage: str) -> Iterator[None]:
    """To be entered before the device is opened, by a process that ends itself after SIGTERM. Raises OSError."""
    fd = _announce(f"{FOLDER}/{storage}.{os.getpid()}")
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(f"{FOLDER}/{storage}.{os.getpid()}")
        os.close(fd)


def processes(storage: str) -> tuple[int, ...]:
    """Those that read now, but for this one; files that a killed one has left are removed."""
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return ()
    found = (_owner(f"{FOLDER}/{name}") for name in sorted(names) if _is_of(name, storage))
    return tuple(pid for pid in found if pid is not None)


def let_go(storage: str, report: Callable[[str], None], seconds: float = LET_GO_SECONDS) -> tuple[int, ...]:
    """Ask each to end, and wait so long at most: those that still read then."""
    deadline = time.monotonic() + seconds
    asked: set[int] = set()
    while found := processes(storage):
        for pid in found:
            if pid not in asked and _ask(f"{FOLDER}/{storage}.{pid}", pid):
                report(f"ending the comparison that reads it (process {pid}), which '--resume' goes on with")
                asked.add(pid)
        if time.monotonic() >= deadline:
            return found
        time.sleep(_LOOK)
    return ()


def _announce(path: str) -> int:
    """Its lock, as a descriptor. A file of an earlier process with this number may just be removed."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_of(name: str, storage: str) -> bool:
    whose, _, pid = name.rpartition(".")
    return whose == storage and pid.isdecimal()


def _owner(path: str) -> int | None:
    """Who holds the lock on it, None where nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        if kind != fcntl.F_UNLCK:
            return int(pid) or None
        with suppress(FileNotFoundError):
            os.unlink(path)
        return None
    finally:
        os.close(fd)


def _ask(path: str, pid: int) -> bool:
    """Whether it was still that process, and was told."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _owner(path) != pid:  # it was when the pidfd was made, too, as it holds the lock for longer
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True
