"""How fast it reads: the rate that was asked for, and slower while the guests' writes suffer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.verify.copy import open_writes
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.state import NodeState


@given(st.lists(st.tuples(st.integers(1, 1 << 25), st.floats(0, 0.5)), min_size=1, max_size=50))
def test_no_more_is_read_than_the_rate_allows(slices: list[tuple[int, float]]) -> None:
    pace, now, done = Pace(rate=10e6), 100.0, 0
    for length, spent in slices:
        now += pace.before(length, now)
        done += length
        assert done - length <= (now - 100.0) * 10e6 + 1
        now += spent


def test_without_a_rate_nothing_is_waited_for() -> None:
    assert Pace().before(1 << 40, 5.0) == 0 and Pace().after(3.0) == 0


STATE = NodeState(writes=100, write_ms=1000)


@dataclass
class Node:
    """A node as its counters show it. writes: that guests end in a second, evenly. each: how many ms one takes."""

    writes: float
    each: float = 5.0
    hung: bool = False
    done: float = 0.0

    def go_on(self, seconds: float) -> NodeState:
        self.done += 0 if self.hung else seconds * self.writes
        count = int(self.done + 1e-9)
        under_way = 3 if self.hung else int(self.done + self.writes * self.each / 1000) - count
        return NodeState(writes=1000 + count, write_ms=int(9000 + count * self.each), open_writes=under_way)


def read_along(pace: Pace, nodes: dict[str, Node], slice_seconds: float, seconds: float, now: float = 50.0) -> float:
    """Read slices that take so long each for so many seconds, with the rests that the pace wants; the time after it."""
    end = now + seconds
    while now < end:
        step = slice_seconds + pace.after(slice_seconds)
        now += step
        for name, node in nodes.items():
            pace.see(name, node.go_on(step), now)
    return now


SLICES = pytest.mark.parametrize("slice_seconds", [0.005, 0.064])


@SLICES
@pytest.mark.parametrize("each", [150.0, 400.0])
@pytest.mark.parametrize("writes", [20.0, 2.5])
def test_slow_writes_slow_it_down_however_few_they_are(slice_seconds: float, each: float, writes: float) -> None:
    """No slice sees more than one of them end. The other node's guests write much, and quickly."""
    pace, slow, quick = Pace(), Node(writes, each), Node(3000.0, 1.0)
    now = read_along(pace, {"a": slow, "b": quick}, slice_seconds, 10)
    assert pace.factor == 16
    slow.each = 5.0
    read_along(pace, {"a": slow, "b": quick}, slice_seconds, 30, now)
    assert pace.factor == 1


@SLICES
def test_writes_that_hang_slow_it_down_until_they_end(slice_seconds: float) -> None:
    pace, node = Pace(), Node(100.0)
    now = read_along(pace, {"a": node}, slice_seconds, 3)
    assert pace.factor == 1
    node.hung = True
    now = read_along(pace, {"a": node}, slice_seconds, 2.5, now)
    assert pace.factor > 1
    now = read_along(pace, {"a": node}, slice_seconds, 20, now)
    assert pace.factor == 16
    node.hung = False
    read_along(pace, {"a": node}, slice_seconds, 20, now)
    assert pace.factor == 1


@SLICES
@pytest.mark.parametrize("writes", [0.0, 0.5, 1000.0])
def test_an_idle_disk_and_a_quick_one_are_read_at_full_speed(slice_seconds: float, writes: float) -> None:
    """0.5: the heartbeat's, one in two seconds."""
    pace, now = Pace(), 50.0
    nodes = {"a": Node(writes), "b": Node(0.0)}
    for _ in range(50):
        now = read_along(pace, nodes, slice_seconds, 0.2, now)
        assert pace.factor == 1


def test_writes_that_are_open_by_chance_whenever_it_looks_do_not_hang() -> None:
    pace, state, now = Pace(), replace(STATE, open_writes=2), 0.0
    for _ in range(200):
        now += 0.3
        state = replace(state, writes=(state.writes or 0) + 1, write_ms=(state.write_ms or 0) + 10)
        pace.see("a", state, now)
        assert pace.factor == 1


def test_the_rest_after_a_slice_goes_by_the_factor() -> None:
    pace = Pace(factor=16.0)
    assert pace.after(0.1) == 1.5 and pace.after(60) == 5


def test_numbers_that_are_missing_or_began_anew_tell_nothing() -> None:
    pace = Pace(bound=50.0)
    for number, state in enumerate(
        (STATE, NodeState(), replace(STATE, write_ms=90_000), NodeState(writes=5, write_ms=80_000), NodeState(writes=9))
    ):
        pace.see("a", state, number * 10.0)
        assert pace.factor == 1


def test_whoever_does_not_mind_is_not_slowed_down() -> None:
    pace = Pace(bound=None)
    pace.see("a", STATE, 0.0)
    pace.see("a", replace(STATE, writes=200, write_ms=1 << 30), 10.0)
    assert pace.factor == 1


@pytest.mark.parametrize(
    ("text", "count"), [("       4       17\n", 17), ("0 0", 0), ("", None), ("7", None), ("a b", None)]
)
def test_open_writes_are_told_from_our_own_reads(text: str, count: int | None) -> None:
    assert open_writes(text) == count
