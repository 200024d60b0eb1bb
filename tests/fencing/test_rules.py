"""Each of the six rules by itself, at its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.fencing import constants as seconds
from pvedrbdstor.fencing.core import Asked, Core
from pvedrbdstor.fencing.rules import Answer, Gap, Mirror, Outage, Quorum, Ring, decide

BOTH, ALONE = frozenset({1, 2}), frozenset({1})
FROZEN = Mirror("Primary", "WFConnection", "UpToDate", "DUnknown", suspended=True)
WHOLE = Mirror("Primary", "Connected", "UpToDate", "UpToDate", suspended=False)
STANDALONE = replace(FROZEN, connection="StandAlone")
BEGAN = 100.0


def quorum(*rings: Ring, now: float, gaps: tuple[Gap, ...] = (), unfit: str | None = None) -> Quorum:
    """Followed since long ago, and just confirmed."""
    return Quorum((Ring(0.0, True, 8, BOTH), *rings), gaps, now, rings[-1].quorate if rings else True, unfit)


def answer(now: float, view: Quorum, mirror: Mirror = FROZEN, me: int = 1, **outage: object) -> Answer:
    values = {"began": BEGAN, **outage}
    return decide(now, me, 3 - me, mirror, Outage(**values), view).answer  # type: ignore[arg-type]


def alone(at: float, seq: int = 12, quorate: bool = True) -> Ring:
    return Ring(at, quorate, seq, ALONE)


def test_a_promotion_is_never_decided_by_quorum() -> None:
    secondary = replace(FROZEN, role="Secondary", disk="Consistent")
    assert answer(200, quorum(alone(101), now=200), secondary) is Answer.REFUSE


def test_a_connection_that_is_back_needs_no_answer() -> None:
    assert answer(200, quorum(alone(101), now=200), WHOLE) is Answer.REFUSE


@pytest.mark.parametrize("state", ["SyncSource", "SyncTarget", "WFBitMapS", "VerifyS", "PausedSyncT", "Ahead"])
def test_every_state_after_the_handshake_is_a_connection(state: str) -> None:
    assert replace(FROZEN, connection=state).connected


def test_a_win_needs_the_hold_and_a_stable_vote() -> None:
    vote = alone(99)
    early, held = BEGAN + seconds.HOLD_SECONDS - 0.1, BEGAN + seconds.HOLD_SECONDS
    assert answer(early, quorum(vote, now=early)) is Answer.WAIT
    assert answer(held, quorum(vote, now=held)) is Answer.WIN
    late = alone(BEGAN + 20)
    unstable, stable = late.at + seconds.STABLE_SECONDS - 0.1, late.at + seconds.STABLE_SECONDS
    assert answer(unstable, quorum(late, now=unstable)) is Answer.WAIT
    assert answer(stable, quorum(late, now=stable)) is Answer.WIN


def test_a_win_needs_corosyncs_word_that_the_vote_still_stands() -> None:
    assert answer(110, replace(quorum(alone(102), now=110), confirmed_at=107.9)) is Answer.WAIT
    assert answer(110, replace(quorum(alone(102), now=110), confirmed_at=None)) is Answer.WAIT
    assert answer(110, replace(quorum(alone(102), now=110), confirmed=False)) is Answer.WAIT


@pytest.mark.parametrize("at", [BEGAN - seconds.LOOKBACK_SECONDS + 0.1, BEGAN - 1, BEGAN + 1])
def test_a_vote_lost_in_the_outage_or_shortly_before_never_wins(at: float) -> None:
    view = quorum(alone(at - 0.1, quorate=False), alone(at), now=200)
    assert answer(200, view) is Answer.WAIT


def test_a_vote_lost_long_before_does_not_matter() -> None:
    view = quorum(alone(50, quorate=False), alone(60), now=110)
    assert answer(110, view) is Answer.WIN


def test_a_gap_in_what_was_seen_never_wins() -> None:
    assert answer(110, quorum(alone(102), now=110, gaps=(Gap(101, "a pause"),))) is Answer.WAIT
    assert answer(110, quorum(alone(102), now=110, gaps=(Gap(BEGAN - 31, "a pause"),))) is Answer.WIN


def test_a_ring_number_that_was_skipped_between_two_rings_with_the_other_node_never_wins() -> None:
    left_out = Quorum((Ring(0.0, True, 8, BOTH), Ring(90, True, 16, BOTH), alone(102, 20)), (), 110, True)
    assert answer(110, left_out) is Answer.WAIT


def test_a_ring_that_was_given_up_while_it_formed_costs_the_survivor_nothing() -> None:
    assert answer(110, quorum(alone(102, seq=16), now=110)) is Answer.WIN


def test_the_other_nodes_return_may_skip_numbers() -> None:
    view = Quorum((Ring(0.0, True, 8, ALONE), Ring(80, True, 17, BOTH), alone(102, 21)), (), 110, True)
    assert answer(110, view) is Answer.WIN


def test_a_third_node_that_joins_may_come_from_the_other_side() -> None:
    three = frozenset({1, 2, 3})
    stayed = Quorum((Ring(0, True, 8, three), Ring(102, True, 12, frozenset({1, 3}))), (), 110, True)
    assert answer(110, stayed) is Answer.WIN
    rings = (Ring(0, True, 8, three), Ring(99, True, 12, ALONE), Ring(102, True, 16, frozenset({1, 3})))
    assert answer(110, Quorum(rings, (), 110, True)) is Answer.WAIT


@pytest.mark.parametrize("disk", ["Consistent", "Inconsistent", "Outdated", "Diskless", "Failed"])
def test_a_node_without_the_data_never_wins(disk: str) -> None:
    assert answer(110, quorum(alone(102), now=110), replace(FROZEN, disk=disk)) is Answer.WAIT


def test_a_quorum_that_is_no_judge_decides_nothing() -> None:
    assert answer(130, quorum(alone(102), now=130, unfit="two_node is set")) is Answer.WAIT
    assert answer(130, quorum(now=130, unfit="two_node is set"), me=2) is Answer.WAIT
    assert answer(110, quorum(alone(102), now=110, unfit="two_node is set"), won=True) is Answer.WAIT


def test_the_higher_id_gives_way_when_both_are_in_one_membership() -> None:
    late = BEGAN + seconds.TIE_BREAK_SECONDS
    assert answer(late - 0.1, quorum(now=late - 0.1), me=2) is Answer.WAIT
    assert answer(late, quorum(now=late), me=2) is Answer.GIVE_WAY
    assert answer(late, quorum(now=late), me=1) is Answer.WAIT
    assert answer(late, replace(quorum(now=late), confirmed_at=late - 3), me=2) is Answer.WAIT


def test_a_node_that_lost_gives_way_before_the_tie_is_broken() -> None:
    gap = (Gap(101, "a pause"),)
    late = BEGAN + seconds.LEAVE_SECONDS + seconds.STILL_HERE_SECONDS
    assert answer(late - 0.1, quorum(now=late - 0.1, gaps=gap)) is Answer.WAIT
    assert answer(late, quorum(now=late, gaps=gap)) is Answer.GIVE_WAY
    assert answer(late, replace(quorum(now=late, gaps=gap), confirmed_at=late - 3)) is Answer.WAIT
    away, back = alone(105, quorate=False), Ring(110, True, 16, BOTH)
    late = back.at + seconds.GIVE_WAY_SECONDS
    assert answer(late - 0.1, quorum(away, back, now=late - 0.1, gaps=gap)) is Answer.WAIT
    assert answer(late, quorum(away, back, now=late, gaps=gap)) is Answer.GIVE_WAY
    refused = BEGAN + seconds.STANDALONE_SECONDS
    assert answer(refused, quorum(now=refused, gaps=gap), STANDALONE, standalone_since=BEGAN) is Answer.GIVE_WAY
    assert answer(refused, quorum(alone(99), now=refused, gaps=gap), STANDALONE, standalone_since=BEGAN) is Answer.WAIT


def test_the_winner_goes_on_again_and_never_gives_way() -> None:
    assert answer(130, quorum(alone(102), now=130), won=True) is Answer.GO_ON
    assert answer(130, quorum(now=130), won=True, me=2) is Answer.GO_ON
    gap = (Gap(101, "a pause"),)
    assert answer(130, replace(quorum(now=130, gaps=gap), confirmed=False), won=True, me=2) is Answer.WAIT


def test_the_winner_goes_on_however_long_the_outage_lasts() -> None:
    assert answer(BEGAN + 90000, quorum(alone(102), now=BEGAN + 90000), won=True) is Answer.GO_ON


def test_what_quorum_said_while_it_was_no_judge_is_worth_nothing_afterwards() -> None:
    guard = core()
    watch(guard, 0, 50, WHOLE)
    guard.judged(50, "expected votes were lowered")
    guard.ring(alone(56))
    watch(guard, 50, 65, FROZEN)
    guard.judged(65, "expected votes were lowered")
    guard.judged(65.1, None)
    assert guard.decide(65.2, Asked("r0", 2), FROZEN).answer is Answer.WAIT


def core(now: float = 0.0) -> Core:
    made = Core(now, 1)
    made.ring(Ring(now, True, 8, BOTH))
    return made


def watch(guard: Core, start: float, end: float, mirror: Mirror) -> None:
    """Look ten times a second, corosync running and answering."""
    now = start
    while now < end:
        guard.corosync_ran(now)
        guard.confirmed(now, True)
        guard.look(now, {"r0": mirror})
        now += 0.1


def test_an_outage_lasts_until_both_copies_are_one_again() -> None:
    guard = core()
    watch(guard, 0, 50, WHOLE)
    guard.ring(alone(51))
    watch(guard, 50, 58, FROZEN)
    assert guard.decide(58, Asked("r0", 2), FROZEN).answer is Answer.WIN
    guard.win(["r0"])
    resync = Mirror("Primary", "SyncSource", "UpToDate", "Inconsistent", suspended=False)
    watch(guard, 58, 70, resync)
    assert guard.outages["r0"].won
    watch(guard, 70, 71, WHOLE)
    assert "r0" not in guard.outages


def test_a_guard_that_did_not_look_forgets_that_it_has_won() -> None:
    guard = core()
    guard.outages["r0"] = Outage(began=0.0, won=True)
    guard.look(seconds.PAUSE_SECONDS, {"r0": FROZEN})
    assert guard.outages["r0"].won
    guard.look(11, {"r0": FROZEN})
    assert not guard.outages["r0"].won
    guard.confirmed(11, True)
    assert guard.decide(11, Asked("r0", 2), FROZEN).answer not in (Answer.GO_ON, Answer.WIN)


def test_a_guard_that_has_just_begun_wins_nothing() -> None:
    guard = core(100)
    watch(guard, 100, 102, FROZEN)
    guard.ring(alone(102))
    watch(guard, 102, 125, FROZEN)
    assert guard.decide(125, Asked("r0", 2), FROZEN).answer is Answer.WAIT


def test_a_stopped_corosync_is_a_gap_for_as_long_as_it_sleeps() -> None:
    guard = core()
    watch(guard, 0, 50, WHOLE)
    for tenth in range(500, 900):
        guard.look(tenth / 10, {"r0": WHOLE})
        if tenth != 10 * (50 + seconds.PAUSE_SECONDS):
            assert (guard.handicap(tenth / 10) is not None) == (tenth / 10 > 50 + seconds.PAUSE_SECONDS)
    (asleep,) = guard.quorum.gaps
    assert asleep.at == pytest.approx(89.9)
    guard.corosync_ran(90)
    assert [gap.at for gap in guard.quorum.gaps] == [90]


def test_a_corosync_that_does_not_answer_is_a_handicap() -> None:
    guard = core()
    watch(guard, 0, 50, WHOLE)
    for tenth in range(500, 1000):
        guard.look(tenth / 10, {"r0": WHOLE})
        guard.corosync_ran(tenth / 10)
    assert guard.handicap(90) is None
    assert guard.handicap(96) == "corosync does not answer for 46 s"


def test_what_is_remembered_stays_bounded() -> None:
    guard = core()
    for number in range(3000):
        guard.ring(Ring(number / 1000, True, 12 + 4 * number, BOTH))
    assert len(guard.quorum.rings) < 2100
    watch(guard, 3, 60, WHOLE)
    assert len(guard.quorum.rings) == 1
    assert guard.quorum.gaps == ()
