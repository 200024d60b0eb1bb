"""DRBD 8.4's metadata as they lie on the disk, also as drbdmeta itself has written them."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.metadata import BLOCK, EXTENT_BYTES, merged
from pvedrbdstor.drbd.metadata_08 import MetaDisk, base, marked, marked_extents, meta_disk, superblock
from pvedrbdstor.verify import written
from tests.loopback import Loopback

MIB = 1 << 20


def raw(**words: int) -> bytes:
    """A superblock of 1 GiB with internal metadata."""
    found = {
        "sectors": 2097016,
        **{f"uuid{number}": 0x1111111111111111 * (number + 1) for number in range(4)},
        "device": 1,
        "reserved": 0,
        "flags": 0,
        "magic": 0x8374026C,
        "size": 136,
        "log": (1 << 32) - 64,
        "extents": 1237,
        "bits": (1 << 32) - 128,
        "unit": 4096,
        "bio": 0,
        "stripes": 1,
        "stripe": 8,
        **words,
    }
    return struct.pack(">7Q10I", *found.values()).ljust(4096, b"\0")


def test_a_superblock() -> None:
    found = superblock(raw())
    assert found is not None and found.kept
    assert found.uuids == tuple(0x1111111111111111 * (number + 1) & ~1 for number in range(4))
    assert found.size == 2097016 * 512 and found.log == (-64 * 512, 8 * BLOCK) and found.bits == (-128 * 512, 32768)
    unset = superblock(raw(stripes=0, stripe=0))
    assert unset is not None and unset.log[1] == 8 * BLOCK
    without = superblock(raw(flags=1 << 8))
    assert without is not None and not without.kept


@pytest.mark.parametrize(
    "words",
    [
        {"magic": 0x8374026D},  # of DRBD 9
        {"unit": 8192},
        {"sectors": 0},
        {"sectors": 1 << 60},
        {"stripes": 1 << 31, "stripe": 1 << 31},
        {"stripes": 0, "stripe": 8},
    ],
)
def test_what_is_no_superblock_of_8_4_is_none(words: dict[str, int]) -> None:
    assert superblock(raw(**words)) is None


@given(st.binary(max_size=200))
def test_anything_is_read_without_an_error(data: bytes) -> None:
    superblock(data)
    superblock(data.ljust(4096, b"\xff"))


@given(st.sets(st.integers(0, 3 * 32768 - 1), max_size=200), st.integers(0, 5))
def test_every_bit_is_found_and_in_extents_no_less(numbers: set[int], extent: int) -> None:
    """Three pages of a bitmap, which begin somewhere on the device."""
    bits = bytearray(3 * 4096)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    at = extent * EXTENT_BYTES
    expected = {at + number * BLOCK for number in numbers}
    exact = merged(list(marked(bytes(bits), at)))
    assert {start + step for start, length in exact for step in range(0, length, BLOCK)} == expected
    coarse = {start + step for start, length in marked_extents(bytes(bits), at) for step in range(0, length, BLOCK)}
    assert coarse >= expected and len(coarse) <= 1024 * len({place // EXTENT_BYTES for place in expected})


def test_where_the_metadata_are() -> None:
    assert meta_disk("/dev/x", "internal") == meta_disk("/dev/x", "flex-internal") == MetaDisk("/dev/x", True)
    assert MetaDisk("/dev/x", True).superblock_at((1 << 30) + 1000) == (1 << 30) - 4096
    assert meta_disk("/dev/x", "flex-external") == MetaDisk("/dev/x", False)
    indexed = meta_disk("/dev/x", "2")
    assert indexed is not None and indexed.superblock_at(1 << 30) == 256 * MIB
    assert meta_disk("/dev/x", "none") is None


def test_the_base_of_an_identifier_outlives_resyncs_and_roles() -> None:
    uuid = 0x365BCF83F6A9C585
    assert base(uuid) == base(uuid + (1 << 48)) == base((uuid + (5 << 48)) & ~1) != base(uuid + 2)


# --- as drbdmeta writes them -----------------------------------------------------------------------------------------

DUMP = """version "v08";
uuid {{ 0xEDD02BC5AF3D82D7; 0x365BCF83F6A9C585; 0x0000000000000000; 0x0000000000000000; flags 0x00000000; }}
la-size-sect {sectors};
bm-byte-per-bit 4096;
device-uuid 0x3FA1C9C0F5E5E5E1;
la-peer-max-bio-size 4096;
al-stripes 1;
al-stripe-size-4k 8;
bm {{
    0x0000000000000000; 0x0001000000000000; 0x0000000000000000; 0xFFFFFFFF00000000;
    0x00000000FFFFFFFF; {rest} times 0x0000000000000000;
}}
"""


@pytest.fixture
def device() -> Iterator[str]:
    with Loopback(64) as loop:
        yield loop.device


def test_what_drbdmeta_has_written_is_read(device: str, tmp_path: object) -> None:
    sectors = (64 * MIB - 128 * 1024) // 512
    words = -(-(sectors // 8) // 64)
    folder = str(tmp_path)
    with open(f"{folder}/dump", "w", encoding="ascii") as file:
        file.write(DUMP.format(sectors=sectors, rest=words - 5))
    line = ["drbdmeta", "--force", "99", "v08", device, "internal"]
    for words_ in (["create-md"], ["restore-md", f"{folder}/dump"]):
        done = subprocess.run([*line, *words_], capture_output=True, text=True, check=False, input="yes\n")
        assert done.returncode == 0, done.stderr + done.stdout
    found, listed = written.read(MetaDisk(device, internal=True), time.monotonic() + 60)
    assert found.size == sectors * 512 and found.uuids[:2] == (0xEDD02BC5AF3D82D6, 0x365BCF83F6A9C584)
    assert listed.ranges == (((64 + 48) * BLOCK, BLOCK), ((3 * 64 + 32) * BLOCK, 64 * BLOCK))
    assert listed.gap == BLOCK and listed.known == found.size
    with pytest.raises(written.Unknown, match="has no metadata"):
        written.read(MetaDisk(device, internal=False), time.monotonic() + 60)
