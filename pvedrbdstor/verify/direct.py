"""Bytes of a device or a file, read past the page cache where that is possible, at any place and of any length."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from pvedrbdstor import native

_UNIT = 4096
_ROOM = 1 << 18
READ_MAX = _ROOM - 2 * _UNIT
"""Bytes that one read can ask for."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Reader:
    """A context manager; memory is one buffer. buffered: by the page cache, as everybody else reads."""

    def __init__(self, path: str, *, name: str = "", buffered: bool = False) -> None:
        """name: for errors, where path is one below /proc. Raises OSError."""
        self.name = name or path
        # a link of /proc/self/fd is followed by the kernel itself, and must be
        flags = _FLAGS & ~os.O_NOFOLLOW if path.startswith("/proc/self/fd/") else _FLAGS
        self._fd = _open(path, flags if buffered else flags | os.O_DIRECT)
        self._buffer = native.AlignedBuffer(_ROOM)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffer.close()
        os.close(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes, fewer at the end of what is read. Raises OSError."""
        if offset < 0 or not 0 <= length <= READ_MAX:
            raise ValueError(f"{length} bytes at {offset} cannot be read at once")
        first = offset // _UNIT * _UNIT
        wanted = -(-(offset + length) // _UNIT) * _UNIT - first
        count = self._buffer.pread(self._fd, first, wanted, self.name)
        return bytes(self._buffer.view[: min(count, offset - first + length)][offset - first :])


def of_file(fd: int, name: str) -> Reader:
    """Of an open file, with a descriptor of its own."""
    return Reader(f"/proc/self/fd/{fd}", name=name)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not flags & os.O_DIRECT:  # a file system without O_DIRECT, such as tmpfs
            raise
        return os.open(path, flags & ~os.O_DIRECT)
