"""Carry a plan out, step by step, on this node and by ssh on the other; the journal is written before and after each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pvedrbdstor.errors import Error, SetupRefused, SetupStepFailed
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup import plan as plans
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import ONCE, TOUCHING, Device, Kind, Step

_AGAIN = "Plan again with 'pvedrbdstor setup plan'"


class Hands(Protocol):
    """The nodes: replaced in tests."""

    def look(self, node: str) -> Facts:
        """Raises this project's errors, OSError."""

    def carry_out(self, step: Step, again: bool) -> Outcome:
        """On the step's own node. Raises this project's errors where that cannot be reached."""

    def save(self, storage: str, journal: Journal) -> None: ...


def apply(
    plan: Plan, journal: Journal, hands: Hands, report: Callable[[Step, Outcome | None], None] = lambda *_: None
) -> Journal:
    """Take all steps that have not ended; of a plan that is finished only look how the storage is. report: before each step, and after it with what became of it.

    Raises SetupRefused where the nodes are not what the plan was made from, SetupStepFailed at the first step that fails: called
    again it goes on from there.
    """
    storage = plan.answers.storage
    if not journal.finished:
        _check(plan, journal, hands)
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
        outcome = _take(step, again, hands)
        if outcome.failure is not None:
            if outcome.untouched:  # what is on a device that it refused is not its own
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


def _failed(plan: Plan, journal: Journal, step: Step, failure: str) -> SetupStepFailed:
    detail, state = " ".join(failure.split()).rstrip("."), _state(plan, journal)
    return SetupStepFailed(storage=plan.answers.storage, node=step.node, step=step.title, detail=detail, state=state)


def _state(plan: Plan, journal: Journal) -> str:
    """What is there now, in a sentence or two: what an administrator has to know at 3 a.m."""
    done = {step.kind for step in plan.steps if step.id in journal.done}
    reached = {step.kind for step in plan.steps if step.id in (*journal.done, journal.doing)}
    if Kind.ENTRY in done:
        return "The storage is in storage.cfg, and what was made stays."
    if reached & {Kind.METADATA, Kind.PHYSICAL_VOLUME, Kind.WIPE}:
        return "The disks were written to, nothing is in storage.cfg, and no guest has anything there."
    return "Files may have been written, no disk was touched."


def _check(plan: Plan, journal: Journal, hands: Hands) -> None:
    """The plan is of these nodes as they are: whole before the first step, the devices alone, where they are still
    to be written to, when some are done."""
    nodes = {device.node: hands.look(device.node) for device in plan.devices}
    touched = {step.node for step in plan.steps if step.kind in TOUCHING and step.id not in journal.done}
    for device in plan.devices:
        if device.node in touched and (why := _other_device(device, nodes[device.node])) is not None:
            raise SetupRefused(storage=plan.answers.storage, cause=why, remedy=f"Nothing was touched. {_AGAIN}")
    if not journal.begun:
        _check_whole(plan, nodes)


def _other_device(device: Device, facts: Facts) -> str | None:
    found = facts.disk(device.path)
    if found is None:
        return f"{device.path} on {device.node}, of which the plan was made, is not there any more"
    if (found.size, found.identity) != (device.size, device.identity):
        return f"{device.path} on {device.node} is another device than the one that the plan was made of"
    return None


def _check_whole(plan: Plan, nodes: Mapping[str, Facts]) -> None:
    storage = plan.answers.storage
    now = plans.make(nodes, plan.answers, plan.lead)
    if not isinstance(now, Plan):
        raise SetupRefused(storage=storage, cause=now[0].cause, remedy=now[0].remedy)
    if now == plan:
        return
    old, new = ({step.id: step for step in each.steps} for each in (plan, now))
    changed = [step.title for key, step in {**old, **new}.items() if old.get(key) != new.get(key)]
    what = (
        f"it would be another one now, in: {', '.join(changed[:3])}"
        if changed
        else "what it says beforehand would be another"
    )
    raise SetupRefused(
        storage=storage,
        cause=f"the nodes have changed since the plan was made: {what}",
        remedy=f"Nothing was touched. {_AGAIN}",
    )
