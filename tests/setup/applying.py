"""An apply on nodes that only note what was asked of them, which can be killed at any fault point."""

from __future__ import annotations

from dataclasses import dataclass, field

from pvedrbdstor import faultpoints
from pvedrbdstor.errors import CommandTimeout
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup.apply import apply
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import Step
from tests.setup import world

RECORD = '{"":{"ends":"1 a","signatures":[["0x438","ext4","u1",""]]}}'
HOUR = 3600
NOW = 1_000_000


class Killed(BaseException):
    """In place of SIGKILL: nothing handles it."""


@dataclass
class Nodes:
    """Both nodes as a list of what was done, and the journal as it is on the disk."""

    found: dict[str, Facts] = field(default_factory=world.nodes)
    taken: list[tuple[str, bool]] = field(default_factory=list)
    saved: Journal | None = None
    fail: str | None = None
    untouched: bool = False
    gone: bool = False
    steps: list[Step] = field(default_factory=list)
    on_disk: dict[str, str] = field(default_factory=dict)

    def look(self, node: str) -> Facts:
        return self.found[node]

    def record(self, node: str, device: str) -> str:
        return self.on_disk.get(node, RECORD)

    def carry_out(self, step: Step, again: bool) -> Outcome:
        self.steps.append(step)
        if self.gone:
            raise CommandTimeout(command="ssh", seconds=1)
        self.taken.append((step.id, again))
        return Outcome(failure="it is so.", untouched=self.untouched) if step.id == self.fail else Outcome()

    def save(self, storage: str, journal: Journal) -> None:
        self.saved = journal


def run(plan: Plan, nodes: Nodes, at: str | None = None, now: int = NOW) -> None:
    """Apply; killed at a fault point."""

    def kill(point: str) -> None:
        if point == at:
            raise Killed

    faultpoints.hook = kill
    try:
        apply(plan, nodes.saved or journals.of(plan), nodes, now=lambda: now)
    except Killed:
        pass
    finally:
        faultpoints.hook = None
