"""Blocks of OCFS2's inodes as they lie on the disk: struct ocfs2_dinode and what hangs on it, in fs/ocfs2/ocfs2_fs.h.

Pure; every number may be a lie: whatever does not add up is BadBlock with one sentence, and nothing is looped over
that a block cannot hold. Places on the disk are in blocks, clusters are counted from the start of the device.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SYSTEM_FL, LOCAL_ALLOC_FL, BITMAP_FL, JOURNAL_FL, CHAIN_FL, DEALLOC_FL = 0x8, 0x40, 0x80, 0x100, 0x400, 0x800
_INLINE_DATA_FL = 0x1  # of i_dyn_features
_DEPTH_MAX = 5  # OCFS2_MAX_PATH_DEPTH

_INODE, _EXTENT_BLOCK, _GROUP = b"INODE01\0", b"EXBLK01\0", b"GROUP01\0"
_SIZE, _MODE_FLAGS = struct.Struct("<Q"), struct.Struct("<H2xI")
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_BLKNO_AT, _GENERATION_AT, _DYNAMIC_AT, _ID2 = 0x50, 0x60, 0x76, 0xC0
_LIST, _RECORD = struct.Struct("<HHH10x"), struct.Struct("<II Q")
_CHAINS, _CHAIN = struct.Struct("<HHHH8x"), struct.Struct("<IIQ")
_LOCAL, _LOCAL_BITMAP_AT = struct.Struct("<IH10x"), 16
_TRUNCATE, _FREED = struct.Struct("<HH4x"), struct.Struct("<II")
_ENTRY = struct.Struct("<QHBB")

SIGNATURES = {
    _INODE: (_BLKNO_AT, "an inode"),
    _EXTENT_BLOCK: (0x18, "a list of extents"),
    _GROUP: (0x28, "a group of the allocator"),
    b"REFCNT1\0": (0x10, "a tree of reference counts"),
    b"XATTR01\0": (0x10, "extended attributes"),
    b"DXDIR01\0": (0x18, "an index of a folder"),
    b"DXLEAF1\0": (0x10, "an index of a folder"),
}
"""What a block of metadata begins with -> where in it its own number stands, and what it is. A block of a folder ends
with a trailer instead."""
_TRAILER, _TRAILER_SIZE, _TRAILER_BLKNO_AT = b"DIRTRL1\0", 64, 0x28


class BadBlock(Exception):
    """A block is not what it should be."""


@dataclass(frozen=True, slots=True)
class Inode:
    """size: bytes. flags: OCFS2_*_FL. block: the whole of it."""

    number: int
    size: int
    mode: int
    flags: int
    generation: int
    inline: bool
    block: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """A list of extents. Its records are leaves where depth is 0: (cluster in the file, number of clusters, first
    block, flags); else the third is the block with the next list, and the second has no meaning here."""

    depth: int
    records: tuple[tuple[int, int, int, int], ...]


def parse_inode(block: bytes, number: int) -> Inode:
    if not block.startswith(_INODE) or len(block) < 512:
        raise BadBlock(f"block {number} is no inode")
    (own,) = _U64.unpack_from(block, _BLKNO_AT)
    if own != number:
        raise BadBlock(f"the inode in block {number} says that it is in block {own}")
    (size,) = _SIZE.unpack_from(block, 0x20)
    mode, flags = _MODE_FLAGS.unpack_from(block, 0x28)
    (generation,) = _U32.unpack_from(block, _GENERATION_AT)
    (dynamic,) = _U16.unpack_from(block, _DYNAMIC_AT)
    return Inode(number, size, mode, flags, generation, bool(dynamic & _INLINE_DATA_FL), block)


def extent_list(inode: Inode) -> Node:
    """Of an inode whose data is not inline."""
    return _node(inode.block, _ID2, f"inode {inode.number}")


def parse_extent_block(block: bytes, number: int) -> Node:
    if not block.startswith(_EXTENT_BLOCK) or len(block) < 512:
        raise BadBlock(f"block {number} has no list of extents")
    (own,) = _U64.unpack_from(block, 0x18)
    if own != number:
        raise BadBlock(f"the list of extents in block {number} says that it is in block {own}")
    return _node(block, 0x30, f"block {number}")


def _node(block: bytes, at: int, what: str) -> Node:
    depth, count, used = _LIST.unpack_from(block, at)
    room = (len(block) - at - _LIST.size) // _RECORD.size
    if depth > _DEPTH_MAX or used > count or used > room:
        raise BadBlock(f"the list of extents of {what} does not add up")
    records = []
    for index in range(used):
        first, length, start = _RECORD.unpack_from(block, at + _LIST.size + index * _RECORD.size)
        # a leaf has the number of clusters in 16 bits, a reserved byte and the flags behind them
        records.append((first, length & 0xFFFF, start, length >> 24) if depth == 0 else (first, length, start, 0))
    return Node(depth, tuple(records))


def inline_data(inode: Inode) -> bytes:
    (count,) = _U16.unpack_from(inode.block, _ID2)
    return inode.block[_ID2 + 8 :][: min(count, inode.size)]


def folder_entries(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(name, inode) of the entries in one block of a folder, or in the inline data of one; ends at what does not add
    up."""
    at = 0
    while at + _ENTRY.size <= len(data):
        number, length, name_length, _ = _ENTRY.unpack_from(data, at)
        if length < _ENTRY.size or at + length > len(data) or _ENTRY.size + name_length > length:
            return
        name = data[at + _ENTRY.size :][:name_length]
        if number and name not in (b".", b".."):
            yield name, number
        at += length


