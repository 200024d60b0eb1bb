"""The plan: nothing is discarded before it was preserved, every crash can be gone on from, guests stop it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.errors import SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split.execute import resolve
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Action, Done, Refusal, Situation, next_step
from pvedrbdstor.fencing.split.steps import DESTRUCTIVE, Preserve, Step

JOURNAL = Journal("ha", "pve1", "pve2", 0.0, Preserve.FILES, "/aside/ha-split")
APART = Situation(
    boot="boot-1", mounted=True, role="Primary", disk="UpToDate", connection="StandAlone", replication="Off"
)


class Crash(BaseException):
    """The process dies here."""


@dataclass
class World:
    """The side to lose, as DRBD and the kernel would behave; crashes are drawn at each step, before or after its effect.

    data: what this side's copy is: "mine" until the resync has begun, "mixed" during it, "theirs" after it.
    """

    how: Preserve
    crashes: Iterator[str]
    auto_reconnect: bool
    now: Situation = APART
    data: str = "mine"
    preserved: str | None = None
    frozen: str | None = None
    discarding: bool = False
    keeper_waits: bool = False
    stored: Journal = JOURNAL
    boots: int = 1
    taken: list[Step] = field(default_factory=list)
    time: float = 0.0

    def look(self, journal: Journal) -> Situation:
        return replace(self.now, preserved=self.preserved is not None)

    def save(self, journal: Journal) -> None:
        self.stored = journal
        self._maybe("save")

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def wait(self, step: Step, journal: Journal, now: Situation) -> None:
        self._maybe(step.name)
        if step is Step.KEEPER:
            self.keeper_waits = True
            self._meet()
        else:
            self.data = "theirs"
            self.now = replace(self.now, replication="Established", disk="UpToDate", peer_disk="UpToDate")

    def act(self, step: Step, journal: Journal) -> Journal:
        self._maybe(step.name)
        self.taken.append(step)
        changed = self._effect(step, journal)
        self._maybe(step.name)
        return changed

    def _effect(self, step: Step, journal: Journal) -> Journal:
        now = self.now
        match step:
            case Step.DRBD_UP:
                self.now = replace(now, disk=self._disk(), role="Secondary", connection="Connecting", replication="Off")
            case Step.DISCONNECT:
                self.now, self.discarding = replace(now, connection="StandAlone"), False
            case Step.QUIESCE:
                self.now = replace(now, read_only=True)
            case Step.COPY:
                assert now.mounted and now.read_only
                self.preserved = self.data
            case Step.DOWN:
                self.now = replace(now, mounted=False, read_only=False, role="Secondary")
            case Step.SNAPSHOT | Step.IMAGE:
                assert not now.mounted and now.role == "Secondary"
                self.preserved = self.data
                return replace(journal, preserve=Preserve.SNAPSHOT if step is Step.SNAPSHOT else Preserve.DEVICE)
            case Step.CHECK:
                assert self.preserved == "mine"
            case Step.DISCARD:
                assert now.connection == "StandAlone" and now.role == "Secondary" and not now.mounted
                self.discarding = True
                self.now = replace(now, connection="Connecting")
                self._meet()
                return replace(journal, discarded_boot=now.boot)
            case Step.CONNECT:
                self.now = replace(now, connection="Connecting")
                self._meet()
            case Step.UP:
                assert self.data == "theirs"
                self.now = replace(now, mounted=True, role="Primary")
            case _:
                assert step is Step.COMPARE and self.data == "theirs"
        return journal

    def _disk(self) -> str:
        return "Inconsistent" if self.data == "mixed" else "UpToDate"

    def _meet(self) -> None:
        """Both connect: without anybody's word a split brain is found, and this side gives up."""
        if not self.keeper_waits:
            return
        if self.discarding or self.data != "mine":
            if self.data == "mine":
                assert self.preserved == "mine", "discarded what was not preserved"
                self.data = "mixed"
            disk = "UpToDate" if self.data == "theirs" else "Inconsistent"
            replication = "Established" if self.data == "theirs" else "SyncTarget"
            self.now = replace(
                self.now, connection="Connected", replication=replication, disk=disk, peer_disk="UpToDate"
            )
            self.discarding = False
        else:
            self.now = replace(self.now, connection="StandAlone", replication="Off")
            self.keeper_waits = False  # it has given up as well

    def _maybe(self, _where: str) -> None:
        match next(self.crashes, None):
            case "kill":
                raise Crash
            case "reboot":
                self.boots += 1
                self.discarding = False
                self.now = Situation(boot=f"boot-{self.boots}")
                if self.auto_reconnect:  # the node's own boot brings DRBD up, which meets the keeper if that waits
                    self.now = replace(
                        self.now, disk=self._disk(), role="Secondary", connection="Connecting", replication="Off"
                    )
                    self._meet()
                raise Crash

    def run(self) -> None:
        """As an administrator does: the same command again after each crash."""
        for _ in range(60):
            try:
                resolve(self.stored, self)
                return
            except Crash:
                continue
        raise AssertionError(f"never done: {self.taken}")


