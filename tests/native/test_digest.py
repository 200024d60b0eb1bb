"""native.Digester: every digest is of what is on the device, by both ways of reading, and what cannot be is refused."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash

from pvedrbdstor import native

KIB = 1 << 10
MIB = 1 << 20
ENGINES = ("io_uring", "threads")

Attach = Callable[..., str]


@contextmanager
def digester(path: str | Path, **options: object) -> Iterator[native.Digester]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with native.Digester(fd, path=str(path), **options) as made:  # type: ignore[arg-type]
            yield made
    finally:
        os.close(fd)


def expected(content: bytes, granularity: int) -> bytes:
    """By the reference implementation of another binding."""
    pieces = range(0, len(content), granularity)
    return b"".join(xxhash.xxh3_128_digest(content[at : at + granularity]) for at in pieces)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("granularity", [4 * KIB, 64 * KIB, MIB])
def test_digests_are_of_what_the_device_holds(
    granularity: int, sector_size: int, engine: str, loop_device: Attach
) -> None:
    content = noise(9 * MIB)
    path = loop_device(9, sector_size)
    write(path, content)
    with digester(path, granularity=granularity, engine=engine) as digests:
        assert (digests.size, digests.engine) == (9 * MIB, engine)
        found = digests.run(0, 9 * MIB)
        assert found == (expected(content, granularity), {})
        assert len(found) == 9 * MIB // granularity
        part = digests.run(2 * MIB, 3 * MIB)
        assert part.values == expected(content[2 * MIB : 5 * MIB], granularity)
        assert part.of(1) == xxhash.xxh3_128_digest(content[2 * MIB + granularity : 2 * MIB + 2 * granularity])


@pytest.mark.parametrize("granularity", [0, -4096, 2 * KIB, 12 * KIB, 4095, 2 * MIB])
def test_an_impossible_granularity_is_refused(granularity: int, loop_device: Attach) -> None:
    with pytest.raises(ValueError, match="granularity"), digester(loop_device(8), granularity=granularity):
        pass


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 9 * MIB), (8 * MIB, 64 * KIB), (9 * MIB, 0), (-64 * KIB, 64 * KIB), (64 * KIB, -64 * KIB), (1 << 70, 1 << 70)],
)
def test_a_range_beyond_the_device_is_refused(start: int, length: int, engine: str, loop_device: Attach) -> None:
    with digester(loop_device(8), granularity=64 * KIB, engine=engine) as digests:
        with pytest.raises(ValueError, match="not within"):
            digests.run(start, length)
        assert len(digests.run(8 * MIB, 0)) == 0
