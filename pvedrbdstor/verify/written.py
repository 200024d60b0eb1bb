"""What may have been written since the other node was lost, from DRBD 8.4's metadata on this node's disk. It only reads.

The order makes it miss nothing: the activity log, the bitmap, the log again. An extent that a write is under way to is in the log before the
write, and leaves it only when its bits are on the disk (drbd_actlog.c). What is in neither was activated and given up again within the reading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvedrbdstor import native
from pvedrbdstor.drbd import metadata, metadata_08
from pvedrbdstor.drbd.metadata import BLOCK, Range, merged
from pvedrbdstor.drbd.metadata_08 import MetaDisk, Superblock
from pvedrbdstor.verify.plan import whole_blocks

RANGES_MAX = 131_072
_EXACT_MAX = 131_072
"""Ranges after which no more bits are told apart, but whole extents: each costs time, and somebody waits."""
_CHUNK = 4 << 20


class Unknown(Exception):
    """It cannot be told; the text says why."""


@dataclass(frozen=True, slots=True)
class Written:
    """ranges: bytes of the device, in order, RANGES_MAX at most. gap: bytes: what lay nearer to each other than that is one range, as there were
    too many; 4 KiB where nothing was joined. known: bytes of the device up to which all is told."""

    ranges: tuple[Range, ...]
    gap: int
    known: int


def read(disk: MetaDisk, deadline: float) -> tuple[Superblock, Written]:
    """deadline: of the monotonic clock, after which what has been read must do. Raises OSError, Unknown."""
    with _opened(disk) as (source, at, found):
        active = _active(source, at, found)
        known, ranges = _marked(source, at, found, deadline)
        active |= _active(source, at, found)
    whole = metadata.within(merged([*ranges, *metadata.extent_ranges(active, found.size)]), found.size)
    coarse, gap = coarser(whole, found.size)
    return found, Written(coarse, gap, known)


def read_log(disk: MetaDisk) -> tuple[Range, ...]:
    """The extents of the activity log alone. Raises OSError, Unknown."""
    with _opened(disk) as (source, at, found):
        return metadata.extent_ranges(_active(source, at, found), found.size)


def coarser(ranges: Iterable[Range], size: int, most: int = RANGES_MAX) -> tuple[tuple[Range, ...], int]:
    """The same bytes in no more than ``most`` ranges, for which what lies between near ones is added; and how near."""
    gap, found = BLOCK, whole_blocks(ranges, BLOCK, size)
    while len(found) > most:
        gap *= 4
        found = _joined(found, gap)
    return found, gap


def _joined(ranges: Iterable[Range], gap: int) -> tuple[Range, ...]:
    """In order, with what lies nearer to each other than ``gap`` as one."""
    found: list[Range] = []
    for start, length in ranges:
        if found and start - sum(found[-1]) < gap:
            found[-1] = (found[-1][0], start + length - found[-1][0])
        else:
            found.append((start, length))
    return tuple(found)


@contextmanager
def _opened(disk: MetaDisk) -> Iterator[tuple[_Device, int, Superblock]]:
    """The metadata device, and where on it which superblock is."""
    fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with native.AlignedBuffer(_CHUNK) as buffer:
            source = _Device(fd, disk.path, buffer)
            at = disk.superblock_at(native.device_size(fd, disk.path))
            found = metadata_08.superblock(source.read(at, metadata_08.SUPERBLOCK_BYTES))
            if found is None:
                raise Unknown(f"{disk.path} has no metadata of DRBD 8.4 where they should be")
            if not found.kept:
                raise Unknown(
                    "DRBD keeps no activity log (al-updates no), without which its bitmap on the disk tells too little"
                )
            yield source, at, found
    finally:
        os.close(fd)


def _active(source: _Device, at: int, found: Superblock) -> frozenset[int]:
    return metadata.active_extents(source.read(at + found.log[0], found.log[1]))


def _marked(source: _Device, at: int, found: Superblock, deadline: float) -> tuple[int, list[Range]]:
    ranges: list[Range] = []
    offset, length = found.bits
    for done in range(0, length, _CHUNK):
        if done and time.monotonic() > deadline:
            return done * 8 * BLOCK, ranges
        bits = source.read(at + offset + done, min(_CHUNK, length - done))
        for place in range(0, len(bits), 4096):
            page, start = bits[place : place + 4096], (done + place) * 8 * BLOCK
            told = metadata_08.marked if len(ranges) < _EXACT_MAX else metadata_08.marked_extents
            for part in told(page, start):
                if ranges and sum(ranges[-1]) == part[0]:
                    ranges[-1] = (ranges[-1][0], ranges[-1][1] + part[1])
                else:
                    ranges.append(part)
        if len(ranges) > 2 * _EXACT_MAX:  # so that memory stays bounded
            ranges = list(coarser(merged(ranges), found.size)[0])
    return found.size, ranges


@dataclass(frozen=True, slots=True)
class _Device:
    """Read past the page cache, below which DRBD writes."""

    fd: int
    path: str
    buffer: native.AlignedBuffer

    def read(self, at: int, length: int) -> bytes:
        """Raises OSError, Unknown where it ends before."""
        whole = bytearray()
        while len(whole) < length:
            part = min(self.buffer.size, length - len(whole))
            if at < 0 or at % BLOCK:
                raise Unknown(f"the metadata on {self.path} do not add up")
            count = self.buffer.pread(self.fd, at, part, path=self.path)
            if count < part:
                raise Unknown(f"{self.path} ends within the metadata")
            whole += self.buffer.view[:count]
            at += count
        return bytes(whole)
