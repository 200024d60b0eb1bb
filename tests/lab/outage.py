"""One scenario of an outage from a freshly formed cluster to the copies compared in the end, and everything measured on the way."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import records
from tests.lab.actions import PRESSURE, Action, Event
from tests.lab.assets import REPOSITORY
from tests.lab.corosync import Witness
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT, RESOURCE, on_each
from tests.lab.node import Node
from tests.lab.ops import wait_until
from tests.lab.protection import LOG as GUARD_LOG
from tests.lab.protection import Protection, wins
from tests.lab.trial import Trial, drbd_state, running

REPORTS = REPOSITORY / "artifacts" / "lab" / "fencing"
_EVENT_SECONDS = 120.0
_BACK_SECONDS = 240.0  # a fence takes 60 s more, a boot, corosync, a resync and a mount 30
_NOT_BACK_SECONDS = 30.0  # where it is expected never to be
_AFTERWARDS = 4.0  # seconds of writing when everything is as before
_STILL_WRITES = 5.0  # seconds before the observation's end in which a survivor has written


@dataclass(frozen=True)
class After:
    """A moment: so many seconds after an event was seen."""

    event: Event
    seconds: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """An outage. steps: what is done when, in seconds or after an event, in this order; before: what is done before the clock starts.

    survivors: whom the observation must find writing at its end without a reset: "a", "b", "ab", "" for none, "a|b" for any one.
    not_served: nodes that must not have been brought back by then. spared: nodes that nothing may have reset. winners: nodes that
    must have been told to go on at some time. observed: seconds until everything is made whole again; not 60 s after a node was last
    heard, nor when it mounts again, as OCFS2's recovery then holds up the other's writes for some seconds. in_sync: both nodes are
    expected to be back afterwards without an administrator. eager: see Trial.
    """

    name: str
    kind: str
    shows: str
    steps: tuple[tuple[float | After, Action], ...]
    survivors: str
    observed: float = 95.0
    before: tuple[Action, ...] = ()
    not_served: str = ""
    spared: str = ""
    winners: str = ""
    in_sync: bool = True
    witness: Witness = field(default_factory=Witness)
    protection: Callable[[], Protection] = Protection
    eager: bool = False
    memory: int | None = None


@dataclass
class Outcome:
    """What a scenario came to. Seconds count from its first step.

    missing: node -> acknowledged writes, of any node, that its disk lacks in the end. stalls: node -> longest time without an
    acknowledgement. resets: node -> when it booted though nobody had asked. back: seconds from the end of the observation until
    both nodes were in sync again; None: never. difference: the first byte in which the disks differ.
    """

    scenario: Scenario
    survivors: str = ""
    served: str = ""
    stalls: dict[str, float] = field(default_factory=dict)
    resets: dict[str, list[float]] = field(default_factory=dict)
    wins: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    back: float | None = None
    difference: int | None = None
    complaints: dict[str, str] = field(default_factory=dict)
    unclean: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def two_sides_wrote(self) -> bool:
        """Whether each node's copy lacks something that was acknowledged: a split brain, or stale data gone on with."""
        return all(self.missing.values())

    def problems(self) -> list[str]:
        """What is not as it has to be with a rule that is right."""
        scenario = self.scenario
        found = []
        if self.survivors not in scenario.survivors.split("|"):
            found.append(f"survivors: {self.survivors or 'none'}, not {scenario.survivors or 'none'}")
        if early := set(self.served) & set(scenario.not_served):
            found.append(f"brought back with data that may be old: {early}")
        found += [f"node {node} was reset" for node in scenario.spared if self.resets.get(node)]
        found += [f"node {node} was never told to go on" for node in scenario.winners if not self.wins.get(node)]
        found += [f"node {node} lacks {len(lost)} acknowledged writes" for node, lost in self.missing.items() if lost]
        found += [f"fsck.ocfs2 on node {node}: {what}" for node, what in self.complaints.items()]
        if scenario.in_sync:
            if self.back is None:
                found.append("not in sync again without an administrator")
            elif self.difference is not None or self.unclean:
                found.append(f"copies differ at byte {self.difference}; not unmounted: {self.unclean}")
        return found

    def report(self) -> str:
        """All of it but the logs, for people."""
        lacks = {node: f"{len(found)}: {found[:2]}...{found[-2:]}" for node, found in self.missing.items() if found}
        rows = {
            "survivors": self.survivors or "none",
            "served at the end of the observation": self.served or "none",
            "stalls": self.stalls,
            "resets": self.resets,
            "wins": self.wins,
            "missing": lacks or "nothing",
            "back": self.back,
            "first difference": self.difference,
            "not unmounted": self.unclean,
            "fsck": self.complaints or "clean",
        }
        head = f"{self.scenario.name} ({self.scenario.kind}): {self.scenario.shows}"
        rows["problems"] = self.problems() or "none"
        return "\n".join([head, *(f"  {name}: {value}" for name, value in rows.items()), *self.notes, f"{self.folder}"])


def run(scenario: Scenario, cancelled: threading.Event | None = None) -> Outcome:
    """Carry a scenario out, until it is ``cancelled``. Raises LabError when it is, and when the lab itself fails."""
    outcome = Outcome(scenario)
    with running(scenario.protection(), scenario.witness, scenario.memory, scenario.eager) as trial:
        try:
            _Run(scenario, trial, outcome, cancelled or threading.Event()).carry_out()
        finally:
            _keep(trial, outcome)
    return outcome


