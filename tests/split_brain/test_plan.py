"""The plan: nothing is discarded before it was preserved as it is, every crash can be gone on from, guests stop it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.errors import SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split.execute import resolve
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Action, Done, Refusal, Situation, next_step, takes_all
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.steps import PRESERVING, Preserve, Step
from tests.examples import examples
from tests.split_brain.world import APART, JOURNAL, MINE, THEIRS, World

SEALED = replace(JOURNAL, seal=Seal("boot-1", 1, 0, 0))
PRESERVED = replace(SEALED, done=frozenset({Step.COPY, Step.DOWN, Step.CHECK}))
MOUNTED = replace(APART, current=MINE, bitmap=JOURNAL.bitmap)
QUIET = replace(MOUNTED, mounted=False, role="Secondary", sealed=True)

EVENTS = ("kill", "reboot", "intrude", "meddle", "unplug")
_events = st.lists(st.sampled_from([None, None, None, None, *EVENTS, "fail", "connect"]), max_size=50)


def ends_well(world: World) -> None:
    try:
        world.run()
        assert next_step(world.stored, world.look(world.stored)) == Done()
    except SplitRefused as refused:  # all was done, and then the nodes parted again before the record was put away
        assert "had come to its end" in refused.message and Step.COMPARE in world.stored.done
    assert world.data == "theirs"
    assert world.lost is not None and world.preserved[world.stored.target] == world.lost


@settings(max_examples=examples(1500), deadline=None)
@given(st.sampled_from(list(Preserve)), _events, *[st.booleans()] * 5)
def test_whatever_crashes_and_whoever_writes_meanwhile_all_that_is_discarded_was_preserved(
    how: Preserve,
    events: list[str | None],
    auto_reconnect: bool,
    nine: bool,
    mounted: bool,
    evidence: bool,
    asked: bool,
) -> None:
    now = APART if mounted else replace(APART, mounted=False, mount=None, role="Secondary")
    stored = replace(JOURNAL, preserve=how, keeper=JOURNAL.keeper if asked else None)
    ends_well(World(iter(events), auto_reconnect, nine, now=now, stored=stored, evidence=evidence))


@pytest.mark.parametrize("auto_reconnect", [True, False])
@pytest.mark.parametrize("how", list(Preserve))
def test_any_event_at_any_place_and_any_second_one_after_it(how: Preserve, auto_reconnect: bool) -> None:
    """All of them, as what is drawn at random seldom comes as far as the resync."""
    stored = replace(JOURNAL, preserve=how)
    for first, second in itertools.product(range(34), range(18)):
        for one, other in itertools.product(EVENTS, repeat=2):
            ends_well(World(iter([*[None] * first, one, *[None] * second, other]), auto_reconnect, stored=stored))


@settings(max_examples=examples(1500), deadline=None)
@given(
    st.sampled_from(list(Preserve)),
    st.frozensets(st.sampled_from(sorted(PRESERVING | {Step.DOWN, Step.DISCARD, Step.RESYNC}, key=str))),
    st.sampled_from([MINE, MINE + 2]),
    st.booleans(),
    st.booleans(),
    _events,
)
def test_the_record_of_an_earlier_split_brain_discards_nothing(
    how: Preserve, done: frozenset[Step], current: int, there: bool, told: bool, events: list[str | None]
) -> None:
    """Its copies may even still be there; of an earlier copy, or of this one before it was written again."""
    old = replace(JOURNAL, preserve=how, done=done, current=current, bitmap=8, told=told)
    old = replace(old, seal=Seal("boot-1", 1, 7, 7))
    world = World(iter(events), True, stored=old, written=9)
    if there:
        world.preserved[old.target] = "mine 7"
    with pytest.raises(SplitRefused, match="--abandon"):
        world.run()
    assert world.data == "mine" and Step.DISCARD not in world.taken


def test_an_order_to_discard_what_was_written_anew_is_taken_back_before_that_is_preserved() -> None:
    """DRBD 9 keeps it over a disconnect: whoever had the nodes connect would lose what nobody has preserved."""
    world = World(iter(()), True, nine=True)
    world.keeper_comes = False
    with pytest.raises(SplitStepFailed):
        resolve(world.stored, world)
    assert world.discarding and world.stored.told
    world.counted += 1  # past the order: nobody has promoted it
    world.written += 1
    world.taken.clear()
    world.keeper_comes = True
    seen: list[bool] = []
    act = world.act
    world.act = lambda step, journal: (seen.append(world.discarding), act(step, journal))[1]  # type: ignore[method-assign]
    world.run()
    preserving = world.taken.index(Step.IMAGE)
    assert not seen[preserving] and world.preserved[world.stored.target] == world.lost


def test_each_step_is_on_the_disk_before_it_is_taken() -> None:
    world = World(iter(()), True)
    act = world.act

    def look_at_the_record(step: Step, journal: Journal) -> Journal:
        assert world.stored.doing is step and world.stored == journal
        assert step is not Step.DISCARD or world.stored.told
        return act(step, journal)

    world.act = look_at_the_record  # type: ignore[method-assign]
    world.run()


@pytest.mark.parametrize("change", [{"mounted": True}, {"role": "Primary"}])
def test_a_copy_in_use_is_not_taken_for_one_that_is_being_overwritten(change: dict[str, object]) -> None:
    told = replace(PRESERVED, told=True)
    now = replace(QUIET, current=0x77, disk="Inconsistent")
    assert next_step(told, now) == Action(Step.CONNECT)
    answer = next_step(told, replace(now, **change))  # type: ignore[arg-type]
    assert isinstance(answer, Refusal) and "not the one" in answer.cause


def test_files_that_cannot_be_reached_any_more_are_known_before_anybody_is_asked_to_go_on() -> None:
    assert takes_all(JOURNAL, QUIET) and not takes_all(JOURNAL, MOUNTED)
    assert takes_all(replace(JOURNAL, done=frozenset({Step.COPY})), QUIET)
    assert not takes_all(replace(SEALED, done=frozenset({Step.COPY})), QUIET)
    assert not takes_all(PRESERVED, QUIET) and not takes_all(replace(JOURNAL, preserve=Preserve.SNAPSHOT), QUIET)


def test_the_steps_of_an_undisturbed_resolution() -> None:
    world = World(iter(()), True)
    world.run()
    assert world.taken == [Step.QUIESCE, Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD, Step.COMPARE]
    snapshot = World(iter(()), True, stored=replace(JOURNAL, preserve=Preserve.SNAPSHOT))
    snapshot.run()
    assert snapshot.taken[:4] == [Step.DOWN, Step.SEAL, Step.SNAPSHOT, Step.CHECK]


def test_after_a_reboot_what_was_preserved_is_compared_and_not_taken_on_trust() -> None:
    world = World(iter(()), False, stored=replace(JOURNAL, preserve=Preserve.SNAPSHOT))
    world.keeper_comes = False
    with pytest.raises(SplitStepFailed):
        resolve(world.stored, world)
    world.reboot()
    world.keeper_comes = True
    world.taken.clear()
    world.run()
    assert world.taken == [Step.DRBD_UP, Step.DISCONNECT, Step.RECHECK, Step.DISCARD, Step.COMPARE]


def test_what_was_written_after_preserving_is_preserved_as_well() -> None:
    world = World(iter(()), True)
    world.keeper_comes = False
    with pytest.raises(SplitStepFailed):
        resolve(world.stored, world)
    first = world.stored.target
    world.intrude()
    world.keeper_comes = True
    world.run()
    assert world.stored.target != first and world.stored.given_up == (first,)
    assert world.preserved[world.stored.target] == world.lost == "mine 1"
    assert world.preserved[first] == "mine 0"


_situations = st.builds(
    Situation,
    mounted=st.booleans(),
    read_only=st.booleans(),
    role=st.sampled_from(["Primary", "Secondary", None]),
    disk=st.sampled_from(["UpToDate", "Consistent", "Outdated", "Inconsistent", "Diskless", None]),
    connection=st.sampled_from(["StandAlone", "Connecting", "Unconnected", "Connected", None]),
    replication=st.sampled_from(["Off", "Established", "SyncTarget", "SyncSource", "PausedSyncT", "VerifyS", None]),
    peer_disk=st.sampled_from(["UpToDate", "Inconsistent", "DUnknown", None]),
    users=st.sampled_from([(), ("VM 100",)]),
    preserved=st.booleans(),
    sealed=st.booleans(),
    copied=st.booleans(),
    current=st.sampled_from([MINE, THEIRS, None]),
    bitmap=st.sampled_from([0, JOURNAL.bitmap, None]),
    known=st.frozensets(st.sampled_from([MINE, THEIRS])),
    tries=st.integers(0, 4),
)
_journals = st.builds(
    lambda how, done, doing, told, keeper: replace(
        JOURNAL, preserve=how, done=done, doing=doing, told=told, keeper=keeper
    ),
    st.sampled_from(list(Preserve)),
    st.frozensets(st.sampled_from(list(Step))),
    st.sampled_from([None, *Step]),
    st.booleans(),
    st.sampled_from([THEIRS, None]),
)


@settings(max_examples=examples(2000), deadline=None)
@given(_journals, _situations)
def test_in_no_state_is_anything_discarded_that_is_not_preserved(journal: Journal, now: Situation) -> None:
    answer = next_step(journal, now)
    if answer == Action(Step.DISCARD):
        assert Step.CHECK in journal.done and now.preserved and now.sealed
        assert (now.current, now.bitmap) == (journal.current, journal.bitmap)
        assert not now.mounted and now.role == "Secondary"
    if answer == Action(Step.CONNECT):
        assert now.disk == "Inconsistent" or (journal.told and now.current != journal.current)
    if answer == Action(Step.COMPARE):
        assert (
            Step.CHECK in journal.done
            and now.current != journal.current
            and (
                journal.keeper in now.known or Step.RESYNC in journal.done or (journal.told and journal.keeper is None)
            )
        )


@settings(max_examples=examples(1000), deadline=None)
@given(_journals, _situations)
def test_nothing_is_unmounted_preserved_or_discarded_while_guests_run(journal: Journal, now: Situation) -> None:
    same = replace(now, current=journal.current, bitmap=journal.bitmap)
    answer = next_step(journal, replace(same, users=("VM 100",), connection="StandAlone", disk="UpToDate"))
    assert not isinstance(answer, Action)
    open_ = Step.COMPARE not in journal.done
    if isinstance(answer, Refusal) and open_ and (now.preserved or Step.CHECK not in journal.done):
        assert "VM 100" in answer.cause and "pve2" in answer.cause


@pytest.mark.parametrize("step", [Step.QUIESCE, Step.COPY, Step.DOWN])
def test_a_guest_that_is_started_meanwhile_stops_it(step: Step) -> None:
    world = World(iter(()), True)
    act = world.act

    def start_a_guest(taken: Step, journal: Journal) -> Journal:
        changed = act(taken, journal)
        if taken is step:
            world.now = replace(world.now, users=("VM 100",), mounted=True)
        return changed

    world.act = start_a_guest  # type: ignore[method-assign]
    with pytest.raises(SplitRefused, match="VM 100"):
        resolve(world.stored, world)
    assert world.data == "mine" and Step.DISCARD not in world.taken


def test_a_copy_that_is_gone_stops_it() -> None:
    answer = next_step(PRESERVED, replace(QUIET, preserved=False))
    assert isinstance(answer, Refusal) and "not there any more" in answer.cause


def test_files_that_were_copied_before_somebody_unmounted_are_not_trusted() -> None:
    """Who did, and what was written before that, nobody knows: the whole device is copied."""
    copied = replace(JOURNAL, done=frozenset({Step.COPY}))
    assert next_step(copied, QUIET) == Action(Step.ANEW)
    assert next_step(replace(JOURNAL, seal=SEALED.seal), QUIET) == Action(Step.IMAGE)
    assert next_step(replace(copied, seal=SEALED.seal), QUIET) == Action(Step.CHECK)
    assert next_step(copied, replace(MOUNTED, read_only=True)) == Action(Step.COPY)
    assert next_step(copied, replace(MOUNTED, read_only=True, copied=True)) == Action(Step.DOWN)


def test_the_wrong_direction_is_told() -> None:
    told = replace(PRESERVED, done=PRESERVED.done | {Step.DISCARD})
    answer = next_step(told, replace(QUIET, connection="Connected", replication="SyncSource"))
    assert isinstance(answer, Refusal) and "not the other way" in answer.cause


TOGETHER = replace(
    QUIET, connection="Connected", replication="Established", peer_disk="UpToDate", current=THEIRS, bitmap=0
)


@pytest.mark.parametrize(
    ("journal", "current", "known", "said"),
    [
        (PRESERVED, MINE, {MINE, THEIRS}, "with pve2's data, not with pve1's"),
        (PRESERVED, 0x77, {0x77}, "nothing says that it is with pve1's data"),
        (PRESERVED, None, set(), "cannot be read"),
        (JOURNAL, THEIRS, {THEIRS}, "resolved meanwhile by somebody else"),
    ],
)
def test_two_equal_copies_are_a_success_only_if_it_is_the_kept_one(
    journal: Journal, current: int | None, known: set[int], said: str
) -> None:
    answer = next_step(journal, replace(TOGETHER, current=current, known=frozenset(known)))
    assert isinstance(answer, Refusal) and said in answer.cause
    good = replace(TOGETHER, known=frozenset({THEIRS}))
    assert next_step(PRESERVED, good) == Action(Step.COMPARE)
    unknown = replace(PRESERVED, keeper=None)
    assert next_step(replace(unknown, told=True), good) == Action(Step.COMPARE)
    assert isinstance(next_step(unknown, good), Refusal)  # somebody else's doing: by whose order, nobody knows
    seen = replace(PRESERVED, done=PRESERVED.done | {Step.RESYNC})
    assert next_step(seen, replace(TOGETHER, known=frozenset({0x99}))) == Action(Step.COMPARE)


def test_a_record_that_was_not_put_away_says_nothing_of_a_later_split() -> None:
    ended = replace(PRESERVED, done=PRESERVED.done | {Step.COMPARE})
    assert next_step(ended, TOGETHER) == Done()
    for now in (QUIET, replace(TOGETHER, current=MINE), replace(TOGETHER, current=None)):
        answer = next_step(ended, now)
        assert isinstance(answer, Refusal) and "--abandon" in answer.remedy


def test_a_keeper_without_a_disk_is_told() -> None:
    answer = next_step(PRESERVED, replace(TOGETHER, disk="Outdated", peer_disk="Diskless"))
    assert isinstance(answer, Refusal) and "pve1, the node to keep, has no disk" in answer.cause


def test_a_side_that_is_written_again_and_again_is_not_preserved_for_ever() -> None:
    for journal in (SEALED, PRESERVED):
        answer = next_step(journal, replace(QUIET, sealed=False, anew=3))
        assert isinstance(answer, Refusal) and "again and again" in answer.cause


def test_drbd_that_gives_up_again_and_again_is_told() -> None:
    now = replace(QUIET, current=MINE, bitmap=JOURNAL.bitmap, tries=3)
    answer = next_step(replace(PRESERVED, done=PRESERVED.done | {Step.DISCARD}), now)
    assert isinstance(answer, Refusal) and "3 times" in answer.cause


def test_a_disk_that_has_failed_is_told() -> None:
    for journal in (JOURNAL, PRESERVED):
        answer = next_step(journal, replace(QUIET, disk="Diskless"))
        assert isinstance(answer, Refusal) and "no disk on pve2" in answer.cause


def test_a_keeper_that_never_comes_ends_with_the_command_for_it() -> None:
    world = World(iter(()), True, keeper_comes=False)
    with pytest.raises(SplitStepFailed, match="split-brain resolve ha --keep pve1"):
        resolve(world.stored, world)
    assert world.data == "mine" and world.preserved[world.stored.target] == "mine 0"


def test_a_resync_that_stands_still_is_not_waited_for_for_ever() -> None:
    world = World(iter(()), True)
    world.wait = lambda step, journal, now: World.wait(world, step, journal, now) if step is Step.KEEPER else None  # type: ignore[method-assign]
    with pytest.raises(SplitStepFailed, match="nothing was copied for 120 s"):
        resolve(world.stored, world)
