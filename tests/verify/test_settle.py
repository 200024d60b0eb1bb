"""Verdicts over looks: no write, however it lies in time, makes a difference, and no difference is missed.

The model: a write begins on one node, reaches both disks in any order, and ends once it has reached both (protocol C). While it is
under way its own node counts it as open; each disk counts what was written to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.verify.settle import LASTING_LOOKS, Look, Settling, Verdict, pauses
from tests.examples import examples

BLOCKS = 3


@dataclass
class Write:
    node: int
    block: int
    value: int
    to: list[int]  # disks still to be reached


@dataclass
class World:
    """Two disks and the writes under way. planted: a block that differs for good unless it is written."""

    disks: list[list[int]] = field(default_factory=lambda: [[0] * BLOCKS, [0] * BLOCKS])
    written: list[int] = field(default_factory=lambda: [0, 0])
    writes: list[Write] = field(default_factory=list)
    clean: set[int] = field(default_factory=lambda: set(range(BLOCKS)))

    def begin(self, node: int, block: int, value: int, local_first: bool) -> None:
        """Of two writes to one block at a time DRBD keeps the order on both disks: here the second waits."""
        if all(write.block != block for write in self.writes):
            self.writes.append(Write(node, block, value, [node, 1 - node] if local_first else [1 - node, node]))

    def advance(self, which: int) -> None:
        if not self.writes:
            return
        write = self.writes[which % len(self.writes)]
        if not write.to:  # acknowledged
            self.writes.remove(write)
            self.clean.add(write.block)
            return
        disk = write.to.pop(0)
        self.disks[disk][write.block] = write.value
        self.written[disk] += 1

    def moment(self) -> list[tuple[int, int]]:
        """(open requests, written) of each node."""
        return [(sum(write.node == node for write in self.writes), self.written[node]) for node in (0, 1)]


_steps = st.lists(
    st.tuples(st.just("begin"), st.integers(0, 1), st.integers(0, BLOCKS - 1), st.integers(0, 1), st.booleans())
    | st.tuples(st.just("advance"), st.integers(0, 9)),
    max_size=4,
)


def run(world: World, steps: list[tuple[object, ...]], fresh: list[int] | None = None) -> None:
    for name, *arguments in steps:
        if name == "begin" and fresh is not None:
            fresh[0] += 1
            arguments[2] = fresh[0]
        getattr(world, str(name))(*arguments)


def digests(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(16, "big") for value in values)


def look(world: World, draw: st.DataObject, now: float, fresh: list[int] | None = None) -> Look:
    """Reads with any writes before, between and after them, and both nodes' words from before and after."""
    before = [world.moment()[0]]
    run(world, draw.draw(_steps), fresh)
    before.append(world.moment()[1])
    run(world, draw.draw(_steps), fresh)
    first = draw.draw(st.integers(0, 1))
    read: list[list[int]] = [[], []]
    for disk in (first, 1 - first):
        for block in range(BLOCKS):
            run(world, draw.draw(_steps), fresh)
            read[disk].append(world.disks[disk][block])
    run(world, draw.draw(_steps), fresh)
    after = [world.moment()[0]]
    run(world, draw.draw(_steps), fresh)
    after.append(world.moment()[1])
    still = before == after and all(count == 0 for count, _ in before)
    return Look(range(BLOCKS), digests(read[0]), digests(read[1]), now, now, still)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_no_interleaving_of_writes_makes_a_difference_where_stillness_decides(data: st.DataObject) -> None:
    """Also where contents come back: a block that goes to and fro between two of them."""
    world = World()
    settling = Settling(None)
    settling.suspect(range(BLOCKS))
    for number in range(6):
        settling.see(look(world, data, float(number)))
    assert not settling.diverged


@settings(max_examples=examples(50), deadline=None)
@given(st.data())
def test_no_write_that_ends_in_time_makes_a_lasting_difference(data: st.DataObject) -> None:
    """Every write brings a content of its own, and none is under way for longer than DRBD allows."""
    world, fresh = World(), [0]
    settling = Settling(10.0)
    settling.suspect(range(BLOCKS))
    now = 0.0
    for _ in range(LASTING_LOOKS + 2):
        seen = look(world, data, now, fresh)
        settling.see(Look(seen.blocks, seen.here, seen.there, now, now, still=False))
        begun = list(world.writes)
        now += data.draw(st.sampled_from([0.5, 4.0, 11.0]))
        for write in begun:  # none of those that were under way still is at the next look
            while write in world.writes:
                world.advance(world.writes.index(write))
    assert not settling.diverged


