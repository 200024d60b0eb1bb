"""Before anything is done, at each apply: are the nodes still what the plan was made of? No I/O here but what the nodes are asked.

An apply may be gone on with weeks later. What was looked at for the plan is looked at again for each node whose disk is whole yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Protocol

from pvedrbdstor.drbd import blocks
from pvedrbdstor.errors import SetupRefused
from pvedrbdstor.setup import checks, exact, paths
from pvedrbdstor.setup import plan as plans
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import TOUCHING, Device, Kind, Refusal, Step, printable

_HOUR = 3600


class Looks(Protocol):
    """What the nodes are asked for. Both raise this project's errors, OSError."""

    def look(self, node: str) -> Facts: ...

    def record(self, node: str, device: str) -> str:
        """What is on a device, as exact.record() has it."""


def check(plan: Plan, journal: Journal, looks: Looks, now: float) -> Mapping[str, str]:
    """node -> what the plan's disk is called now, where steps are still to name it. now: seconds since 1970.

    Raises SetupRefused, and what the nodes' answers raise.
    """
    _refuse_old(plan, journal, now)
    nodes = {device.node: looks.look(device.node) for device in plan.devices}
    found = dict(_paths(plan, journal, nodes))
    if not journal.begun:
        _check_whole(plan, nodes, looks)
        return found
    for refusal in _of_pending(plan, journal, nodes, found):
        raise SetupRefused(
            storage=plan.answers.storage,
            cause=printable(refusal.cause),
            remedy=f"{printable(refusal.remedy)}. What was done stays, and can be gone on with, or taken back ('pvedrbdstor setup undo')",
        )
    for node in _whole(plan, journal, TOUCHING):
        _check_wiped(plan, journal, node, found, looks)
    return found


def _whole(plan: Plan, journal: Journal, kinds: Set[Kind]) -> list[str]:
    """The nodes on whose disk no step of these kinds was begun."""
    begun = (*journal.done, journal.doing)
    touched = {step.node for step in plan.steps if step.kind in kinds and step.id in begun}
    return [device.node for device in plan.devices if device.node not in touched]


def about_disk(plan: Plan, step: Step) -> bool:
    """Whether the step names the plan's disk by its path: what lies on a logical volume that the plan makes does not."""
    if step.kind is Kind.METADATA:
        return volume_group(plan, step.node) is None
    return step.kind in TOUCHING


def volume_group(plan: Plan, node: str) -> str | None:
    """The one that the plan makes on the node's disk."""
    return next(
        (step.about["group"] for step in plan.steps if step.kind is Kind.VOLUME_GROUP and step.node == node), None
    )


def resource(plan: Plan) -> tuple[str, int]:
    """DRBD's name for it, and the minor."""
    about = next(step.about for step in plan.steps if step.kind is Kind.FIRST_COPY)
    return about["resource"], int(about["minor"])


def _refused(plan: Plan, cause: str) -> SetupRefused:
    storage = plan.answers.storage
    return SetupRefused(
        storage=storage,
        cause=printable(cause),
        remedy=f"This try has changed nothing. Plan again with 'pvedrbdstor setup plan {storage}'; where earlier tries have begun, 'pvedrbdstor setup undo "
        f"{storage}' shows first what they have left",
    )


def _refuse_old(plan: Plan, journal: Journal, now: float) -> None:
    for step in plan.steps:
        if step.kind is not Kind.WIPE or step.id in journal.done:
            continue
        planned = step.about.get("planned")
        if planned is None or "exact" not in step.about:
            raise _refused(plan, f"the plan does not tell exactly what it wipes on {step.node}")
        if not -_HOUR <= now - int(planned) <= exact.HOURS * _HOUR:
            raise _refused(
                plan,
                f"the plan destroys what was on {step.about['device']} on {step.node} when it was made, and that was more than "
                f"{exact.HOURS} hours ago, or the clock was set",
            )


def _paths(plan: Plan, journal: Journal, nodes: Mapping[str, Facts]) -> Iterator[tuple[str, str]]:
    left = [
        step for step in plan.steps if step.kind in TOUCHING | {Kind.LOGICAL_VOLUME} and step.id not in journal.done
    ]
    for device in plan.devices:
        # On a logical volume the disk's name does not matter any more; but it has to be there, where that can be told.
        named = any(about_disk(plan, step) or device.identity for step in left if step.node == device.node)
        if named:
            yield device.node, _path(plan, journal, device, nodes[device.node])


def _path(plan: Plan, journal: Journal, device: Device, facts: Facts) -> str:
    there = facts.disk(device.path)
    if there is not None and (there.size, there.identity) == (device.size, device.identity):
        return device.path
    named = [disk for disk in facts.disks if device.identity is not None and disk.identity == device.identity]
    if journal.begun and len(named) == 1 and named[0].size == device.size and not _written_down(plan, device):
        return named[0].path
    if there is None:
        raise _refused(plan, f"{device.path} on {device.node}, of which the plan was made, is not there any more")
    raise _refused(plan, f"{device.path} on {device.node} is another device than the one that the plan was made of")


