"""Take the steps of the plan, one after the other, the journal written before and after each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from pvedrbdstor.errors import Error, SplitRefused, SplitStepFailed
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Action, Done, Refusal, Situation, next_step
from pvedrbdstor.fencing.split.steps import Step

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
    tries = repeats = 0
    last: Step | None = None
    since = hands.clock()
    while True:
        now = replace(_guarded(journal, "looking at this node", hands.look), tries=tries)
        match next_step(journal, now):
            case Done():
                return journal
            case Refusal(cause, remedy):
                raise SplitRefused(storage=journal.storage, cause=cause, remedy=remedy)
            case Action(step):
                if step is not last:
                    last, since, repeats = step, hands.clock(), 0
                    report(step)
                if step in _WAITING:
                    journal = _wait(step, journal, hands, now, since)
                    continue
                repeats += 1
                if repeats > _REPEATS:
                    raise _failed(
                        journal, step.value, f"it was taken {_REPEATS} times and the node is not as it should be"
                    )
                tries += step is Step.DISCARD
                journal = _take(step, journal, hands)


def _take(step: Step, journal: Journal, hands: Hands) -> Journal:
    journal = journal.begin(step)
    hands.save(journal)
    reach(f"split.begun.{step.name}")
    journal = _guarded(journal, step.value, lambda before: hands.act(step, before)).end(step)
    reach(f"split.acted.{step.name}")
    hands.save(journal)
    return journal


def _wait(step: Step, journal: Journal, hands: Hands, now: Situation, since: float) -> Journal:
    if journal.doing is not step:
        journal = journal.begin(step)
        hands.save(journal)
        reach(f"split.begun.{step.name}")
    if step is Step.KEEPER and hands.clock() - since > KEEPER_SECONDS:
        detail = (
            f"{journal.keep} has not connected for {KEEPER_SECONDS:.0f} s. Run there: 'pvedrbdstor split-brain resolve "
            f"{journal.storage} --keep {journal.keep}'"
        )
        raise _failed(journal, step.value, detail)
    hands.wait(step, journal, now)
    hands.sleep(_PAUSE)
    return journal


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
