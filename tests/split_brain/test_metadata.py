"""DRBD's bitmap as drbdmeta prints it, and its activity log as it lies on the disk."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import metadata
from pvedrbdstor.drbd.metadata import BLOCK, EXTENT_BYTES, active_extents, extent_ranges, merged, parse_dump

DUMP = """# DRBD meta data dump
version "v08";

This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.
# md_size_sect 136
# md_offset 1073737728
# al_offset 1073704960
# bm_offset 1073672192

uuid {
    0xEDD02BC5AF3D82D7; 0x365BCF83F6A9C585; 0x0000000000000000; 0x0000000000000000;
    flags 0x00000000;
}
# al-extents 1237;
la-size-sect 2097016;
bm-byte-per-bit 4096;
al-stripes 1;
al-stripe-size-4k 8;
# bm-bytes 32768;
bm {
   # at 0kB
    0x0000000000000000; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;
    0x0001000000000000; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;
    64 times 0x0000000000000000;
    124 times 0x0000000000000000;
    0x0000000000000000; 0x0000000000000000; 0x0000000000000000; 0xFFFFFFFF00000000;
    0x00000000FFFFFFFF; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;
    3888 times 0x0000000000000000;
}
# bits-set 65;
"""


def test_a_real_dump() -> None:
    dump = parse_dump(DUMP)
    first = (4 * 64 + 48) * BLOCK
    second = ((8 + 64 + 124 + 3) * 64 + 32) * BLOCK
    assert dump.changed == ((first, BLOCK), (second, 64 * BLOCK))
    assert dump.complete and dump.log == (1073704960, 8 * BLOCK)
    assert dump.size == 2097016 * 512


def test_a_dump_that_was_cut_off_is_not_complete() -> None:
    assert not parse_dump(DUMP[: DUMP.index("3888")]).complete
    assert not parse_dump("").complete and parse_dump("la-size-sect 0;\n").size is None


def test_nines_bitmaps_of_several_peers_count_together() -> None:
    text = "bitmap[0] {\n 0x0000000000000001;\n}\nbitmap[1] {\n 0x0000000000000004;\n}\n"
    assert parse_dump(text).changed == ((0, BLOCK), (2 * BLOCK, BLOCK))


@given(st.sets(st.integers(0, 64 * 20 - 1)))
def test_every_bit_is_found_again(bits: set[int]) -> None:
    words = [sum(1 << bit - 64 * at for bit in bits if bit // 64 == at) for at in range(20)]
    text = "bm {\n" + " ".join(f"0x{word:016X};" for word in words) + "\n}\n"
    found = {at // BLOCK + n for at, length in parse_dump(text).changed for n in range(length // BLOCK)}
    assert found == bits


def transaction(number: int, updates: dict[int, int], context: list[int], first: int, slots: int) -> bytes:
    """As al_write_transaction() writes one."""
    names = [*updates, *[0xFFFF] * (64 - len(updates))]
    extents = [*updates.values(), *[0xFFFFFFFF] * (64 - len(updates))]
    known = [*context, *[0xFFFFFFFF] * (919 - len(context))]
    return (
        struct.pack(">IIIHHHH16x", 0x69CB65A2, number, 0, 0, len(updates), slots, first)
        + struct.pack(">64H", *names)
        + struct.pack(">64I", *extents)
        + struct.pack(">919I", *known)
    )


def test_the_newest_transaction_says_what_is_in_a_slot() -> None:
    log = transaction(9, {1: 70}, [5, 6, 0xFFFFFFFF], 0, 3) + transaction(8, {1: 60, 2: 61}, [5], 0, 3) + bytes(BLOCK)
    assert active_extents(log) == {5, 70}


def test_numbers_that_have_wrapped_are_newer() -> None:
    log = transaction(1, {0: 20}, [], 0, 1) + transaction(0xFFFFFFFE, {0: 10}, [], 0, 1)
    assert active_extents(log) == {20}


@given(st.binary(max_size=2 * BLOCK))
def test_noise_is_no_transaction(noise: bytes) -> None:
    assert active_extents(noise) == frozenset()


def test_extents_end_with_the_device() -> None:
    assert extent_ranges(frozenset({0, 1, 9}), EXTENT_BYTES + 4096) == ((0, EXTENT_BYTES + 4096),)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))))
def test_merged_ranges_cover_the_same_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    joined = merged(ranges)
    covered = {at for start, length in ranges for at in range(start, start + length)}
    assert {at for start, length in joined for at in range(start, start + length)} == covered
    assert all(sum(one) < other[0] for one, other in itertools.pairwise(joined))


def test_bits_behind_the_end_of_the_data_mean_nothing() -> None:
    assert metadata.within(((0, 8), (90, 20), (100, 4)), 100) == ((0, 8), (90, 10))
