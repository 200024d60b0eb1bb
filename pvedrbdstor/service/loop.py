"""A small event loop: callbacks for descriptors that are ready, callbacks for moments that have come."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
"""Always reported, asked for or not. On a unix socket: the peer has closed it, which is more than a half-close."""


class Timer:
    """Something to do at ``when`` (seconds of the monotonic clock), unless cancelled."""

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """epoll and a heap of timers. Not asyncio: its loop must not be forked, and half-closes look like hang-ups in it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._unwatched: set[int] = set()  # in this round: what was reported of them may be about a namesake
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._running = False

    def watch(self, fd: int, events: int, ready: Callable[[int], None]) -> None:
        """Call ``ready(events)`` whenever ``fd`` is ready; watching it again changes ``events`` and ``ready``."""
        if fd not in self._watched:
            self._epoll.register(fd, events)
        elif self._watched[fd][0] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = events, ready

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``. To be called before it is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._unwatched.add(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        return self.at(time.monotonic() + seconds, action)

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        timer = Timer(when, action)
        heapq.heappush(self._timers, (when, next(self._count), timer))
        if len(self._timers) > 1024 and sum(entry[2].action is not None for entry in self._timers) < 512:
            self._timers = [entry for entry in self._timers if entry[2].action is not None]
            heapq.heapify(self._timers)
        return timer

    def run(self) -> None:
        """Until stop() is called."""
        self._running = True
        while self._running:
            self._unwatched.clear()
            for fd, events in self._epoll.poll(self._seconds_to_next()):
                if fd not in self._unwatched:
                    self._watched[fd][1](events)
            self._run_timers()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        self._epoll.close()

    def _seconds_to_next(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()