@dataclass(frozen=True, slots=True)
class Chains:
    """Of the allocator of clusters. group: clusters in each of its groups. total, free: of all chains."""

    group: int
    total: int
    free: int
    heads: tuple[int, ...]


def chains(inode: Inode) -> Chains:
    if not inode.flags & CHAIN_FL:
        raise BadBlock(f"inode {inode.number} is no allocator")
    per_group, _, count, used = _CHAINS.unpack_from(inode.block, _ID2)
    room = (len(inode.block) - _ID2 - _CHAINS.size) // _CHAIN.size
    if used > count or used > room or per_group == 0:
        raise BadBlock(f"the chains of inode {inode.number} do not add up")
    found = [_CHAIN.unpack_from(inode.block, _ID2 + _CHAINS.size + index * _CHAIN.size) for index in range(used)]
    return Chains(
        per_group, sum(it[1] for it in found), sum(it[0] for it in found), tuple(it[2] for it in found if it[2])
    )


def local_window(inode: Inode) -> tuple[int, int, int] | None:
    """(first cluster, number of clusters, bits in use) that one node keeps for itself; None where it has none."""
    (total,) = _U32.unpack_from(inode.block, 0xBC)
    start, size = _LOCAL.unpack_from(inode.block, _ID2)
    if not inode.flags & LOCAL_ALLOC_FL or size > len(inode.block) - _ID2 - _LOCAL_BITMAP_AT or total > size * 8:
        raise BadBlock(f"inode {inode.number} is no window of clusters")
    if total == 0:
        return None
    bitmap = inode.block[_ID2 + _LOCAL_BITMAP_AT :][:size]
    return start, total, int.from_bytes(bitmap, "little") & ((1 << total) - 1)


def freed_clusters(inode: Inode) -> tuple[tuple[int, int], ...]:
    """(first cluster, number) of those that a truncate log has: no file has them any more, the bitmap still does."""
    count, used = _TRUNCATE.unpack_from(inode.block, _ID2)
    room = (len(inode.block) - _ID2 - _TRUNCATE.size) // _FREED.size
    if not inode.flags & DEALLOC_FL or used > count or used > room:
        raise BadBlock(f"inode {inode.number} is no truncate log")
    records = (_FREED.unpack_from(inode.block, _ID2 + _TRUNCATE.size + at * _FREED.size) for at in range(used))
    return tuple((start, length) for start, length in records if start and length)


def looks_like(block: bytes, number: int) -> str | None:
    """What a block of metadata is, by what it begins or ends with and the number of its own that it names."""
    if found := SIGNATURES.get(bytes(block[:8])):
        at, what = found
        return what if _U64.unpack_from(block, at)[0] == number else None
    tail = block[-_TRAILER_SIZE:]
    # struct ocfs2_dir_block_trailer: an entry without inode and name in front of its signature
    if tail[0x10:0x18] == _TRAILER and _U64.unpack_from(tail, _TRAILER_BLKNO_AT)[0] == number:
        return "a folder"
    return None
