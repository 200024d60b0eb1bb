"""From changed blocks of the device to changed parts of files. Pure arithmetic on byte ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.mirror.extents import Ranges, pieces
from pvedrbdstor.native import Extent

CHUNK = 1 << 20
"""Bytes that one digest is made of."""


def changed_parts(extents: Iterable[Extent], changed: Sequence[Range]) -> tuple[Range, ...]:
    """The parts of a file that lie on changed blocks; what reads as zeroes, whatever was written there, is none."""
    found = pieces(extents, Ranges(changed))
    return merged([(piece.logical, piece.length) for piece in found if not piece.unwritten])


def chunks_of(parts: Iterable[Range]) -> tuple[Range, ...]:
    """The whole chunks that parts touch, as ranges."""
    return merged(
        [
            (start // CHUNK * CHUNK, -(-(start + length) // CHUNK) * CHUNK - start // CHUNK * CHUNK)
            for start, length in parts
        ]
    )


def total(ranges: Iterable[Range]) -> int:
    return sum(length for _, length in ranges)


def batched(
    wanted: Mapping[str, Sequence[Range]], cost: Callable[[str, int, bool], float], largest: int
) -> Iterator[dict[str, list[Range]]]:
    """The ranges (of whole chunks) in their order, in batches that cost at most 1 each, or have one piece alone.

    cost: of a piece of so many bytes of a file, and whether it is the batch's first of that file. largest: bytes of a piece, whole
    chunks. A file may go on in the next batch.
    """
    batch: dict[str, list[Range]] = {}
    spent = 0.0
    for path, ranges in wanted.items():
        for start, length in _pieces(ranges, largest):
            price = cost(path, length, path not in batch)
            if batch and spent + price > 1:
                yield batch
                batch, spent = {}, 0.0
                price = cost(path, length, True)
            batch.setdefault(path, []).append((start, length))
            spent += price
    if batch:
        yield batch


def _pieces(ranges: Iterable[Range], largest: int) -> Iterator[Range]:
    for start, length in ranges:
        for at in range(start, start + length, largest):
            yield at, min(largest, start + length - at)