class _Run:
    """The phases of a scenario on its cluster."""

    def __init__(self, scenario: Scenario, trial: Trial, outcome: Outcome, cancelled: threading.Event) -> None:
        self.scenario = scenario
        self.trial = trial
        self.outcome = outcome
        self.cancelled = cancelled
        self.nodes = trial.cluster.nodes
        self.begun = time.time()

    def carry_out(self) -> None:
        for action in self.scenario.before:
            self._do(action)
        self.begun = time.time()
        for when, action in self.scenario.steps:
            self._wait_for(when)
            self._do(action)
        self._sleep_until(self.begun + self.scenario.observed)
        self._observe()
        self._make_whole()
        self._compare()

    def _wait_for(self, when: float | After) -> None:
        if isinstance(when, After):
            self._wait_until(lambda: when.event.has_come(self.trial), when.event.what, _EVENT_SECONDS)
            self._sleep_until(time.time() + when.seconds)
        else:
            self._sleep_until(self.begun + when)

    def _do(self, action: Action) -> None:
        self.trial.note(f"{time.time() - self.begun:.1f} s: {action.what}")
        action.do(self.trial)

    def _observe(self) -> None:
        """What the outage has done so far."""
        now = time.time()
        self.trial.note(f"{now - self.begun:.1f} s: observed; {self._states()}")
        writers = records.heard(self.nodes)
        for node in self.nodes:
            mine = [writer for writer in writers if writer.node == node.name]
            self.outcome.stalls[node.name] = round(max(writer.stall(self.begun, now) for writer in mine), 1)
            self.outcome.wins[node.name] = wins(node)
            alive = node.boots == 1 and node.name not in self.trial.killed
            if alive and all(writer.last() > now - _STILL_WRITES for writer in mine):
                self.outcome.survivors += node.name
        self.outcome.served = "".join(sorted(name for name in self.trial.served if self.trial.node(name).running))

    def _make_whole(self) -> None:
        """End every failure, and wait until the nodes are back as they were, by what brings them back alone."""
        trial, began = self.trial, time.time()
        trial.network.heal()
        trial.away.clear()
        for node in trial.cluster.machines:
            if not node.running:
                trial.switch_on(node)
            node.wake()
        if trial.cluster.c:
            trial.corosync.start(trial.cluster.c)
        for node in self.nodes:
            node.sh("for pid in /run/lab-corosync*.pid; do kill -CONT $(cat $pid); done", 10)
            trial.end_spawned(node, PRESSURE)
            if node.name in trial.served:
                trial.corosync.start(node)
                trial.protection.start(node)
        try:
            seconds = _BACK_SECONDS if self.scenario.in_sync else _NOT_BACK_SECONDS
            self._wait_until(self._whole, "both nodes are in sync", seconds)
            self.outcome.back = round(time.time() - began, 1)
            self._sleep_until(time.time() + _AFTERWARDS)
        except LabError as error:
            self._sleep_until(0)
            trial.note(f"{error}: {self._states()}")
        trial.end()
        for node in self.nodes:
            self.outcome.resets[node.name] = [round(when - self.begun, 1) for when in trial.resets(node)]

    def _whole(self) -> bool:
        self._sleep_until(time.time() + 1)
        return self.trial.in_sync()

    def _wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        wait_until(lambda: self.cancelled.is_set() or condition(), what, seconds)
        self._sleep_until(0)

    def _compare(self) -> None:
        """Take both nodes down and compare what they were told with what their disks have."""
        on_each(self.nodes, self._unmount)
        on_each(self.nodes, self._leave)  # only now: until then the peer's last writes have to come in
        for node in self.nodes:
            node.kill()
        writers = records.heard(self.nodes)
        for node in self.nodes:
            if node.name in self.outcome.unclean:
                records.mend(node.disk)
            found = records.missing(writers, node.disk, node.folder)
            self.outcome.missing[node.name] = [f"{what} at {when - self.begun:.1f} s" for when, what in found]
            if complaints := records.complaints(node.disk):
                self.outcome.complaints[node.name] = complaints
        self.outcome.difference = records.first_difference(self.nodes[0].disk, self.nodes[1].disk)

    def _unmount(self, node: Node) -> None:
        if not node.running or node.sh("true", 10).rc != 0:
            self.outcome.unclean.append(node.name)
            return
        (node.share / "dmesg.txt").write_text(node.sh("dmesg", 20).out)
        self.trial.stop_writers(node)
        done = node.sh(f"! mountpoint -q {MOUNT_POINT} || umount {MOUNT_POINT}", 90)
        if done.rc != 0:
            self.trial.note(f"node {node.name} was not unmounted: {done.out[-300:]}")
            self.outcome.unclean.append(node.name)

    def _leave(self, node: Node) -> None:
        if node.name not in self.outcome.unclean:
            node.sh(f"drbdadm secondary {RESOURCE}; drbdadm down {RESOURCE}", 60)

    def _states(self) -> str:
        return "; ".join(f"{node.name} {drbd_state(node)}" for node in self.nodes)

    def _sleep_until(self, moment: float) -> None:
        if self.cancelled.wait(max(0.0, moment - time.time())):
            raise LabError(f"{self.scenario.name} was cancelled")


def _keep(trial: Trial, outcome: Outcome) -> None:
    """Put what the nodes have logged, and the report, where people find it."""
    outcome.folder = REPORTS / outcome.scenario.name
    shutil.rmtree(outcome.folder, ignore_errors=True)
    for node in trial.cluster.machines:
        folder = outcome.folder / node.name
        folder.mkdir(parents=True)
        kept = ("*.log", "*.out", "dmesg.txt")
        for file in [node.console, *(path for pattern in kept for path in node.share.glob(pattern))]:
            shutil.copy(file, folder)
        guard = node.share / GUARD_LOG
        outcome.logs[node.name] = guard.read_text(errors="replace") if guard.exists() else ""
    outcome.notes = trial.notes
    (outcome.folder / "report.txt").write_text(outcome.report() + "\n")
