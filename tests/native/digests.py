"""What the tests of native.Digester have in common."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from pvedrbdstor import native

KIB = 1 << 10
MIB = 1 << 20
ENGINES = ("io_uring", "threads")


@contextmanager
def digester(path: str | Path, **options: object) -> Iterator[native.Digester]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with native.Digester(fd, path=str(path), **options) as made:  # type: ignore[arg-type]
            yield made
    finally:
        os.close(fd)


@contextmanager
def running(digests: native.Digester, length: int, start: int = 0) -> Iterator[list[object]]:
    """A run in another thread, over when the block is; the list gets what it returned, or raised."""
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(digests.run(start, length))
        except OSError as error:
            answers.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    try:
        yield answers
    except BaseException:
        digests.cancel()
        raise
    finally:
        runner.join()


def expected(content: bytes, granularity: int) -> bytes:
    """What another binding of the hash says, of what Python cuts into blocks."""
    pieces = range(0, len(content), granularity)
    return b"".join(xxhash.xxh3_128_digest(content[at : at + granularity]) for at in pieces)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)