@settings(max_examples=examples(50), deadline=None)
@given(st.data(), st.sets(st.integers(0, BLOCKS - 1), min_size=1))
def test_every_planted_difference_is_found_in_a_still_moment(data: st.DataObject, planted: set[int]) -> None:
    """Others are written all the while, until there is one."""
    world = World()
    for block in planted:
        world.disks[1][block] = 77
    settling = Settling(None)
    settling.suspect(range(BLOCKS))
    for number in range(3):
        seen = look(world, data, float(number))
        settling.see(seen)
    while world.writes:
        world.advance(0)
    left = {block for block in range(BLOCKS) if world.disks[0][block] != world.disks[1][block]}
    assert left <= planted
    for number in (3, 4):
        settling.see(Look(range(BLOCKS), digests(world.disks[0]), digests(world.disks[1]), number, number, still=True))
    settling.finish()
    assert settling.diverged >= left and settling.diverged <= planted
    assert not settling.unsettled


def differing(now: float, still: bool, here: int = 1, there: int = 2) -> Look:
    return Look([5], digests([here]), digests([there]), now, now + 0.1, still)


def test_one_look_is_never_enough() -> None:
    """A controller may answer wrongly once."""
    settling = Settling(1.0)
    settling.suspect([5])
    settling.see(differing(0, still=True))
    assert settling.open == [5] and not settling.diverged
    settling.see(differing(1, still=False))
    assert settling.diverged == {5} and settling.verdict is Verdict.DIVERGED


def test_without_a_still_moment_a_difference_must_outlast_drbds_patience() -> None:
    settling = Settling(10.0)
    settling.suspect([5])
    for number in range(LASTING_LOOKS + 4):
        settling.see(differing(number * 0.5, still=False))
    assert settling.open == [5]
    settling.see(differing(10.05, still=False))
    assert settling.open == [5], "it began to be seen at 0.1"
    settling.see(differing(10.2, still=False))
    assert settling.diverged == {5}


def test_a_few_looks_far_apart_do_not_last() -> None:
    settling = Settling(10.0)
    settling.suspect([5])
    for number in range(LASTING_LOOKS - 1):
        settling.see(differing(number * 20.0, still=False))
    assert settling.open == [5]


def test_where_a_request_may_stay_for_ever_nothing_lasts() -> None:
    settling = Settling(None)
    settling.suspect([5])
    for number in range(50):
        settling.see(differing(number * 100.0, still=False))
    settling.finish()
    assert settling.unsettled == {5} and settling.verdict is Verdict.UNSETTLED


@pytest.mark.parametrize("side", ["here", "there"])
def test_a_block_that_changes_on_one_side_is_not_settled(side: str) -> None:
    """Not even in moments that are told to be still: something wrote that DRBD did not count."""
    settling = Settling(1.0)
    settling.suspect([5])
    for number in range(20):
        settling.see(differing(number * 2.0, number % 2 == 0, **{side: 10 + number}))
    settling.finish()
    assert settling.unsettled == {5} and not settling.diverged


def test_equal_at_any_look_is_clean() -> None:
    settling = Settling(1.0)
    settling.suspect([5])
    settling.see(differing(0, still=False))
    settling.see(differing(1, False, 3, 3))
    assert len(settling) == 0 and settling.verdict is Verdict.CLEAN


def test_a_block_that_one_side_cannot_read_twice_is_unreadable() -> None:
    settling = Settling(1.0)
    settling.suspect([5, 6])
    lost = Look([5, 6], digests([1, 1]), digests([1, 2]), 0, 0, True, lost_there=frozenset({5}))
    settling.see(lost)
    assert settling.open == [5, 6]
    settling.see(lost)
    assert settling.unreadable_there == {5} and not settling.unreadable_here and settling.diverged == {6}
    assert settling.verdict is Verdict.DIVERGED


def test_a_block_that_can_be_read_again_is_looked_at_like_any_other() -> None:
    settling = Settling(1.0)
    settling.suspect([5])
    settling.see(Look([5], digests([0]), digests([2]), 0, 0, True, lost_here=frozenset({5})))
    settling.see(differing(1, True))
    settling.see(Look([5], digests([0]), digests([2]), 2, 2, True, lost_here=frozenset({5})))
    assert settling.open == [5]
    settling.see(differing(3, True, 2, 2))
    assert settling.verdict is Verdict.CLEAN


def test_what_nobody_suspected_gets_no_verdict() -> None:
    settling = Settling(1.0)
    for number in range(3):
        settling.see(differing(number, still=True))
    settling.finish()
    assert settling.verdict is Verdict.CLEAN


@pytest.mark.parametrize("patience", [None, 0.5, 5.0, 47.5, 600.0])
def test_the_looks_of_a_plan_are_enough_for_a_lasting_difference(patience: float | None) -> None:
    settling = Settling(patience)
    settling.suspect([5])
    now = 0.0
    settling.see(differing(now, still=False))
    for pause in pauses(patience):
        now += pause + 0.1
        settling.see(differing(now, still=False))
    assert (settling.diverged == {5}) == (patience is not None)
    assert now < (patience or 0) + 20
