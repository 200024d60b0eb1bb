"""What DRBD's metadata tell of blocks written while the other node was away: the bitmap as `drbdmeta dump-md` prints it, and
the activity log as it lies on the disk. No I/O here.

A Primary writes bits to the disk late, but never before the block's extent is in the activity log: both together miss no
write. Of a Secondary the bitmap on the disk is whole (drbd_bm_write() on demotion, drivers/block/drbd/drbd_state.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

EXTENT_BYTES = 4 << 20  # AL_EXTENT_SIZE, drbd_int.h
BLOCK = 4096
SECTOR = 512
_MAGIC = 0x69CB65A2  # DRBD_AL_MAGIC, drbd_int.h
# struct al_transaction_on_disk (drbd_actlog.c), big endian
_HEADER = struct.Struct(">IIIHHHH16x")
_SLOTS = struct.Struct(">64H")
_UPDATES = struct.Struct(">64I")
_CONTEXT = struct.Struct(">919I")
_UNUSED = 0xFFFFFFFF
_WRAP = 1 << 32

_VALUE = re.compile(r"^# (md_offset|al_offset|bm_offset) ([0-9]{1,20})$", re.MULTILINE)
_OPTION = re.compile(r"^(la-size-sect|bm-byte-per-bit|al-stripes|al-stripe-size-4k) ([0-9]{1,12});", re.MULTILINE)
_FLAGS = re.compile(r"^\s*flags 0x([0-9A-Fa-f]{8});", re.MULTILINE)
"""The first are the device's own, on 8.4 (in `uuid`) and 9, which has those of the peers behind them (drbdmeta.c, meta_dump_md())."""
_AL_DISABLED = 1 << 8  # MDF_AL_DISABLED, drbd.h (8.4), drbd_meta_data.h (9): al-updates no
_BITMAP = re.compile(r"^(?:bm|bitmap\[[0-9]+\])\s*\{(?P<words>[^}]*)(?P<end>\})?", re.MULTILINE)
_WORD = re.compile(r"(?:([0-9]{1,12}) times )?0x([0-9A-Fa-f]{16});")

Range = tuple[int, int]
"""Bytes on the device: where it begins, how long it is."""


@dataclass(frozen=True, slots=True)
class Dump:
    """changed: blocks whose bit is set, in order. complete: the text was whole, and an activity log was kept. log: where
    that lies, in bytes from the start of the metadata device, and how long it is; None where that was not told. size: bytes of data
    that the nodes have agreed upon last (la-size-sect), which is the size of the DRBD device; None where that was not told."""

    changed: tuple[Range, ...]
    complete: bool
    log: Range | None
    size: int | None = None


def parse_dump(text: str) -> Dump:
    """The output of `drbdmeta ... dump-md`, whose words are 64 bits each, the lowest first (8.4: `bm`, 9: one for each peer)."""
    offsets = {name: int(value) for name, value in _VALUE.findall(text)}
    options = {name: int(value) for name, value in _OPTION.findall(text)}
    unit = options.get("bm-byte-per-bit", BLOCK)
    bitmaps = list(_BITMAP.finditer(text))
    ranges = [(at * unit, length * unit) for found in bitmaps for at, length in _runs(found["words"])]
    log = None
    if "al_offset" in offsets:
        size = options.get("al-stripes", 1) * options.get("al-stripe-size-4k", 8) * BLOCK
        log = (offsets["al_offset"], size)
    flags = _FLAGS.search(text)
    kept = flags is None or not int(flags[1], 16) & _AL_DISABLED
    return Dump(
        changed=merged(ranges),
        complete=kept and bool(bitmaps) and all(found["end"] for found in bitmaps),
        log=log,
        size=options.get("la-size-sect", 0) * SECTOR or None,
    )


def active_extents(log: bytes) -> frozenset[int]:
    """Numbers of the extents (4 MiB each) that were in the activity log last; blocks that are none of it are passed over."""
    transactions = [found for at in range(0, len(log) - BLOCK + 1, BLOCK) if (found := _transaction(log[at:][:BLOCK]))]
    numbers = [number for number, _ in transactions]
    wrapped = bool(numbers) and max(numbers) - min(numbers) > _WRAP // 2
    slots: dict[int, int] = {}
    for _, updates in sorted(transactions, key=lambda it: it[0] + (_WRAP if wrapped and it[0] < _WRAP // 2 else 0)):
        slots.update(updates)
    return frozenset(extent for extent in slots.values() if extent != _UNUSED)


def extent_ranges(extents: frozenset[int], size: int) -> tuple[Range, ...]:
    """The bytes of extents, cut at the end of the device."""
    starts = (extent * EXTENT_BYTES for extent in sorted(extents))
    return merged([(at, min(EXTENT_BYTES, size - at)) for at in starts if at < size])


def within(ranges: Iterable[Range], size: int) -> tuple[Range, ...]:
    """The ranges cut at the end of the data. Behind it the bitmap has bits that mean nothing, all set by `drbdadm create-md`."""
    return tuple((start, min(length, size - start)) for start, length in ranges if start < size)


def merged(ranges: list[Range]) -> tuple[Range, ...]:
    """In order, with those joined that touch or overlap."""
    joined: list[Range] = []
    for start, length in sorted(found for found in ranges if found[1] > 0):
        if joined and start <= sum(joined[-1]):
            first, before = joined[-1]
            joined[-1] = (first, max(before, start + length - first))
        else:
            joined.append((start, length))
    return tuple(joined)


def _runs(words: str) -> Iterator[Range]:
    """(first bit, number of bits) of every run of set bits within a word or a repeated one."""
    position = 0
    for times, digits in _WORD.findall(words):
        count, value = int(times or 1), int(digits, 16)
        if value == (1 << 64) - 1:
            yield position, 64 * count
        elif value:
            for repeat in range(count):
                yield from bits_of(value, position + 64 * repeat)
        position += 64 * count


def bits_of(value: int, position: int) -> Iterator[Range]:
    """(first bit, number of bits) of the runs of set bits in a number whose lowest bit is the one at ``position``."""
    while value:
        zeroes = (value & -value).bit_length() - 1
        value >>= zeroes
        ones = (~value & (value + 1)).bit_length() - 1
        yield position + zeroes, ones
        position += zeroes + ones
        value >>= ones


def _transaction(block: bytes) -> tuple[int, dict[int, int]] | None:
    magic, number, _crc, _type, updates, all_slots, first = _HEADER.unpack_from(block)
    if magic != _MAGIC or updates > 64:
        return None
    context = max(0, min(919, all_slots - first))
    at = _HEADER.size
    slots = _SLOTS.unpack_from(block, at)
    extents = _UPDATES.unpack_from(block, at + _SLOTS.size)
    known = _CONTEXT.unpack_from(block, at + _SLOTS.size + _UPDATES.size)
    return number, {
        **{first + slot: known[slot] for slot in range(context)},
        **{slots[index]: extents[index] for index in range(updates)},
    }
