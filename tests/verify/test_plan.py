"""Which parts are compared, and that a sample finds what it promises to find."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.verify.plan import (
    CONFIDENCE,
    SLICE_BYTES,
    SLICE_RANGES,
    Picked,
    Plan,
    blocks_of,
    found_surely,
    ranges_of,
    sample,
)
from tests.examples import examples

G = 65536
SIZE = 100 * (1 << 20) + 512


def pieces_of(plan: Plan, at: int = 0) -> list[tuple[int, int]]:
    return [piece for found in plan.slices(at) for piece in found]


_ranges = st.lists(st.tuples(st.integers(0, SIZE + 9), st.integers(0, 40 << 20)), max_size=8)


@given(_ranges, st.integers(0, SIZE // G))
def test_pieces_cover_every_wanted_byte_from_where_they_begin(ranges: list[tuple[int, int]], first: int) -> None:
    plan = Plan(SIZE, G, ranges)
    pieces = pieces_of(plan, first * G)
    assert all(start % G == 0 and 0 < length <= SLICE_BYTES and start + length <= SIZE for start, length in pieces)
    assert all(length % G == 0 or start + length == SIZE for start, length in pieces)
    assert all(one[0] + one[1] <= other[0] for one, other in itertools.pairwise(pieces))
    read = {block for start, length in pieces for block in range(start // G, -(-(start + length) // G))}
    wanted = {
        block
        for start, length in ranges
        if length and start < SIZE
        for block in range(start // G, -(-min(SIZE, start + length) // G))
    }
    assert read == {block for block in wanted if block >= first}
    assert plan.total == sum(length for _, length in pieces_of(Plan(SIZE, G, ranges)))


@given(_ranges, st.integers(0, SIZE // G), st.floats(0.001, 1.0))
def test_a_slice_has_few_bytes_and_few_ranges_and_no_fewer_than_it_may(
    ranges: list[tuple[int, int]], first: int, fraction: float
) -> None:
    for plan in (Plan(SIZE, G, ranges), Plan(SIZE, G, picked=sample(SIZE, G, fraction, first))):
        slices = list(plan.slices(first * G))
        for found in slices:
            assert 0 < len(found) <= SLICE_RANGES and sum(length for _, length in found) <= SLICE_BYTES
        for one, other in itertools.pairwise(slices):
            assert len(one) == SLICE_RANGES or sum(length for _, length in (*one, other[0])) > SLICE_BYTES


def test_everything_is_the_whole_device_to_its_last_byte() -> None:
    pieces = pieces_of(Plan(SIZE, G))
    assert pieces[0][0] == 0 and sum(pieces[-1]) == SIZE == sum(length for _, length in pieces) == Plan(SIZE, G).total


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(0, 9), st.lists(st.integers(0, 99), max_size=5))
def test_a_sample_has_one_block_of_each_part_in_order(blocks: int, count: int, seed: int, beside: list[int]) -> None:
    count = min(blocks, count)
    extra = tuple(sorted({number for number in beside if number < blocks}))
    picked = Picked(blocks, count, seed, extra)
    numbers = list(picked.numbers())
    assert numbers == sorted(set(numbers)) and set(extra) <= set(numbers) <= set(range(blocks))
    for part in range(count):
        assert any(part * blocks // count <= number < (part + 1) * blocks // count for number in numbers)
    assert list(picked.numbers()) == numbers, "the same seed gives the same sample"
    size = blocks * G - 512
    assert [*blocks_of(picked.ranges(G, size), G)] == numbers
    assert all(start + length <= size for start, length in picked.ranges(G, size))
    assert sum(length for _, length in picked.ranges(G, size)) <= Plan(size, G, picked=picked).total <= size


def test_another_seed_gives_another_sample() -> None:
    assert list(Picked(5000, 50, 1).numbers()) != list(Picked(5000, 50, 2).numbers())


def test_what_is_to_be_touched_besides_is() -> None:
    beside = [5 * G + 7, 5 * G + 9, SIZE - 1, SIZE + 5]
    numbers = set(sample(SIZE, G, 0.0001, 3, beside).numbers())
    assert numbers >= {5, (SIZE - 1) // G} and len(numbers) == 3


def test_a_sample_of_all_finds_a_single_block() -> None:
    picked = sample(SIZE, G, 1.0, 3)
    assert list(picked.numbers()) == list(range(-(-SIZE // G))) and found_surely(picked) == 1


def test_the_promise_for_a_hundredth_of_a_big_device() -> None:
    """ln 20 / ln(100/99) blocks or so, as the rule of three has it."""
    picked = sample(1 << 40, G, 0.01, 3)
    assert 298 <= found_surely(picked) <= 301


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(200, 3000), st.integers(5, 60), st.sampled_from(["spread", "even", "run", "clumps"]))
def test_a_sample_meets_the_damage_that_it_promises_to_find(blocks: int, count: int, shape: str) -> None:
    """However the damage lies. 400 samples each: a promise that is right fails 400 x 5 % + 5 sigma times with a chance below 1 in a million."""
    picked = Picked(blocks, count, 0)
    amount = found_surely(picked)
    dice = random.Random(blocks * 100 + count)
    if shape == "spread":
        damaged = set(dice.sample(range(blocks), amount))
    elif shape == "even":
        damaged = {number * blocks // amount for number in range(amount)}
    elif shape == "run":
        first = dice.randrange(blocks - amount + 1)
        damaged = set(range(first, first + amount))
    else:
        damaged = {number for number in range(blocks) if number // 7 % 3 == 0} | set(range(amount))
    missed = sum(not damaged & set(Picked(blocks, count, seed).numbers()) for seed in range(400))
    assert missed <= 400 * (1 - CONFIDENCE) + 5 * (400 * CONFIDENCE * (1 - CONFIDENCE)) ** 0.5


@pytest.mark.parametrize("less", [0.5, 0.25])
def test_the_promise_is_not_much_more_careful_than_need_be(less: float) -> None:
    """Half of the damage is missed far more often than one time in twenty."""
    picked = Picked(2000, 50, 0)
    amount = int(found_surely(picked) * less)
    damaged = {number * 2000 // amount for number in range(amount)}
    missed = sum(not damaged & set(Picked(2000, 50, seed).numbers()) for seed in range(400))
    assert missed > 400 * 0.12


@given(st.sets(st.integers(0, 300)))
def test_blocks_and_ranges_are_the_same(blocks: set[int]) -> None:
    size = 301 * 4096 - 512
    assert set(blocks_of(ranges_of(blocks, 4096, size), 4096)) == blocks
    assert all(start + length <= size for start, length in ranges_of(blocks, 4096, size))
