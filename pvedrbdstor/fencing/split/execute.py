"""Take the steps of the plan, one after the other, the journal written before and after each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from pvedrbdstor.errors import Error, SplitRefused, SplitStepFailed
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.fencing.split import replication
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Action, Done, Refusal, Situation, next_step
from pvedrbdstor.fencing.split.resync import STALL_SECONDS, Stall
from pvedrbdstor.fencing.split.steps import CONNECTING, Step

KEEPER_SECONDS = 600.0
"""For so long the node to keep is waited for: somebody may have to run the command there."""
_PAUSE = 0.5
_REPEATS = 5
_T = TypeVar("_T")
_WAITING = (Step.KEEPER, Step.RESYNC)


class Hands(Protocol):
    """Everything outside: replaced in tests."""

    def look(self, journal: Journal) -> Situation:
        """This node now."""

    def act(self, step: Step, journal: Journal) -> Journal:
        """Take a step; it may be taken again after a crash in it. Raises this project's errors and OSError."""

    def wait(self, step: Step, journal: Journal, now: Situation) -> None:
        """Called while a step is waited for, a few times a second."""

    def save(self, journal: Journal) -> None:
        """On the disk when it returns."""

    def clock(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float) -> None: ...


def resolve(journal: Journal, hands: Hands, report: Callable[[Step], None] = lambda _: None) -> Journal:
    """Go on until it is done. Raises SplitRefused, SplitStepFailed; whatever it raises, calling it again goes on from there."""
    run = _Run(journal, hands, report)
    while not run.advance():
        pass
    return run.journal


class _Run:
    """One run of the command: what only it knows, as the journal must not (Situation). since: when the present step was first
    taken. repeats: of the same step, one after the other. mount: the one that the files were copied from."""

    def __init__(self, journal: Journal, hands: Hands, report: Callable[[Step], None]) -> None:
        self.journal = journal
        self._hands, self._report = hands, report
        self._tries = self._anew = self._repeats = 0
        self._mount: int | None = None
        self._last: Step | None = None
        self._since = hands.clock()
        self._stall = Stall()

    def advance(self) -> bool:
        """Take the next step; True when there is none left."""
        found = _guarded(self.journal, "looking at this node", self._hands.look)
        copied = self._mount is not None and found.mount == self._mount
        now = replace(found, tries=self._tries, anew=self._anew, copied=copied)
        match next_step(self.journal, now):
            case Done():
                return True
            case Refusal(cause, remedy):
                raise SplitRefused(storage=self.journal.storage, cause=cause, remedy=remedy)
            case Action(step):
                self._go(step, now)
        return False

    def _go(self, step: Step, now: Situation) -> None:
        if step is not self._last:
            self._last, self._since, self._repeats, self._stall = step, self._hands.clock(), 0, Stall()
            self._report(step)
        if step in _WAITING:
            self._wait(step, now)
            return
        self._repeats += 1
        if self._repeats > _REPEATS:
            detail = f"it was taken {_REPEATS} times and the node is not as it should be"
            raise _failed(self.journal, step.value, detail)
        self._take(step)
        self._remember(step, now)

    def _remember(self, step: Step, now: Situation) -> None:
        self._tries += step in CONNECTING
        self._anew += step in (Step.ANEW, Step.RECHECK)
        if step is Step.COPY:
            self._mount = now.mount
        elif step is Step.QUIESCE:  # it was writable: what was copied before may be old
            self._mount = None

    def _take(self, step: Step) -> None:
        self.journal = self.journal.begin(step)
        if step is Step.COMPARE:  # a short resync is over before it is seen; the plan has it that there was one
            self.journal = replace(self.journal, done=self.journal.done | {Step.RESYNC})
        self._hands.save(self.journal)
        reach(f"split.begun.{step.name}")
        self.journal = _guarded(self.journal, step.value, lambda before: self._hands.act(step, before)).end(step)
        reach(f"split.acted.{step.name}")
        self._hands.save(self.journal)

    def _wait(self, step: Step, now: Situation) -> None:
        before = self.journal
        if self.journal.doing is not step:
            self.journal = self.journal.begin(step)
        if now.replication in replication.COMING and Step.RESYNC not in self.journal.done:
            self.journal = replace(self.journal, done=self.journal.done | {Step.RESYNC})
        if self.journal != before:
            self._hands.save(self.journal)
            reach(f"split.begun.{step.name}")
        if (detail := self._too_long(step, now)) is not None:
            raise _failed(self.journal, step.value, detail)
        self._hands.wait(step, self.journal, now)
        self._hands.sleep(_PAUSE)

    def _too_long(self, step: Step, now: Situation) -> str | None:
        """Why nothing more is waited for, in words. A verify that somebody has begun moves without anything to copy."""
        keep, storage, clock = self.journal.keep, self.journal.storage, self._hands.clock()
        if step is Step.KEEPER and clock - self._since > KEEPER_SECONDS:
            return (
                f"{keep} has not connected for {KEEPER_SECONDS:.0f} s. Run there: 'pvedrbdstor split-brain resolve {storage} --keep "
                f"{keep}'. DRBD here still waits for it, and takes over its data when it comes, also without this command; "
                "'--abandon' takes that back"
            )
        moves = None if now.replication in replication.VERIFYING else now.out_of_sync or 0
        if step is Step.RESYNC and self._stall.seen(moves, clock):
            paused = "it is paused ('drbdadm resume-sync')" if now.replication == "PausedSyncT" else "look at the link"
            return f"nothing was copied for {STALL_SECONDS:.0f} s, with {moves} KiB left: {paused}. Look at 'dmesg' on both nodes"
        return None


def _guarded(journal: Journal, what: str, work: Callable[[Journal], _T]) -> _T:
    try:
        return work(journal)
    except (SplitRefused, SplitStepFailed):
        raise
    except Error as error:
        raise _failed(journal, what, error.message) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise _failed(journal, what, f"{where}{error.strerror or error}") from error


def _failed(journal: Journal, what: str, detail: str) -> SplitStepFailed:
    return SplitStepFailed(storage=journal.storage, step=what, detail=" ".join(detail.split()).rstrip("."))
