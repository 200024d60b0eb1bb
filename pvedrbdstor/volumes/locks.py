"""Locks that hold across nodes and processes: flock(2) on files below .drbdocfs2/lock, which name their holder.

OCFS2 makes flock() cluster-wide (fs/ocfs2/locks.c); fcntl locks would be node-local.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager

from pvedrbdstor.call import Call
from pvedrbdstor.errors import ImageInUse, LockTimeout
from pvedrbdstor.volumes.store import Store

WAIT_SECONDS = 5.0
SPARE, REFLINK = "spare", "reflink"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LOCK_FILE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
_RECORD = 200
_F_OFD_SETLK = 37  # fcntl.h
_FLOCK = struct.Struct("@hhqqi4x")


@contextmanager
def guest_lock(store: Store, call: Call, *vmids: int, wait: float | None = None) -> Iterator[tuple[int, ...]]:
    """Hold the locks of these guests, taken in ascending order so that two renames cannot wait for each other.

    Yields the descriptors: a child process that inherits one keeps the lock for as long as it lives.
    Raises LockTimeout after ``wait`` seconds (by default WAIT_SECONDS) for each, naming the holder.
    """
    with ExitStack() as stack:
        held: dict[int, int] = {}
        for vmid in sorted(set(vmids)):
            fd = stack.enter_context(_lock(store, call, f"guest-{vmid}", f"Guest {vmid}", held, wait))
            held.setdefault(os.fstat(fd).st_ino, fd)
        yield tuple(held.values())


@contextmanager
def reflink_lock(store: Store, call: Call) -> Iterator[int]:
    """Hold the one lock that serializes reflinks of the whole cluster; always taken last.

    Reflinks from several nodes at once have deadlocked OCFS2 (ocfs2-devel, 2021). Raises LockTimeout.
    """
    with _lock(store, call, REFLINK, f"Copying blocks on storage '{store.config.id}'") as fd:
        yield fd


@contextmanager
def _lock(
    store: Store, call: Call, name: str, what: str, held: Container[int] = (), wait: float | None = None
) -> Iterator[int]:
    """Hold one lock file; one whose inode is in ``held`` is held already."""
    fd = open_lock(store, name)
    try:
        if os.fstat(fd).st_ino not in held:
            acquire(fd, call, what, WAIT_SECONDS if wait is None else wait)
            _leave_name(fd, call)
        yield fd
    finally:
        os.close(fd)


def open_lock(store: Store, name: str) -> int:
    """Open a lock file, making it first if need be; where there is no room for a file, as a second name of the spare one,
    and where there is no room for even that, the images' folder stands in.

    Locks that share a file wait for each other, which is slow but right: a full storage must let go of images.
    """
    try:
        return _open_file(store.locks(), name)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store.images())


def _open_file(locks_fd: int, name: str) -> int:
    try:
        return _open_or_make(locks_fd, name)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    try:
        os.link(SPARE, name, src_dir_fd=locks_fd, dst_dir_fd=locks_fd, follow_symlinks=False)
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return os.open(name, _LOCK_FILE, dir_fd=locks_fd)


def _open_or_make(locks_fd: int, name: str) -> int:
    """Open a lock file, which is made if it is not there, and is never removed.

    OCFS2 says EEXIST, although O_EXCL was not asked for, when the other node makes the file between the look-up and the
    making of it (fs/ocfs2/namei.c, ocfs2_mknod()).
    """
    try:
        return os.open(name, _LOCK_FILE | os.O_CREAT, 0o600, dir_fd=locks_fd)
    except FileExistsError:
        return os.open(name, _LOCK_FILE, dir_fd=locks_fd)


def prepare_spare(store: Store) -> None:
    """Make the spare lock file while there is room for it, and the one for reflinks.

    That one is taken while a guest's is held, so it must never be the same file as a guest's.
    """
    for name in (SPARE, REFLINK):
        os.close(_open_or_make(store.locks(), name))


def acquire(fd: int, call: Call, what: str, wait: float) -> None:
    """Take the lock of an open file, for ``wait`` seconds at most. Raises LockTimeout, which calls it ``what``."""
    began = time.monotonic()
    pause = _FIRST_PAUSE
    while not try_lock(fd):
        waited = time.monotonic() - began
        if waited >= wait:
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
        if error.errno not in (*NO_ROOM, errno.EBADF, errno.EISDIR):
            raise


def _describe_self(call: Call) -> bytes:
    text = f"{call.method} on node {socket.gethostname()}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}"
    return text.encode(errors="replace")[:_RECORD].ljust(_RECORD) + b"\n"


def hold_image(fd: int, volume: object) -> None:
    """Keep QEMU on this node from opening an image until ``fd``, open for writing, is closed. Raises ImageInUse.

    QEMU locks bytes from 100 and 200 on of its images (block/file-posix.c, RAW_LOCK_PERM_BASE and _SHARED_BASE) with
    open file description locks, which OCFS2 keeps to one node.
    """
    lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 100, 200, 0)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ImageInUse(volume=volume, node=socket.gethostname()) from None
        raise


def _holder(fd: int) -> str:
    """What the holder wrote about itself; the file is plain text that anyone may have damaged."""
    try:
        text = os.pread(fd, _RECORD, 0).decode(errors="replace")
    except IsADirectoryError:
        text = ""
    printable = "".join(c for c in text if c.isprintable()).strip()
    return f"held by {printable}" if printable else "held by a process that left no name"