_crashes = st.lists(st.sampled_from([None, None, None, "kill", "reboot"]), max_size=40)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(Preserve)), _crashes, st.booleans(), st.booleans())
def test_whatever_crashes_it_ends_with_one_copy_and_the_other_preserved(
    how: Preserve, crashes: list[str | None], auto_reconnect: bool, mounted: bool
) -> None:
    journal = replace(JOURNAL, preserve=how)
    now = APART if mounted else replace(APART, mounted=False, role="Secondary")
    world = World(how, iter(crashes), auto_reconnect, now=now, stored=journal)  # type: ignore[arg-type]
    world.run()
    assert world.data == "theirs" and world.preserved == "mine" and world.now.mounted
    assert next_step(world.stored, world.look(world.stored)) == Done()


def test_the_steps_of_an_undisturbed_resolution() -> None:
    world = World(Preserve.FILES, iter(()), True, keeper_waits=False)
    world.run()
    assert world.taken == [
        *(Step.QUIESCE, Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD, Step.COMPARE, Step.UP),
    ]
    snapshot = World(Preserve.SNAPSHOT, iter(()), True, stored=replace(JOURNAL, preserve=Preserve.SNAPSHOT))
    snapshot.run()
    assert snapshot.taken[:3] == [Step.DOWN, Step.SNAPSHOT, Step.CHECK]


_situations = st.builds(
    Situation,
    boot=st.sampled_from(["one", "two"]),
    mounted=st.booleans(),
    read_only=st.booleans(),
    role=st.sampled_from(["Primary", "Secondary", None]),
    disk=st.sampled_from(["UpToDate", "Consistent", "Outdated", "Inconsistent", "Diskless", None]),
    connection=st.sampled_from(["StandAlone", "Connecting", "Unconnected", "Connected", None]),
    replication=st.sampled_from(["Off", "Established", "SyncTarget", "SyncSource", "PausedSyncT", "VerifyS", None]),
    peer_disk=st.sampled_from(["UpToDate", "Inconsistent", "DUnknown", None]),
    users=st.sampled_from([(), ("VM 100",)]),
    preserved=st.booleans(),
    tries=st.integers(0, 4),
)
_journals = st.builds(
    lambda how, done, doing, boot: replace(JOURNAL, preserve=how, done=done, doing=doing, discarded_boot=boot),
    st.sampled_from(list(Preserve)),
    st.frozensets(st.sampled_from(list(Step))),
    st.sampled_from([None, *Step]),
    st.sampled_from([None, "one"]),
)


@settings(max_examples=2000, deadline=None)
@given(_journals, _situations)
def test_in_no_state_is_anything_discarded_that_is_not_preserved(journal: Journal, now: Situation) -> None:
    answer = next_step(journal, now)
    if isinstance(answer, Action) and answer.step in DESTRUCTIVE:
        assert Step.CHECK in journal.done and now.preserved
        assert not now.mounted or now.disk == "Inconsistent"


@settings(max_examples=1000, deadline=None)
@given(_journals, _situations)
def test_nothing_is_unmounted_preserved_or_discarded_while_guests_run(journal: Journal, now: Situation) -> None:
    answer = next_step(journal, replace(now, users=("VM 100",), connection="StandAlone", disk="UpToDate"))
    if isinstance(answer, Action):
        assert answer.step is Step.UP
    elif isinstance(answer, Refusal) and now.preserved and Step.COMPARE not in journal.done:
        assert "VM 100" in answer.cause and "pve2" in answer.cause


@pytest.mark.parametrize("step", [Step.QUIESCE, Step.COPY, Step.DOWN])
def test_a_guest_that_is_started_meanwhile_stops_it(step: Step) -> None:
    world = World(Preserve.FILES, iter(()), True)
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
    journal = replace(JOURNAL, done=frozenset({Step.COPY, Step.DOWN, Step.CHECK}))
    answer = next_step(journal, replace(APART, mounted=False, role="Secondary", preserved=False))
    assert isinstance(answer, Refusal) and "not there any more" in answer.cause


def test_the_wrong_direction_is_told() -> None:
    journal = replace(JOURNAL, done=frozenset({Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD}))
    answer = next_step(journal, replace(APART, mounted=False, connection="Connected", replication="SyncSource"))
    assert isinstance(answer, Refusal) and "not the other way" in answer.cause


def test_drbd_that_gives_up_again_and_again_is_told() -> None:
    journal = replace(JOURNAL, done=frozenset({Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD}))
    answer = next_step(journal, replace(APART, mounted=False, role="Secondary", tries=3))
    assert isinstance(answer, Refusal) and "3 times" in answer.cause


def test_a_keeper_that_never_comes_ends_with_the_command_for_it() -> None:
    world = World(Preserve.FILES, iter(()), True)
    world._meet = lambda: None  # type: ignore[method-assign]
    with pytest.raises(SplitStepFailed, match="split-brain resolve ha --keep pve1"):
        resolve(world.stored, world)
    assert world.data == "mine" and world.preserved == "mine"
