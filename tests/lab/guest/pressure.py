"""Eats a node's memory and fills its page cache with writes that nobody waits for; when the kernel kills it, it begins again."""

from __future__ import annotations

import os
import sys
import time

_PIECE = 4 << 20  # bytes
_LEFT_OVER = 32 << 20  # bytes that the node is left with: with 8 MiB it does nothing but read programs again and again
_PIECES_OF_FILE = 16


def available() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:")) << 10


def eat() -> None:
    """Touch memory until hardly any is left, and keep touching it."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    eaten = []
    while True:
        if available() > _LEFT_OVER:
            eaten.append(bytearray(os.urandom(4096) * (_PIECE // 4096)))
        else:
            time.sleep(0.1)
            for piece in eaten:
                piece[0] ^= 1


def dirty(path: str) -> None:
    """Write without waiting for the disk, over and over."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    for number in range(1 << 30):
        os.pwrite(file, bytes([number % 256]) * _PIECE, number % _PIECES_OF_FILE * _PIECE)
        time.sleep(0.05)


def main() -> None:
    """Argument: a file on the mount."""
    if os.fork() == 0:
        dirty(sys.argv[1])
    while True:
        eater = os.fork()
        if eater == 0:
            eat()
        os.waitpid(eater, 0)


if __name__ == "__main__":
    main()
