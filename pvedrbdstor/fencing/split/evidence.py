"""Evidence of what a copy is, which outlives a reboot: a digest of all blocks that were written since the copies parted.

DRBD marks whatever is written to a copy that is apart, before it is: who has written to it since has marked other blocks as well,
or has changed one of these.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.fencing.split.direct import reader
from pvedrbdstor.fencing.split.ranges import CHUNK, total

LIMIT = 32 << 30
"""Bytes of blocks up to which the digest is made: some minutes of reading."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """ranges: of the device, in bytes. digest: of their content on the lower disk."""

    ranges: tuple[Range, ...]
    digest: str


def take(device: str, ranges: Sequence[Range], progress: Callable[[int], None]) -> Evidence | None:
    """Of the lower device, read past the page cache; None where that is too much. Raises OSError."""
    found = merged(list(ranges))
    if total(found) > LIMIT:
        return None
    return Evidence(found, _digest(device, found, progress))


def holds(evidence: Evidence, device: str, ranges: Sequence[Range], progress: Callable[[int], None]) -> bool:
    """Whether the copy is what it was. ranges: the blocks that are marked now. Raises OSError."""
    if not covers(evidence.ranges, ranges):
        return False
    return _digest(device, evidence.ranges, progress) == evidence.digest


def covers(ranges: Sequence[Range], others: Sequence[Range]) -> bool:
    """Whether no byte of the others is outside of the ranges."""
    return merged([*ranges, *others]) == merged(list(ranges))


def _digest(device: str, ranges: Sequence[Range], progress: Callable[[int], None]) -> str:
    sha = hashlib.sha256()
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with reader(fd, device) as past_the_cache:
            for at, length in _pieces(ranges):
                sha.update(at.to_bytes(8, "big"))
                sha.update(past_the_cache.read(at, length))
                progress(length)
    finally:
        os.close(fd)
    return sha.hexdigest()


def _pieces(ranges: Sequence[Range]) -> Iterator[Range]:
    for start, length in ranges:
        for at in range(start, start + length, CHUNK):
            yield at, min(CHUNK, start + length - at)
