"""Look, decide, act, until the mirror is mounted, refused or out of time."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, CommandFailed, Error
from pvedrbdstor.mirror.bringup import execute, gather, plan
from pvedrbdstor.mirror.bringup.decision import Action, Done, Refusal
from pvedrbdstor.mirror.bringup.facts import Memory, Options, Situation, Step

log = logging.getLogger(__name__)

LIMIT_SECONDS = 300.0
"""More than the longest of all steps together: a step that is taken again and again is no progress."""
_PAUSE = 0.25
_RETRIED = (Step.PROMOTE,)
_SHARED = (Step.MODULES, Step.CONFIGFS, Step.STACK, Step.DLMFS, Step.REGISTER, Step.TIMEOUTS)
"""Of the node, not of one storage: where one of these fails, another storage's job may just have done it."""
_WAITING = (Step.WAIT_PEER, Step.WAIT_COPIES)
_LOOKING = "looking at this node"


@dataclass(frozen=True)
class Hands:
    """What the loop works with; tests put their own node here."""

    look: Callable[[StorageConfig], Situation] = gather.gather
    act: Callable[[Step, Situation, StorageConfig], None] = execute.execute
    demote: Callable[[str], None] = execute.demote
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def bring_up(
    config: StorageConfig, options: Options, report: Callable[[str], None], hands: Hands | None = None
) -> None:
    """Bring the storage up. ``report`` is told each step, in words, when it begins.

    Raises BringUpRefused, BringUpFailed. A node that was made Primary for nothing is made Secondary again.
    """
    run = _Run(config, options, report, hands or Hands())
    try:
        run.until_up()
    except BaseException:
        run.give_back()
        raise


@dataclass
class _Run:
    config: StorageConfig
    options: Options
    report: Callable[[str], None]
    hands: Hands
    first: dict[Step, float] = field(default_factory=dict)
    said: dict[Step, str] = field(default_factory=dict)
    promoted: bool = False
    step: Step | None = None
    failure: tuple[Step, BringUpFailed] | None = None

    def until_up(self) -> None:
        began = self.hands.clock()
        while True:
            now = self._looked()
            decision = plan.next_step(now, self.config, self.options, self._memory())
            self._forgive(decision)
            match decision:
                case Done():
                    return
                case Refusal(cause, remedy):
                    raise BringUpRefused(storage=self.config.id, cause=cause, remedy=remedy)
                case Action(step):
                    if self.hands.clock() - began > LIMIT_SECONDS:
                        raise self._failed(step.value, f"it is not done after {LIMIT_SECONDS:.0f} s")
                    self._take(step, now)

    def give_back(self) -> None:
        """Undo a promotion that led to nothing; a device that is in use keeps its role."""
        if not self.promoted:
            return
        try:
            self.hands.demote(self.config.resource)
        except Error as error:
            log.warning("Storage '%s' was not brought up and stays Primary: %s", self.config.id, error)

    def _looked(self) -> Situation:
        try:
            return self.hands.look(self.config)
        except Error as error:
            raise self._failed(_LOOKING, error.message) from error
        except OSError as error:
            raise self._failed(_LOOKING, f"{error.filename or ''}: {error.strerror}".lstrip(": ")) from error

    def _memory(self) -> Memory:
        now = self.hands.clock()
        return Memory({step: now - first for step, first in self.first.items()}, dict(self.said))

    def _take(self, step: Step, now: Situation) -> None:
        self.first.setdefault(step, self.hands.clock())
        if step is not self.step:
            self.step = step
            self.report(step.value)
        if step in _WAITING:
            self.hands.sleep(_PAUSE)
            return
        try:
            self.hands.act(step, now, self.config)
        except CommandFailed as error:
            if step not in _RETRIED:
                self._fail(step, error.message, error)
            self.said[step] = _first_words(str(error.fields["output"]))
            self.hands.sleep(_PAUSE)
        except Error as error:
            self._fail(step, error.message, error)
        except OSError as error:
            self._fail(step, f"{error.filename or ''}: {error.strerror}".lstrip(": "), error)
        else:
            self.promoted = self.promoted or step is Step.PROMOTE

    def _fail(self, step: Step, detail: str, cause: BaseException) -> None:
        """Raise, or with a step that somebody else may have taken, look once more first."""
        failure = self._failed(step.value, detail)
        failure.__cause__ = cause
        if step not in _SHARED:
            raise failure
        self.failure = (step, failure)

    def _forgive(self, decision: plan.Next) -> None:
        """Forget a step's failure when the step is true all the same; raise it when not."""
        if self.failure is None:
            return
        step, failure = self.failure
        if not isinstance(decision, Action | Done) or (isinstance(decision, Action) and decision.step is step):
            raise failure
        self.failure = None

    def _failed(self, step: str, detail: str) -> BringUpFailed:
        return BringUpFailed(storage=self.config.id, step=step, detail=" ".join(detail.split()).rstrip("."))


def _first_words(said: str) -> str:
    """Of drbdadm's `0: State change failed: (-2) Need ...` and the line about its helper's exit code, what matters."""
    first = next((line.strip() for line in said.splitlines() if line.strip()), "it does not say why")
    return re.sub(r"^[0-9]+: ", "", first).rstrip(".")
