"""Which parts of the device are compared, in which pieces, and what a sample of them can tell. Pure arithmetic on byte ranges."""

from __future__ import annotations

import enum
import heapq
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range, merged

SLICE_BYTES = 32 << 20
"""Of one request: long enough that a disk reads it as one stream, short enough to stop and to slow down soon."""
SLICE_RANGES = 32
"""Of one request at most: so many of a sample's blocks are under way at once on each node, for a disk to take in its own order."""
CONFIDENCE = 0.95


class Mode(enum.Enum):
    """What is compared: random blocks, what the file system has allocated, everything; DRBD's own verify of everything; or what was written
    while the nodes were apart."""

    SAMPLE = "sample"
    ALLOCATED = "allocated"
    FULL = "full"
    KERNEL = "kernel"
    REJOIN = "rejoin"


@dataclass(frozen=True)
class Plan:
    """size, granularity: of the device and of a block, in bytes. ranges: in order, None for everything. picked: numbers of blocks, in
    order, instead. total: bytes to be read on each node; of a sample, at most."""

    size: int
    granularity: int
    ranges: Sequence[Range] | None = None
    picked: Picked | None = None

    @property
    def total(self) -> int:
        if self.picked is not None:
            return min(self.size, (self.picked.count + len(self.picked.beside)) * self.granularity)
        return sum(length for _, length in self._whole())

    def slices(self, at: int = 0) -> Iterator[tuple[Range, ...]]:
        """What is to be read from byte ``at`` on, in order: whole blocks, but for the end of the device, at most SLICE_BYTES and SLICE_RANGES
        at once."""
        found: list[Range] = []
        left = SLICE_BYTES
        for start, length in self._pieces(at):
            if found and (length > left or len(found) == SLICE_RANGES):
                yield tuple(found)
                found, left = [], SLICE_BYTES
            found.append((start, length))
            left -= length
        if found:
            yield tuple(found)

    def _pieces(self, at: int) -> Iterator[Range]:
        """The ranges, cut where SLICE_BYTES end on the device."""
        ranges = self._whole() if self.picked is None else self.picked.ranges(self.granularity, self.size)
        for start, length in ranges:
            position, end = max(start, at), start + length
            while position < end:
                piece = min(end, (position // SLICE_BYTES + 1) * SLICE_BYTES) - position
                yield position, piece
                position += piece

    def _whole(self) -> Iterable[Range]:
        if self.ranges is None:
            return [(0, self.size)]
        return whole_blocks(self.ranges, self.granularity, self.size)


@dataclass(frozen=True)
class Picked:
    """A sample: one block out of each of ``count`` parts of the device that are equally long, and some besides.

    blocks: of the device. seed: what makes it the same sample again. beside: blocks that are read in any case, in order.
    """

    blocks: int
    count: int
    seed: int
    beside: tuple[int, ...] = ()

    def numbers(self) -> Iterator[int]:
        """In order, each once."""
        last = -1
        for number in heapq.merge(self._random(), self.beside):
            if number != last:
                yield number
            last = number

    def ranges(self, granularity: int, size: int) -> Iterator[Range]:
        """As bytes, with neighbours joined."""
        first = last = -1
        for number in self.numbers():
            if number != last + 1 or last < 0:
                if last >= 0:
                    yield _bytes(first, last, granularity, size)
                first = number
            last = number
        if last >= 0:
            yield _bytes(first, last, granularity, size)

    def _random(self) -> Iterator[int]:
        dice = random.Random(self.seed)  # noqa: S311 - nobody gains by knowing it
        for part in range(self.count):
            low, high = part * self.blocks // self.count, (part + 1) * self.blocks // self.count
            yield low + int(dice.random() * (high - low))


def sample(size: int, granularity: int, fraction: float, seed: int, beside: Iterable[int] = ()) -> Picked:
    """A ``fraction`` of the device's blocks at random, at least one, and those with the bytes ``beside``."""
    blocks = -(-size // granularity)
    count = max(1, min(blocks, math.ceil(blocks * fraction)))
    numbers = {byte // granularity for byte in beside if byte < size}
    return Picked(blocks, count, seed, tuple(sorted(numbers)))


def found_surely(picked: Picked, confidence: float = CONFIDENCE) -> int:
    """How many damaged blocks, wherever they lie, the sample would have met at least one of, with this probability.

    Each part of the device gives one block. Of D damaged ones, d in a part of w blocks, all are missed with the product of (1 - d/w), which
    is the greatest where the damage is spread evenly (the geometric mean is at most the arithmetic one): (1 - D/(n w))^n for n parts.
    """
    width = -(-picked.blocks // picked.count)
    missing = 1 - (1 - confidence) ** (1 / picked.count)
    return min(picked.blocks, max(1, math.ceil(picked.count * width * missing - 1e-9))) if width > 1 else 1


def whole_blocks(ranges: Iterable[Range], granularity: int, size: int) -> tuple[Range, ...]:
    """The whole blocks that ranges touch, joined and in order, cut at the end of the device."""
    return merged(
        [
            (first, min(size, -(-(start + length) // granularity) * granularity) - first)
            for start, length in ranges
            if start < size and length > 0
            for first in (start // granularity * granularity,)
        ]
    )


def blocks_of(ranges: Iterable[Range], unit: int) -> Iterator[int]:
    """Numbers of the blocks of ``unit`` bytes in ranges that consist of such."""
    for start, length in ranges:
        yield from range(start // unit, -(-(start + length) // unit))


def ranges_of(blocks: Iterable[int], unit: int, size: int) -> tuple[Range, ...]:
    """Blocks as ranges, joined and in order."""
    return merged([_bytes(number, number, unit, size) for number in blocks])


def _bytes(first: int, last: int, unit: int, size: int) -> Range:
    return first * unit, min(size, (last + 1) * unit) - first * unit
