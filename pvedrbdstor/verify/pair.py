"""Both copies at once: the same ranges read here and there at the same time, several of them under way, and both nodes' words."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pvedrbdstor.errors import VerifyStopped
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.copy import Copy
from pvedrbdstor.verify.hello import Hello
from pvedrbdstor.verify.state import NodeState
from pvedrbdstor.verify.wire import Answer, Request

STALL_SECONDS = 120.0
"""Without an answer to a slice, from either side."""
_WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.05
_LOCAL_END_SECONDS = 3.0

_Result = Answer | NodeState | Exception


class Interrupted(Exception):
    """Somebody wants it to end (Ctrl-C)."""


class Remote(Protocol):
    """The other node's copy; verify.link.Link is one."""

    node: str

    def ask(self, asked: Request) -> None: ...

    def ask_state(self) -> None: ...

    def poll(self, seconds: float) -> bool: ...

    def answer(self) -> Answer | NodeState: ...


@dataclass(frozen=True, slots=True)
class Both:
    """What both nodes say to one question."""

    here: Answer
    there: Answer


@dataclass(frozen=True, slots=True)
class Moment:
    here: NodeState
    there: NodeState


class Pair:
    """A context manager. stop: whether somebody wants it to end. Raises Interrupted, VerifyStopped; OSError of the local device."""

    def __init__(self, here: Copy, there: Remote, own: Hello, storage: str, stop: Callable[[], bool]) -> None:
        self._here, self._there, self._own, self._storage, self._stop = here, there, own, storage, stop
        self._jobs: queue.Queue[Request | str | None] = queue.Queue()
        self._results: queue.Queue[_Result] = queue.Queue()
        self._ready: deque[_Result] = deque()
        self._worker = threading.Thread(target=self._work, name="verify-read", daemon=True)
        self._watched = time.monotonic()

    @property
    def names(self) -> tuple[str, str]:
        return self._own.node, self._there.node

    def __enter__(self) -> Pair:
        self._worker.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """A read that hangs in the kernel is left behind; it ends when the kernel lets it go."""
        self._here.cancel()
        self._jobs.put("end")
        self._worker.join(_LOCAL_END_SECONDS)

    def ask(self, asked: Request) -> None:
        self._there.ask(asked)
        self._jobs.put(asked)

    def ask_moment(self) -> None:
        """The words of both nodes, each after it has read what was asked for before."""
        self._there.ask_state()
        self._jobs.put(None)

    def answer(self) -> Both:
        here, there = self._next()
        assert isinstance(here, Answer) and isinstance(there, Answer)
        return Both(here, there)

    def moment(self) -> Moment:
        here, there = self._next()
        assert isinstance(here, NodeState) and isinstance(there, NodeState)
        return Moment(here, there)

    def now(self) -> Moment:
        """Both nodes' words now; nothing else may be under way."""
        self.ask_moment()
        return self.moment()

    def rest(self, seconds: float) -> None:
        """Do nothing for so long, but let the other node know that we live, and see that all is well. Nothing else may be under way."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop():
                raise Interrupted
            time.sleep(min(left, 0.2))
            if time.monotonic() - self._watched > _WATCH_SECONDS * 5:
                self._watched = time.monotonic()
                self.check(self.now())

    def check(self, moment: Moment) -> None:
        """Raises VerifyStopped where reads of either side prove nothing any more."""
        for node, state in zip(self.names, (moment.here, moment.there), strict=True):
            self._stop_for(states.obstacle(state, node, self._storage, self._own.resource))

    def compare(self, before: Moment, now: Moment, kib_here: int, kib_there: int) -> None:
        """Raises VerifyStopped where something came in between."""
        self.check(now)
        here, there = self.names
        self._stop_for(states.unlike(before.here, now.here, here, kib_here))
        self._stop_for(states.unlike(before.there, now.there, there, kib_there))

    def _stop_for(self, found: states.Obstacle | None) -> None:
        if found is not None:
            raise VerifyStopped(storage=self._storage, cause=found.cause, remedy=found.remedy)

    def _next(self) -> tuple[_Result, _Result]:
        """The first answers of both sides that have not been taken yet."""
        deadline = time.monotonic() + STALL_SECONDS
        there = False
        while not (self._ready and there):
            there = there or self._there.poll(_POLL_SECONDS if self._ready else 0)
            if not self._ready:
                try:
                    self._ready.append(self._results.get(timeout=_POLL_SECONDS))
                except queue.Empty:
                    pass
            self._look_out(deadline)
        here = self._ready.popleft()
        if isinstance(here, Exception):
            raise here
        return here, self._there.answer()

    def _look_out(self, deadline: float) -> None:
        """While an answer is waited for: the reason why none comes."""
        if self._stop():
            raise Interrupted
        now = time.monotonic()
        if now - self._watched > _WATCH_SECONDS:
            self._watched = now
            own = self._here.state()
            self._stop_for(states.obstacle(own, self._own.node, self._storage, self._own.resource))
        if now > deadline:
            late = self.names[0] if not self._ready else self.names[1]
            raise VerifyStopped(
                storage=self._storage,
                cause=f"{late} has read nothing for {STALL_SECONDS:.0f} s",
                remedy=f"Look at 'dmesg' and the disk of {late}",
            )

    def _work(self) -> None:
        while (job := self._jobs.get()) != "end":
            result: _Result
            try:
                result = self._here.digest(job) if isinstance(job, Request) else self._here.state()
            except Exception as error:  # to be raised where it is waited for
                result = error
            self._results.put(result)
