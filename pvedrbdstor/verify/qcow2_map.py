"""From places in a qcow2 file to places of the guest's disk, and back, by the image's own tables of the disk as it is
now.

The format is QEMU's docs/interop/qcow2.txt. Tables are read one cluster at a time, and nothing is kept but what was
asked for: qemu-img would print all of an image's map, which has no bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.mirror.extents import Ranges
from pvedrbdstor.volumes.qcow2 import Header

Read = Callable[[int, int], bytes]

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_EXTENDED_L2, _OTHER_COMPRESSION = 1 << 4, 1 << 3
_STEP = 1 << 16  # bytes of a table that are read at once
_FOUND_MAX = 100_000
_TABLES_MAX = 512 << 20
"""Bytes of second-level tables that are read: those of 4 TiB in clusters of 64 KiB. A good image has no table twice,
so more is read of none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of the file; guest: where they are in the guest's disk, None for tables. whole: they are compressed, and
    stand for the whole cluster of the guest that begins there."""

    start: int
    length: int
    guest: int | None
    whole: bool = False


class Map:
    """read: of the file, at most 128 KiB at once. complete: places() has seen all there is to see."""

    def __init__(self, read: Read, header: Header) -> None:
        self._read = read
        self._header = header
        self._entry = 16 if header.incompatible_features & _EXTENDED_L2 else 8
        self._per_table = header.cluster_size // self._entry
        self.complete = True

    def places(self, wanted: Sequence[Range]) -> Iterator[Place]:
        """Those of the wanted bytes of the file that are the guest's, or tables; in no order. Others are in no use
        now."""
        ranges, left = Ranges(wanted), _FOUND_MAX
        first = (0, self._header.cluster_size), (self._header.l1_offset, self._header.l1_size * 8)
        for start, length in first:
            for at, size in ranges.between(start, start + length):
                yield Place(at, size, None)
        low, high = (wanted[0][0], sum(wanted[-1])) if wanted else (0, 0)
        bytes_left = _TABLES_MAX
        for index, table in self._tables():
            bytes_left -= self._header.cluster_size
            if bytes_left < 0 or left <= 0:
                self.complete = False
                return
            for at, size in ranges.between(table, table + self._header.cluster_size):
                yield Place(at, size, None)
            for place in self._of_table(index, table, ranges, low, high):
                yield place
                left -= 1
                if left <= 0:
                    break

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the guest's disk; what is in no cluster of the file is zeroes."""
        found = bytearray()
        end = min(offset + length, self._header.size)
        while offset < end:
            inside = offset % self._header.cluster_size
            count = min(self._header.cluster_size - inside, end - offset)
            found += self._cluster(offset // self._header.cluster_size, inside, count)
            offset += count
        return bytes(found)

    def _tables(self) -> Iterator[tuple[int, int]]:
        """(number, place) of the second-level tables that there are."""
        for at in range(0, self._header.l1_size * 8, _STEP):
            raw = self._read(self._header.l1_offset + at, min(_STEP, self._header.l1_size * 8 - at))
            for index, (entry,) in enumerate(struct.iter_unpack(">Q", raw[: len(raw) // 8 * 8])):
                if entry & _OFFSET:
                    yield at // 8 + index, entry & _OFFSET

    def _of_table(self, index: int, table: int, ranges: Ranges, low: int, high: int) -> Iterator[Place]:
        """low, high: the first and the last byte that is wanted, so that most entries are passed over quickly."""
        size = self._header.cluster_size
        for at in range(0, size, _STEP):
            raw = self._read(table + at, min(_STEP, size - at))
            raw = raw[: len(raw) // self._entry * self._entry]
            for number, entry in enumerate(struct.unpack(f">{len(raw) // 8}Q", raw)[:: self._entry // 8]):
                if entry <= _ZERO or (not entry & _COMPRESSED and not low - size < entry & _OFFSET < high):
                    continue
                guest = (index * self._per_table + at // self._entry + number) * size
                start, length, whole = self._where(entry)
                for first, count in ranges.between(start, start + length):
                    yield Place(first, count, guest if whole else guest + first - start, whole)

    def _where(self, entry: int) -> tuple[int, int, bool]:
        """(place in the file, bytes there, compressed) of a cluster of the guest."""
        if not entry & _COMPRESSED:
            return entry & _OFFSET, self._header.cluster_size if entry & _OFFSET else 0, False
        split = 62 - (self._header.cluster_bits - 8)
        start = entry & ((1 << split) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> split
        return start, (sectors + 1) * 512 - start % 512, True

    def _cluster(self, number: int, inside: int, count: int) -> bytes:
        entry = self._table_entry(number)
        start, length, compressed = self._where(entry)
        if start == 0 or (not compressed and entry & _ZERO and self._entry == 8):
            return bytes(count)
        if not compressed:
            data = self._padded(self._read_all(start + inside, count), count)
            return data if self._entry == 8 else self._without_holes(data, number, inside)
        if self._header.incompatible_features & _OTHER_COMPRESSION:
            return bytes(count)
        try:
            data = zlib.decompressobj(-12).decompress(self._read_all(start, length), self._header.cluster_size)
        except zlib.error:
            return bytes(count)
        return self._padded(data[inside : inside + count], count)

    def _without_holes(self, data: bytes, number: int, inside: int) -> bytes:
        """With extended entries each of the 32 parts of a cluster has a bit that says whether it is in the file."""
        allocated = self._table_entry(number, 8) & 0xFFFFFFFF
        size, found = self._header.cluster_size // 32, bytearray(data)
        for part in range(inside // size, -(-(inside + len(data)) // size)):
            if not allocated >> part & 1:
                low, high = max(0, part * size - inside), min(len(data), (part + 1) * size - inside)
                found[low:high] = bytes(high - low)
        return bytes(found)

    def _table_entry(self, number: int, at: int = 0) -> int:
        """Eight bytes of the entry of a cluster of the guest; 0 where there is no table."""
        index, inside = divmod(number, self._per_table)
        if index >= self._header.l1_size:
            return 0
        raw = self._read(self._header.l1_offset + index * 8, 8)
        table = int.from_bytes(raw, "big") & _OFFSET if len(raw) == 8 else 0
        if table == 0:
            return 0
        raw = self._read(table + inside * self._entry + at, 8)
        return int.from_bytes(raw, "big") if len(raw) == 8 else 0

    def _read_all(self, start: int, length: int) -> bytes:
        return b"".join(self._read(start + at, min(_STEP, length - at)) for at in range(0, length, _STEP))

    @staticmethod
    def _padded(data: bytes, count: int) -> bytes:
        return data.ljust(count, b"\0")
