"""The superblock of a journal of OCFS2, which is JBD2's (journal_superblock_t in the kernel's include/linux/jbd2.h). No I/O here."""

from __future__ import annotations

import struct

_SUPER = struct.Struct(">II 32x II")
SIZE = _SUPER.size
"""Bytes of it that are looked at."""
_MAGIC, _SUPERBLOCK_V2 = 0xC03B3998, 4


def features(block: bytes | None) -> dict[str, int] | None:
    """What its reader has to know, as bits: `incompat` and `ro_compat`; None for what is no journal's beginning."""
    if block is None or len(block) < SIZE:
        return None
    magic, kind, incompat, ro_compat = _SUPER.unpack_from(block)
    if magic != _MAGIC:
        return None
    if kind != _SUPERBLOCK_V2:  # the first kind had no features
        return {"incompat": 0, "ro_compat": 0}
    return {"incompat": incompat, "ro_compat": ro_compat}
