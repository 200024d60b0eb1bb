"""What the planner answers: a step to take, that all is done, or why it goes no further."""

from __future__ import annotations

from dataclasses import dataclass

from pvedrbdstor.mirror.bringup.facts import Step


@dataclass(frozen=True, slots=True)
class Action:
    """Take this step, look again, ask again."""

    step: Step


@dataclass(frozen=True, slots=True)
class Done:
    """The mirror is mounted and verified."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """It is not safe, or not possible, to go on. cause: what is the matter, remedy: what to do, without a full stop."""

    cause: str
    remedy: str