def _written_down(plan: Plan, device: Device) -> bool:
    """Whether DRBD's resource has the name that moves: then another device would be meant by it."""
    return any(
        step.kind is Kind.METADATA and step.node == device.node and step.about["device"] == device.path
        for step in plan.steps
    )


def _of_pending(
    plan: Plan, journal: Journal, nodes: Mapping[str, Facts], found: Mapping[str, str]
) -> Iterator[Refusal]:
    """As before the plan, but for what this plan itself has written."""
    pending = _whole(plan, journal, TOUCHING - {Kind.WIPE})  # one that was only wiped may be somebody's by now
    if not pending:
        return
    # The resource's own name is the plan's by now: _of_resource() looks whether it is another's, too.
    answers = replace(plan.answers, disks={**plan.answers.disks, **found}, resource=None)
    answers = replace(answers, wipe={node: answers.disks[node] for node in answers.wipe or ()})
    for node, facts in nodes.items():
        yield from checks.of_node(node, facts, answers)
        yield from _of_resource(plan, node, facts)
    yield from checks.of_both(nodes)
    yield from checks.of_cluster(nodes, answers)
    yield from checks.of_names(nodes, answers)
    for node in pending:
        yield from checks.of_disk(node, _but_for_own(plan, nodes[node]), answers)
    for node in _whole(plan, journal, TOUCHING):
        yield from _of_signatures(plan, node, nodes[node], answers.disks[node])


def _but_for_own(plan: Plan, facts: Facts) -> Facts:
    """The resource that the plan has written names its disk."""
    name, _ = resource(plan)
    return replace(
        facts,
        disks=tuple(replace(disk, drbd=tuple(each for each in disk.drbd if each != name)) for disk in facts.disks),
    )


def _of_signatures(plan: Plan, node: str, facts: Facts, path: str) -> Iterator[Refusal]:
    device = next(each for each in plan.devices if each.node == node)
    disk = facts.disk(path)
    # Partitions are named by their disk's name, which may have changed; exact records have their numbers.
    here, shown = (
        [word.partition(" (on ")[0] for word in words] for words in (disk.signatures if disk else (), device.wiped)
    )
    if disk is None or sorted(here) == sorted(shown):
        return
    told = ", ".join(disk.signatures) or "nothing"
    yield Refusal(f"{path} on {node} does not hold what it did when the plan was made (now: {told})", "Look at it")


def _of_resource(plan: Plan, node: str, facts: Facts) -> Iterator[Refusal]:
    """Files that the plan has not written, and that have its resource's name or device: drbdadm would take the one for the other."""
    name, minor = resource(plan)
    own = {file.path: file.content for step in plan.steps if step.node == node for file in step.files}
    for path, text in facts.files.items():
        if not path.startswith(f"{paths.RESOURCES}/") or own.get(path) == text:
            continue
        names = {block.words[1] for block in blocks.parse(text).named("resource") if len(block.words) >= 2}
        if name in names or re.search(rf"(?:/dev/drbd|\bminor\s+){minor}\b", text):
            yield Refusal(f"{path} on {node} has resource {name} or /dev/drbd{minor} by now", "Look whose it is")
    for each in facts.resources:
        if each.name == name or minor in each.minors:
            yield Refusal(
                f"{node} has a DRBD resource {each.name}, with resource {name}'s name or device, that is in none of its files as it is",
                f"Look whose it is: 'drbdadm dump', 'drbdsetup show' on {node}",
            )


def _check_wiped(plan: Plan, journal: Journal, node: str, found: Mapping[str, str], looks: Looks) -> None:
    for step in plan.steps:
        if step.kind is Kind.WIPE and step.node == node:
            path = found[node]
            if not exact.same(step.about["exact"], looks.record(node, path), again=False):
                raise _refused(plan, f"{path} on {node} does not hold what it did when the plan was made, to the byte")


def _check_whole(plan: Plan, nodes: Mapping[str, Facts], looks: Looks) -> None:
    now = plans.make(nodes, plan.answers, plan.lead, plan.measured)
    if not isinstance(now, Plan):
        raise SetupRefused(storage=plan.answers.storage, cause=printable(now[0].cause), remedy=printable(now[0].remedy))
    wiping = exact.wiping(plan)
    if exact.wiping(now) == wiping:
        planned = {step.about["planned"] for step in plan.steps if step.kind is Kind.WIPE}
        records = {node: looks.record(node, path) for node, path in wiping.items()}
        now = exact.sealed(now, records, int(min(planned, default="0")))
    if now == plan:
        return
    old, new = ({step.id: step for step in each.steps} for each in (plan, now))
    changed = [step.title for key, step in {**old, **new}.items() if old.get(key) != new.get(key)]
    what = (
        f"it would be another one now, in: {', '.join(changed[:3])}"
        if changed
        else "what it says beforehand would be another"
    )
    raise _refused(plan, f"the nodes have changed since the plan was made: {what}")
