"""The id a mounted file system shows, from its UUID."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.ocfs2.identity import fsid_of


def crc32_le(data: bytes) -> int:
    """lib/crc32.c, a bit at a time."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def test_fsid_is_what_a_mounted_file_system_showed() -> None:
    """Read with fstatfs() on a live OCFS2 mount, kernel 6.1."""
    assert fsid_of("D3B97E2B2D96431C81C428ABE6A7ECE6") == (0x56368B62, 0x0781E42A)


@given(st.text("0123456789ABCDEF", min_size=32, max_size=32))
def test_fsid_is_the_kernels_crc_of_both_halves(uuid: str) -> None:
    assert fsid_of(uuid) == (crc32_le(uuid[:16].encode()), crc32_le(uuid[16:].encode()))


@pytest.mark.parametrize("place", [0, 15, 16, 31])
def test_every_digit_counts(place: int) -> None:
    uuid = "0" * 32
    assert fsid_of(uuid) != fsid_of(uuid[:place] + "1" + uuid[place + 1 :])
