"""One job per storage: the lock that a job holds for its whole life, which its end, however it comes, gives back."""

from __future__ import annotations

import fcntl
import os
import time

from pvedrbdstor.mirror.bringup import paths

_LOOK = 0.05


def take(storage: str, wait: float = 0.0) -> int | None:
    """The lock as a descriptor, or None when a job has had it for all of ``wait`` seconds. Raises OSError."""
    os.makedirs(paths.FOLDER, mode=0o700, exist_ok=True)
    fd = os.open(paths.lock(storage), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
        time.sleep(_LOOK)


def adopt(storage: str, fd: int) -> int:
    """The lock that was handed over with the descriptor ``fd``; raises OSError when that is none of this storage's."""
    if not os.path.samestat(os.fstat(fd), os.stat(paths.lock(storage))):
        raise OSError(f"descriptor {fd} is not the lock of storage '{storage}'")
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(fd, False)
    return fd
