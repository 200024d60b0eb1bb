"""A writer that believes fdatasync(2), for the node that will die, and what of it the other node finds."""

from __future__ import annotations

import itertools
import mmap
import os
import time

from tests.lab.guest.ops import main, operation

BLOCK = 4096
STRIDE = 64 << 10  # bytes; the lab's file systems have clusters of this size, so that each number is in one of its own


@operation
def write_flushed(started: str, path: str, acknowledged: str, direct: str) -> None:
    """Write number n all over the first block of cluster n-1, fdatasync(2), then say n in ``acknowledged``, which is
    outside of the node; with the next one, until killed or the file is full. ``direct``: with O_DIRECT ("yes", "no")."""
    disk = os.open(path, os.O_RDWR | (os.O_DIRECT if direct == "yes" else 0))
    heard = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC, 0o644)
    block = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
    with open(started, "w") as file:
        file.write(str(os.getpid()))
    for number in range(1, os.fstat(disk).st_size // STRIDE + 1):
        block[:] = number.to_bytes(8, "little") * (BLOCK // 8)
        os.pwrite(disk, block, (number - 1) * STRIDE)
        os.fdatasync(disk)
        os.write(heard, f"{number}\n".encode())
        time.sleep(0.005)
    for _ in itertools.count():
        time.sleep(60)


@operation
def numbers_missing(path: str, last: str) -> list[int]:
    """Which numbers up to ``last`` are not where write_flushed() has put them."""
    with open(path, "rb") as disk:
        return [number for number in range(1, int(last) + 1) if _block_at(disk.fileno(), number) != number]


def _block_at(disk: int, number: int) -> int | None:
    """The number a block holds; None for one that is torn."""
    data = os.pread(disk, BLOCK, (number - 1) * STRIDE)
    return int.from_bytes(data[:8], "little") if data == data[:8] * (BLOCK // 8) else None


if __name__ == "__main__":
    main()
