"""Which parts of a file lie on given ranges of the device. Pure arithmetic on byte ranges."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.native import Extent


class Piece(NamedTuple):
    """Bytes in the file, bytes on the device, how many; unwritten: they read as zeroes, whatever lies there."""

    logical: int
    physical: int
    length: int
    unwritten: bool = False


class Ranges:
    """Ranges in order that do not touch, made to be asked which of them lie between two places."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self._starts = [start for start, _ in ranges]

    def between(self, start: int, end: int) -> Iterator[Range]:
        """The parts of the ranges from start to before end."""
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._ranges) and self._ranges[index][0] < end:
            first = max(self._ranges[index][0], start)
            last = min(sum(self._ranges[index]), end)
            if first < last:
                yield first, last - first
            index += 1


def pieces(extents: Iterable[Extent], ranges: Ranges) -> Iterator[Piece]:
    """The parts of a file's extents that lie on the ranges, in the order of the extents; data inside the inode are none."""
    for extent in extents:
        if not extent.located or extent.inline:
            continue
        for start, length in ranges.between(extent.physical, extent.physical + extent.length):
            yield Piece(extent.logical + start - extent.physical, start, length, extent.unwritten)


def without(start: int, length: int, taken: Ranges) -> Iterator[Range]:
    """What of one range none of `taken` has."""
    at = start
    for first, size in taken.between(start, start + length):
        if at < first:
            yield at, first - at
        at = first + size
    if at < start + length:
        yield at, start + length - at
