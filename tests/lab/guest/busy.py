"""Writes to one file all the time, as guests do: O_DIRECT, several at once, each from a buffer that nobody changes while it is written.

`python3 -S busy.py FILE SEED` until it is killed; prints the number of writes every second.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import threading
import time

_THREADS = 4
_SIZES = (4096, 4096, 4096, 16384, 65536)


def write(path: str, seed: str, count: list[int], index: int) -> None:
    dice = random.Random(f"{seed}.{index}")
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    blocks = os.fstat(fd).st_size // 4096
    hot = [dice.randrange(blocks - 16) for _ in range(32)]
    while True:
        length = dice.choice(_SIZES)
        buffer = mmap.mmap(-1, length)
        buffer[:] = dice.randbytes(length)
        block = dice.choice(hot) if dice.random() < 0.5 else dice.randrange(blocks - 16)
        os.pwrite(fd, buffer, block * 4096)
        buffer.close()
        count[index] += 1


def main(path: str, seed: str) -> None:
    count = [0] * _THREADS
    for index in range(_THREADS):
        threading.Thread(target=write, args=(path, seed, count, index), daemon=True).start()
    while True:
        time.sleep(1)
        print(sum(count), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
