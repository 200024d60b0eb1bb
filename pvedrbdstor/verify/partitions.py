"""A guest's partition table: GPT with its copy at the end, MBR with logical partitions. Pure but for the reads it is
given.

Everything in an image is hostile: what does not add up is passed over, and every loop and length has a bound of this
file. sfdisk would say the same of raw images (the tests ask it); it is not run, since it cannot look into qcow2, and
so that root parses no guest's bytes in C.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.verify.labels import label

Read = Callable[[int, int], bytes]
"""Bytes of the guest's disk: from where, how many (at most 128 KiB); fewer at its end."""

_SECTORS = (512, 4096)
_ENTRY = struct.Struct("<B3xB3xII")  # of an MBR
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_LOGICAL_MAX = 128
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # UEFI specification, table 5-5
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_TABLE_MAX = 128 << 10
_LINUX_SWAP = bytes.fromhex(
    "6dfd5706aba4c44384e50933c84b4f4f"
)  # 0657FD6D-A4AB-43C4-84E5-0933C84B4F4F as it lies on disk
_MBR_SWAP = 0x82


@dataclass(frozen=True, slots=True)
class Partition:
    """start, length: bytes of the guest's disk. name: GPT's, fit to be shown. swap: its type says that it is for
    swap."""

    number: int
    start: int
    length: int
    name: str = ""
    swap: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """kind: gpt, mbr, or empty where there is no table. areas: where the table itself lies."""

    kind: str = ""
    partitions: tuple[Partition, ...] = ()
    areas: tuple[Range, ...] = ()


def read_layout(read: Read, size: int) -> Layout:
    """Of a disk of so many bytes. Raises what `read` raises."""
    first = read(0, 512)
    if len(first) < 512 or first[510:512] != b"\x55\xaa":
        return _gpt(read, size, None) or Layout()
    entries = _mbr_entries(first)
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        return _gpt(read, size, first) or Layout("mbr", (), ((0, 512),))
    return _mbr(read, size, first)


# --- GPT ---------------------------------------------------------------------------------------------------------


def _gpt(read: Read, size: int, mbr: bytes | None) -> Layout | None:
    """From the first header that is whole, else from the one at the end; without a protective MBR only a whole one at
    the start counts."""
    for sector in _SECTORS:
        places = (sector,) if mbr is None else (sector, size // sector * sector - sector)
        for at in places:
            found = _header(read, at, sector, size)
            if found is not None:
                return found
    return None


def _header(read: Read, at: int, sector: int, size: int) -> Layout | None:
    raw = read(at, sector) if at >= sector else b""
    if len(raw) < sector or not raw.startswith(b"EFI PART"):
        return None
    _, _, length, crc, _, own, _, _, _, _, table, count, each, table_crc = _HEADER.unpack_from(raw)
    if not _HEADER.size <= length <= sector or own != at // sector:
        return None
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != crc:
        return None
    if each < _GPT_ENTRY.size or each % 8 or count == 0 or count * each > _TABLE_MAX or table * sector >= size:
        return None
    entries = read(table * sector, count * each)
    if len(entries) < count * each or zlib.crc32(entries) != table_crc:
        return None
    room = -(-count * each // sector) * sector
    last = size // sector * sector - sector
    # the copy of the table lies before the header at the end, by the specification right before it
    areas = ((0, sector), (sector, sector), (2 * sector, room), (last - room, room), (last, sector))
    partitions = tuple(_gpt_entries(entries, each, sector, size))
    return Layout("gpt", partitions, tuple((max(0, start), length) for start, length in areas))


def _gpt_entries(entries: bytes, each: int, sector: int, size: int) -> Iterator[Partition]:
    for index in range(len(entries) // each):
        kind, _, first, last, _, name = _GPT_ENTRY.unpack_from(entries, index * each)
        start, end = first * sector, min((last + 1) * sector, size)
        if any(kind) and 0 < start < end:
            yield Partition(index + 1, start, end - start, label(name, "utf-16-le"), kind == _LINUX_SWAP)


# --- MBR ---------------------------------------------------------------------------------------------------------


def _mbr(read: Read, size: int, first: bytes) -> Layout:
    partitions, areas, extended = [], [(0, 512)], None
    for index, (kind, start, length) in enumerate(_mbr_entries(first), 1):
        if not kind or not length or not 0 < start * 512 < size:
            continue
        if kind in _EXTENDED:
            extended = extended if extended is not None else start
        else:
            partitions.append(_mbr_partition(index, kind, start, length, size))
    if extended is not None:
        for partition, area in _logical(read, size, extended):
            areas.append(area)
            partitions += [partition] if partition is not None else []
    if not partitions and extended is None:
        return Layout()
    return Layout("mbr", tuple(partitions), tuple(areas))


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four; none where a byte that says whether to boot from one says anything
    else."""
    entries = [_ENTRY.unpack_from(sector, 446 + 16 * index) for index in range(4)]
    if any(boot not in (0, 0x80) for boot, _, _, _ in entries):
        return []
    return [(kind, start, length) for _, kind, start, length in entries]


def _logical(read: Read, size: int, extended: int) -> Iterator[tuple[Partition | None, Range]]:
    """The chain of tables inside an extended partition: each has one partition, relative to itself, and the place of
    the next."""
    seen: set[int] = set()
    at, number = extended, 5
    while at not in seen and len(seen) < _LOGICAL_MAX and at * 512 < size:
        seen.add(at)
        raw = read(at * 512, 512)
        if len(raw) < 512 or raw[510:512] != b"\x55\xaa":
            return
        partition, following = None, None
        for kind, start, length in _mbr_entries(raw)[:2]:
            if kind in _EXTENDED:
                following = extended + start
            elif kind and length and (at + start) * 512 < size:
                partition = _mbr_partition(number, kind, at + start, length, size)
        number += partition is not None
        yield partition, (at * 512, 512)
        if following is None:
            return
        at = following


def _mbr_partition(number: int, kind: int, start: int, length: int, size: int) -> Partition:
    return Partition(number, start * 512, min(length * 512, size - start * 512), "", kind == _MBR_SWAP)
