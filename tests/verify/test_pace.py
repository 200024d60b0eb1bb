"""How fast it reads: the rate that was asked for, and slower while the guests' writes suffer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

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


def test_slow_writes_of_guests_on_either_node_slow_it_down_and_quick_ones_let_it_go() -> None:
    pace = Pace(bound=50.0)
    state = STATE
    for node in ("a", "b"):
        pace.see(node, state)
    for _ in range(10):
        state = replace(state, writes=(state.writes or 0) + 10, write_ms=(state.write_ms or 0) + 1000)
        pace.see("b", state)
    assert pace.factor == 16 and pace.after(0.1) == 1.5 and pace.after(60) == 5
    for _ in range(20):
        state = replace(state, writes=(state.writes or 0) + 10, write_ms=(state.write_ms or 0) + 100)
        pace.see("b", state)
    assert pace.factor == 1


def test_few_writes_and_numbers_that_began_anew_tell_nothing() -> None:
    pace = Pace(bound=50.0)
    for state in (
        STATE,
        replace(STATE, writes=101, write_ms=9000),
        NodeState(),
        STATE,
        NodeState(writes=5, write_ms=1),
    ):
        pace.see("a", state)
    assert pace.factor == 1


def test_whoever_does_not_mind_is_not_slowed_down() -> None:
    pace = Pace(bound=None)
    pace.see("a", STATE)
    pace.see("a", replace(STATE, writes=200, write_ms=1 << 30))
    assert pace.factor == 1
