"""Carry a plan out, step by step, on this node and by ssh on the other; the journal is written before and after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from pvedrbdstor.errors import Error, SetupStepFailed
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup import recheck
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import ONCE, TOUCHING, Kind, Step, printable


class Hands(Protocol):
    """The nodes: replaced in tests."""

    def look(self, node: str) -> Facts:
        """Raises this project's errors, OSError."""

    def record(self, node: str, device: str) -> str:
        """As exact.record() on that node. Raises this project's errors, OSError."""

    def carry_out(self, step: Step, again: bool) -> Outcome:
        """On the step's own node. Raises this project's errors where that cannot be reached."""

    def save(self, storage: str, journal: Journal) -> None: ...


def apply(
    plan: Plan,
    journal: Journal,
    hands: Hands,
    report: Callable[[Step, Outcome | None], None] = lambda *_: None,
    now: Callable[[], float] = time.time,
) -> Journal:
    """Take all steps that have not ended; of a plan that is finished only look how the storage is. report: before each step, and after it with what became of it.

    Raises SetupRefused where the nodes are not what the plan was made from, SetupStepFailed at the first step that fails: called
    again it goes on from there.
    """
    storage = plan.answers.storage
    places: Mapping[str, str] = {} if journal.finished else recheck.check(plan, journal, hands, now())
    for step in plan.steps:
        if journal.finished and step.kind is not Kind.STATUS:
            continue
        ended, again = step.id in journal.done, journal.doing == step.id
        if ended and step.kind in ONCE:
            continue
        report(step, None)
        before = journal
        # One that has ended is looked at without the journal, in which another may stand as begun.
        if not ended and not again:
            journal = journal.begin(step.id)
            hands.save(storage, journal)
        reach(f"setup.begun.{step.id}")
        outcome = _take(_told(plan, step, places), again, hands)
        if outcome.failure is not None:
            if outcome.untouched:  # what is on a device that it refused is not its own
                journal = before
                hands.save(storage, before)
            raise _failed(plan, journal, step, outcome.failure)
        reach(f"setup.acted.{step.id}")
        if not ended:
            journal = journal.end(step.id)
            hands.save(storage, journal)
        report(step, outcome)
    hands.save(storage, journals.finish(journal))
    return journals.finish(journal)


def _take(step: Step, again: bool, hands: Hands) -> Outcome:
    try:
        return hands.carry_out(step, again)
    except Error as error:
        return Outcome(failure=error.message)


def _told(plan: Plan, step: Step, places: Mapping[str, str]) -> Step:
    """The step with what its node has to look at before it takes it: what names the disk for good, whatever it is called now."""
    name, minor = recheck.resource(plan)
    if step.kind is Kind.FILE:
        return replace(step, about={**step.about, "resource": name, "minor": str(minor)})
    device = next((each for each in plan.devices if each.node == step.node), None)
    if device is None or step.kind not in TOUCHING | {Kind.LOGICAL_VOLUME}:
        return step
    path = places.get(step.node)
    if path is None:
        return step
    known = {} if device.identity is None else {"identity": device.identity}
    if recheck.about_disk(plan, step):
        return _moved(step, device.path, path, known)
    group = recheck.volume_group(plan, step.node)
    return replace(step, about={**step.about, **known, "disk": path, **({} if group is None else {"group": group})})


def _moved(step: Step, old: str, new: str, known: Mapping[str, str]) -> Step:
    """The plan's step, for the disk under the name that it has now."""
    commands = tuple(tuple(new if word == old else word for word in words) for words in step.commands)
    here = new if step.about["device"] == old else step.about["device"]
    return replace(step, commands=commands, about={**known, **step.about, "device": here})


def _failed(plan: Plan, journal: Journal, step: Step, failure: str) -> SetupStepFailed:
    detail, state = printable(" ".join(failure.split())).rstrip("."), _state(plan, journal)
    return SetupStepFailed(
        storage=plan.answers.storage, node=step.node, step=printable(step.title), detail=detail, state=state
    )


def _state(plan: Plan, journal: Journal) -> str:
    """What this plan has done up to now, in a sentence or two: what an administrator has to know at 3 a.m. Nothing that was not looked
    at."""
    reached = [step for step in plan.steps if step.id in (*journal.done, journal.doing)]
    entry = next((step.id for step in reached if step.kind is Kind.ENTRY), None)
    if entry is not None and entry in journal.done:
        return "The storage is in storage.cfg, and what was made stays."
    told = "It may be in storage.cfg by now." if entry is not None else "This plan has put nothing into storage.cfg."
    written = {step.node for step in reached if step.kind in TOUCHING}
    places = " and ".join(f"{each.path} on {each.node}" for each in plan.devices if each.node in written)
    if places:
        return f"The disks were written to, or may have been: {places}. {told}"
    return "Files may have been written, no disk was touched."
