"""What is written, and how it is recognized: blocks that no other write in the world has made. No I/O here."""

from __future__ import annotations

import hashlib

BLOCK = 4096
BLOCKS_DEFAULT, BLOCKS_MAX = 256, 1024
"""Of a probe file; digests of so many fit into one answer."""
BEFORE, AFTER = 0, 1
"""The rounds: what the file is made with, and what is then written over it."""
_DIGEST_BYTES = 12


def block(token: str, index: int, turn: int) -> bytes:
    """The content of a block of the probe that the token names."""
    return hashlib.shake_128(f"pvedrbdstor {token} {index} {turn}".encode()).digest(BLOCK)


def digest(content: bytes | bytearray | memoryview) -> str:
    """Of one block, in hex."""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def digests(content: bytes | bytearray | memoryview) -> list[str]:
    """Of each block."""
    view = memoryview(content)
    return [digest(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK)]
