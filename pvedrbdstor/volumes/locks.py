"""Locks that hold across nodes and processes: flock(2) on files below .drbdocfs2/lock, which name their holder.

OCFS2 makes flock() cluster-wide (fs/ocfs2/locks.c); fcntl locks would be node-local.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pvedrbdstor.call import Call
from pvedrbdstor.errors import LockTimeout
from pvedrbdstor.volumes.store import Store

WAIT_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
_RECORD = 200


@contextmanager
def guest_lock(store: Store, call: Call, *vmids: int) -> Iterator[tuple[int, ...]]:
    """Hold the locks of these guests, taken in ascending order so that two renames cannot wait for each other.

    Yields the descriptors: a child process that inherits one keeps the lock for as long as it lives.
    Raises LockTimeout after WAIT_SECONDS, naming the holder.
    """
    with ExitStack() as stack:
        wanted = sorted(set(vmids))
        yield tuple(stack.enter_context(_lock(store, call, f"guest-{vmid}", f"Guest {vmid}")) for vmid in wanted)


@contextmanager
def reflink_lock(store: Store, call: Call) -> Iterator[int]:
    """Hold the one lock that serializes reflinks of the whole cluster; always taken last.

    Reflinks from several nodes at once have deadlocked OCFS2 (ocfs2-devel, 2021). Raises LockTimeout.
    """
    with _lock(store, call, "reflink", f"Copying blocks on storage '{store.config.id}'") as fd:
        yield fd


@contextmanager
def _lock(store: Store, call: Call, name: str, what: str) -> Iterator[int]:
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=store.locks())
    try:
        _acquire(fd, call, what)
        _leave_name(fd, call)
        yield fd
    finally:
        os.close(fd)


def _acquire(fd: int, call: Call, what: str) -> None:
    began = time.monotonic()
    pause = _FIRST_PAUSE
    while not try_lock(fd):
        waited = time.monotonic() - began
        if waited >= WAIT_SECONDS:
            raise LockTimeout(what=what, holder=_holder(fd), seconds=round(waited))
        call.check()
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file without waiting; False when somebody holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _leave_name(fd: int, call: Call) -> None:
    """Say who holds the lock; on a full file system, where freeing must go on, the lock holds without."""
    try:
        os.pwrite(fd, _describe_self(call), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _describe_self(call: Call) -> bytes:
    text = f"{call.method} on node {socket.gethostname()}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}"
    return text.encode(errors="replace")[:_RECORD].ljust(_RECORD) + b"\n"


def _holder(fd: int) -> str:
    """What the holder wrote about itself; the file is plain text that anyone may have damaged."""
    text = os.pread(fd, _RECORD, 0).decode(errors="replace")
    printable = "".join(c for c in text if c.isprintable()).strip()
    return f"held by {printable}" if printable else "held by a process that left no name"
