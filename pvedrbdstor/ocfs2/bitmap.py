"""OCFS2's map of clusters in use: struct ocfs2_group_desc of fs/ocfs2/ocfs2_fs.h, and where each lies. Pure.

Groups of clusters are never discontiguous, whatever `discontig-bg` allows to those of inodes and extents: the group
of a cluster lies at the cluster whose number is the next lower multiple of the group's size, but the first
(ocfs2_which_cluster_group()).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pvedrbdstor.ocfs2.inodes import BadBlock

_HEAD = struct.Struct("<8sHHHHIHHQQQ")
_BITMAP_AT = 0x40


def group_block(cluster: int, per_group: int, first_group: int, blocks_per_cluster: int) -> int:
    """The block with the group that has a cluster."""
    group = cluster // per_group
    return first_group if group == 0 else group * per_group * blocks_per_cluster


def parse_group(block: bytes, number: int, owner: int, generation: int) -> tuple[int, int, int]:
    """(clusters in the group, those free, the bits of those in use). owner: the block of the bitmap's inode."""
    if len(block) < 512:
        raise BadBlock(f"block {number} is cut short")
    signature, size, bits, free, _, own_generation, _, _, _, parent, own = _HEAD.unpack_from(block)
    if signature != b"GROUP01\0":
        raise BadBlock(f"block {number} is no group of clusters")
    if own != number or parent != owner or own_generation != generation:
        raise BadBlock(f"the group in block {number} belongs elsewhere")
    if bits > size * 8 or size > len(block) - _BITMAP_AT or free > bits:
        raise BadBlock(f"the group in block {number} does not add up")
    used = int.from_bytes(block[_BITMAP_AT:][:size], "little") & ((1 << bits) - 1)
    return bits, free, used


def runs(used: int, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
    """(bit, number, in use) of the runs of equal bits from `first` to before `last`."""
    at = first
    while at < last:
        rest = used >> at
        in_use = bool(rest & 1)
        flipped = ~rest if in_use else rest
        length = min((flipped & -flipped).bit_length() - 1 if flipped else last - at, last - at)
        yield at, length, in_use
        at += length
