"""Memory for reading and writing past the page cache."""

from __future__ import annotations

import errno
import mmap

from pvedrbdstor.native.extension import call, extension


class AlignedBuffer:
    """Memory that starts on a page, as O_DIRECT wants it (open(2), NOTES); a context manager.

    ``alignment`` is the unit in bytes that offsets and lengths must be multiples of, a power of two that is at most
    a page: the logical sector size of the device below. ``view`` is the memory.

    Raises ValueError for what is not aligned or not inside the buffer: the kernel would only say EINVAL.
    """

    def __init__(self, size: int, *, alignment: int = 4096) -> None:
        if alignment <= 0 or alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
            raise ValueError(f"alignment {alignment} is not a power of two up to {mmap.PAGESIZE}")
        if size <= 0 or size % alignment:
            raise ValueError(f"size {size} is not a multiple of {alignment}")
        self.size = size
        self.alignment = alignment
        self.view = memoryview(mmap.mmap(-1, size))

    def __enter__(self) -> AlignedBuffer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory. Slices of ``view`` stay valid; the last of them frees it."""
        self.view.release()

    def pread(self, fd: int, offset: int, length: int | None = None, path: str = "") -> int:
        """Read ``length`` bytes (by default ``size``) at ``offset`` into the start of the buffer.

        Returns how many were read: fewer only at the end of the file.
        """
        return self._transfer("sys_pread", fd, offset, length, path)

    def pwrite(self, fd: int, offset: int, length: int | None = None, path: str = "") -> None:
        """Write the first ``length`` bytes of the buffer (by default all) at ``offset``, all of them or OSError."""
        wanted = self.size if length is None else length
        if self._transfer("sys_pwrite", fd, offset, length, path) != wanted:
            raise OSError(errno.EIO, "short write", path)

    def _transfer(self, name: str, fd: int, offset: int, length: int | None, path: str) -> int:
        """Repeat the call until everything is moved, or until it moves nothing or an unaligned part (the end)."""
        length = self.size if length is None else length
        if not 0 <= length <= self.size:
            raise ValueError(f"length {length} is not within the buffer of {self.size} bytes")
        if offset < 0 or offset % self.alignment or length % self.alignment:
            raise ValueError(f"offset {offset} and length {length} are not multiples of {self.alignment}")
        ffi, lib = extension()
        done = 0
        with ffi.from_buffer(self.view, require_writable=True) as memory:
            while done < length:
                moved = call(getattr(lib, name), path, fd, memory + done, length - done, offset + done)
                done += moved
                if moved == 0 or moved % self.alignment:
                    break
        return done
