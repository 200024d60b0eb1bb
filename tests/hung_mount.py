"""A real mount that never answers: FUSE whose daemon, this process, reads no request. Needs root and /dev/fuse."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MNT_DETACH = 2  # umount2(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung_mount(folder: Path) -> Iterator[Path]:
    """Mounted on ``folder``, which is made. In the end whatever hangs in it goes on with an error."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.fsencode(folder)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
        if _LIBC.mount(b"hung", path, b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        try:
            yield folder
        finally:
            _LIBC.umount2(path, _MNT_DETACH)
    finally:
        os.close(fd)
