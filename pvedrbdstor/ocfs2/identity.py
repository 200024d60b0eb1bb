"""From the UUID of an OCFS2 file system to the id that a mounted one shows in statfs(2)."""

from __future__ import annotations

import zlib


def fsid_of(uuid: str) -> tuple[int, int]:
    """f_fsid of the file system with this UUID (32 upper case hex digits): ocfs2_statfs() in fs/ocfs2/super.c.

    Each half is the kernel's crc32_le(0, ...) of 16 of the digits, as text.
    """
    text = uuid.encode("ascii")
    return _crc32_le(text[:16]), _crc32_le(text[16:32])


def _crc32_le(data: bytes) -> int:
    """The kernel's crc32_le(0, data): the CRC of zlib without its inversion before and after."""
    return zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
