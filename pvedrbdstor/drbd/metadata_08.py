"""DRBD 8.4's metadata as they lie on the disk: the identifiers, where activity log and bitmap are, and what the bitmap marks. No I/O here.

`struct meta_data_on_disk` in drbd_main.c, big endian; the bitmap has a bit for each 4 KiB, the lowest first. A Primary's bitmap on the
disk lacks only bits of extents that are in the activity log (drbd.metadata), so that both together miss no write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import BLOCK, EXTENT_BYTES, SECTOR, Range, bits_of

SUPERBLOCK_BYTES = 4096
SLICE_BYTES = EXTENT_BYTES // BLOCK // 8
"""Of the bitmap, for one extent of the activity log."""
_LAYOUT = struct.Struct(">7Q10I")
_MAGICS = (0x8374026B, 0x8374026C)  # DRBD_MD_MAGIC_08, and DRBD_MD_MAGIC_84_UNCLEAN while it is attached (drbd_int.h)
_AL_DISABLED = 1 << 8  # MDF_AL_DISABLED: al-updates no
_LOG_MAX = 16 << 20  # check_activity_log_stripe_size(), drbd_nl.c
_INDEXED_BYTES = 128 << 20  # MD_128MB_SECT: of one index of external metadata
_PAGE = 4096
_BASE_BITS = (1 << 48) - 2


@dataclass(frozen=True, slots=True)
class Superblock:
    """uuids: current, bitmap and two of the history, as drbd.generation_ids has them. size: bytes of data. log, bits: where activity log and
    bitmap begin, in bytes from the superblock (negative where they lie before it), and how long they are. kept: whether there is an activity log at all."""

    uuids: tuple[int, ...]
    size: int
    log: Range
    bits: Range
    kept: bool


@dataclass(frozen=True, slots=True)
class MetaDisk:
    """Where the metadata are. path: of a block device. internal: at its end, behind the data. index: of several on one device."""

    path: str
    internal: bool
    index: int | None = None

    def superblock_at(self, size: int) -> int:
        """Its byte on a device of ``size`` bytes (drbd_md_ss(), drbd_int.h)."""
        if self.internal:
            return size // SUPERBLOCK_BYTES * SUPERBLOCK_BYTES - SUPERBLOCK_BYTES
        return 0 if self.index is None else self.index * _INDEXED_BYTES


def superblock(raw: bytes) -> Superblock | None:
    """None for what is none, or does not add up."""
    if len(raw) < _LAYOUT.size:
        return None
    sectors, *uuids, _, _, flags, magic, _, log_at, _, bits_at, unit, _, stripes, stripe = _LAYOUT.unpack_from(raw)
    log_bytes = stripes * stripe * BLOCK if stripes or stripe else 8 * BLOCK
    if magic not in _MAGICS or unit != BLOCK or not 0 < sectors < 1 << 45 or not 8 * BLOCK <= log_bytes <= _LOG_MAX:
        return None
    size = sectors * SECTOR
    bits_bytes = -(-size // (BLOCK * 8 * _PAGE)) * _PAGE
    return Superblock(
        uuids=tuple(uuid & ~1 for uuid in uuids),
        size=size,
        log=(_signed(log_at) * SECTOR, log_bytes),
        bits=(_signed(bits_at) * SECTOR, bits_bytes),
        kept=not flags & _AL_DISABLED,
    )


def meta_disk(device: str, word: str) -> MetaDisk | None:
    """What `drbdadm sh-md-dev` and `sh-md-idx` say; None where that is no word of theirs."""
    if word in ("internal", "flex-internal"):
        return MetaDisk(device, internal=True)
    if word == "flex-external":
        return MetaDisk(device, internal=False)
    return MetaDisk(device, internal=False, index=int(word)) if word.isdecimal() and len(word) < 6 else None


def base(uuid: int) -> int:
    """What stays of the identifier of a bitmap while resyncs are counted in its high bits (UUID_NEW_BM_OFFSET, drbd_int.h)."""
    return uuid & _BASE_BITS


def marked(bits: bytes, at: int) -> Iterator[Range]:
    """The bytes of the device whose bits are set in a piece of the bitmap that begins with the bit of byte ``at`` of the device."""
    for start, piece in _set_slices(bits):
        value = int.from_bytes(piece, "little")
        for first, count in bits_of(value, start * 8):
            yield at + first * BLOCK, count * BLOCK


def marked_extents(bits: bytes, at: int) -> Iterator[Range]:
    """The same in whole extents of 4 MiB, which takes far less time where much is marked."""
    for start, piece in _set_slices(bits):
        yield at + start * 8 * BLOCK, len(piece) * 8 * BLOCK


def _set_slices(bits: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the slices with a bit in them; pages with none or all of them are one step, as after a full resync was asked for."""
    none, all_ = bytes(_PAGE), b"\xff" * _PAGE
    for page_at in range(0, len(bits), _PAGE):
        page = bits[page_at : page_at + _PAGE]
        if page == none[: len(page)]:
            continue
        if page == all_:
            yield page_at, page
            continue
        for start in range(0, len(page), SLICE_BYTES):
            piece = page[start : start + SLICE_BYTES]
            if piece.count(0) != len(piece):
                yield page_at + start, piece


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
