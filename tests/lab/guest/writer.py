"""A writer whose every write waits for the disk: numbers to a file on the mount, each try and each success logged outside it.

"cached" appends lines through the page cache, each followed by fsync(2). "direct" writes blocks round and round with O_DIRECT and
O_DSYNC, as a guest's disk is written; all blocks were written before, as others are not safe (test_flushed_writes.py).
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable

BLOCK = 4096
BLOCKS = 1024  # of a "direct" file: more than a scenario writes numbers
LINE = 16  # bytes of a line in a "cached" file
_INTERVAL = 0.2  # seconds between two writes


def open_cached(path: str) -> Callable[[int], None]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(number: int) -> None:
        os.write(file, f"{number:0{LINE - 1}d}\n".encode())
        os.fsync(file)

    return write


def open_direct(path: str) -> Callable[[int], None]:
    if not os.path.exists(path) or os.path.getsize(path) < BLOCK * BLOCKS:
        with open(path, "wb") as file:
            file.write(bytes(BLOCK * BLOCKS))
            file.flush()
            os.fsync(file.fileno())
    disk = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
    block = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it

    def write(number: int) -> None:
        block[:] = number.to_bytes(8, "little") * (BLOCK // 8)
        os.pwrite(disk, block, number % BLOCKS * BLOCK)

    return write


def main() -> None:
    """Arguments: kind, file, log, and the number to begin with. A write that fails is logged, and the next one tried."""
    kind, path, log, first = sys.argv[1:]
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(word: str, number: int, more: str = "") -> None:
        os.write(said, f"{time.time():.3f} {word} {number}{more}\n".encode())

    write = {"cached": open_cached, "direct": open_direct}[kind](path)
    number = int(first)
    while True:
        say("try", number)
        try:
            write(number)
        except OSError as error:
            say("fail", number, f" {error.errno}")
        else:
            say("ack", number)
        number += 1
        time.sleep(_INTERVAL)


if __name__ == "__main__":
    main()
