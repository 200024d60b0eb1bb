"""Digests of what lies on a device: read past the page cache, several requests in flight, by C without the GIL."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pvedrbdstor.native.blockdev import device_size, logical_sector_size
from pvedrbdstor.native.extension import call, errors_name, extension

DIGEST_BYTES = 16
MIN_GRANULARITY = 4 << 10
MAX_GRANULARITY = 1 << 20
MAX_BLOCKS = 1 << 20  # of a run: 20 MiB of answers, whatever the device's size

# Signals are looked after at least so often while C works: milliseconds.
_TURN_MS = 100

# csrc/digest.c
_MAX_REQUEST = 16 << 20
_MAX_DEPTH = 128

# enough for O_DIRECT on a file: no file system of ours wants more
_FILE_SECTOR = 4096

Engine = Literal["auto", "io_uring", "threads"]


class Cancelled(OSError):
    """Digester.cancel() has ended the run; errno is ECANCELED."""


class Digests(NamedTuple):
    """What a range holds, or several, one after the other.

    values: 16 bytes a block, in order: XXH3 with 128 bits in canonical form (big endian), zeroes where it cannot be read.
    errors: by the number of the block among them, the errno of each that cannot be read.
    """

    values: bytes
    errors: dict[int, int]

    def of(self, block: int) -> bytes | None:
        """The digest of one block, or None when it cannot be read."""
        return None if block in self.errors else self.values[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]


class Digester:
    """Reads ranges of an open block device, or file, and hashes each block of ``granularity`` bytes; a context manager.

    ``fd`` must be open with O_DIRECT, and may be closed once this is made. ``granularity`` is a power of two from 4 KiB to
    1 MiB and a multiple of the device's logical sector. ``request`` bytes are read at a time, ``depth`` of them in flight;
    that many buffers and one more are all the memory it needs. ``engine`` "auto" is io_uring, or threads where the kernel
    refuses that; ``self.engine`` says which it became. ``size`` is the size in bytes when this was made.

    One run at a time. Raises ValueError for what cannot be, OSError for what the kernel refuses.
    """

    def __init__(
        self,
        fd: int,
        *,
        granularity: int,
        request: int = 1 << 20,
        depth: int = 8,
        engine: Engine = "auto",
        path: str = "",
    ) -> None:
        self._handle: Any = None
        self._busy = threading.Lock()
        self._handle_lock = threading.RLock()  # a signal handler may cancel while its own thread closes
        self._closed = False
        self.size, sector = _size_and_sector(fd, path)
        _check(granularity, sector, request, depth)
        self.granularity = granularity
        self.path = path
        self._ffi, self._lib = extension()
        number = {
            "auto": self._lib.NATIVE_DIGEST_AUTO,
            "io_uring": self._lib.NATIVE_DIGEST_IO_URING,
            "threads": self._lib.NATIVE_DIGEST_THREADS,
        }[engine]
        plan = self._ffi.new("struct native_digest_plan *", (granularity, request, depth, sector, number))
        made = self._ffi.new("struct native_digest **")
        call(self._lib.digest_open, path, fd, plan, made)
        self._handle = made[0]
        uring = self._lib.digest_engine(self._handle) == self._lib.NATIVE_DIGEST_IO_URING
        self.engine: Engine = "io_uring" if uring else "threads"

    def __enter__(self) -> Digester:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run(self, start: int, length: int) -> Digests:
        """The digests of ``length`` bytes from ``start``, as of one range for run_ranges()."""
        return self.run_ranges([(start, length)])

    def run_ranges(self, ranges: Sequence[tuple[int, int]]) -> Digests:
        """The digests of ranges (start, length), multiples of the granularity but for the device's end, read in their order.

        A request is of one range: of short ones as many are in flight at once. The GIL is free while C works; signals are
        handled meanwhile, and one whose handler raises ends the run. At most MAX_BLOCKS blocks. A block that cannot be read
        is no failure: see Digests.errors. Raises Cancelled.
        """
        blocks = sum(self._blocks(start, length) for start, length in ranges)
        if blocks > MAX_BLOCKS:
            raise ValueError(f"these are {blocks} blocks, and one run has at most {MAX_BLOCKS}")
        if not self._busy.acquire(blocking=False):
            raise OSError(errno.EBUSY, "another run is under way", self.path)
        try:
            if self._handle is None:
                raise ValueError("the digester is closed")
            return self._run(ranges, blocks)
        finally:
            self._busy.release()
            if self._closed:
                self.close()

    def cancel(self) -> None:
        """End the run, and refuse every later one: they raise Cancelled. For other threads and signal handlers.

        Takes at most a tenth of a second, also while the device does not answer.
        """
        with self._handle_lock:
            if self._handle is not None:
                self._lib.digest_cancel(self._handle)

    def close(self) -> None:
        """Let go of everything; during a run this cancels it, and the run closes at its end.

        Waits up to a second for reads that a device still has; the memory of any that take longer stays until the process
        ends, as the kernel may still write to it.
        """
        self._closed = True
        if not self._busy.acquire(blocking=False):
            self.cancel()
            return
        try:
            with self._handle_lock:
                handle, self._handle = self._handle, None
            if handle is not None:
                self._lib.digest_close(handle)
        finally:
            self._busy.release()

    def _blocks(self, start: int, length: int) -> int:
        """How many blocks a range has. Raises ValueError for a range that is none."""
        end = start + length
        if start < 0 or length < 0 or end > self.size:
            raise ValueError(
                f"{length} bytes at {start} are not within the {self.size} bytes of {self.path or 'the device'}"
            )
        if start % self.granularity or (length % self.granularity and end != self.size):
            raise ValueError(f"start {start} and length {length} are not multiples of {self.granularity}")
        return -(-length // self.granularity)

    def _run(self, ranges: Sequence[tuple[int, int]], blocks: int) -> Digests:
        pieces = self._ffi.new("struct native_range[]", list(ranges))
        values = self._ffi.new("unsigned char[]", blocks * DIGEST_BYTES)
        errors = self._ffi.new("int32_t[]", blocks)
        call(self._lib.digest_begin, self.path, self._handle, pieces, len(ranges), values, errors)
        try:
            while call(self._lib.digest_run, self.path, self._handle, _TURN_MS):
                pass  # Python's signal handlers run here
        except OSError as error:
            if error.errno == errno.ECANCELED:
                raise Cancelled(error.errno, "the reading was cancelled", self.path) from None
            raise
        finally:
            self._lib.digest_abandon(self._handle)
        failed: dict[int, int] = {}
        if self._lib.digest_failed(self._handle):
            failed = {index: error for index, error in enumerate(self._ffi.unpack(errors, blocks)) if error}
        return Digests(self._ffi.buffer(values)[:], failed)


def _size_and_sector(fd: int, path: str) -> tuple[int, int]:
    with errors_name(path):
        found = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not flags & os.O_DIRECT:
        raise ValueError(f"{path or 'the file'} is not open with O_DIRECT: what the page cache holds proves nothing")
    if stat.S_ISBLK(found.st_mode):
        return device_size(fd, path), logical_sector_size(fd, path)
    return found.st_size, _FILE_SECTOR


def _check(granularity: int, sector: int, request: int, depth: int) -> None:
    if not MIN_GRANULARITY <= granularity <= MAX_GRANULARITY or granularity & (granularity - 1):
        raise ValueError(f"granularity {granularity} is not a power of two from {MIN_GRANULARITY} to {MAX_GRANULARITY}")
    if granularity % sector:
        raise ValueError(f"granularity {granularity} is not a multiple of the device's sectors of {sector} bytes")
    if not granularity <= request <= _MAX_REQUEST or request % granularity:
        raise ValueError(f"request {request} is not a multiple of granularity {granularity}, up to {_MAX_REQUEST}")
    if not 1 <= depth <= _MAX_DEPTH:
        raise ValueError(f"depth {depth} is not from 1 to {_MAX_DEPTH}")
