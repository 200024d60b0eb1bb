"""What is known of DRBD, and how well: the stream's state, checked again and again against a fresh look. No I/O here.

The stream tells at once and tells the order of things, but a stream that has stalled looks like one with nothing to
tell. So every few seconds DRBD is asked for its present state as well: as long as both agree, the stream is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable

from pvedrbdstor.drbd.events2 import State, parse_events, parse_now
from pvedrbdstor.drbd.history import REJOIN_SECONDS, History
from pvedrbdstor.mirror.facts import View
from pvedrbdstor.mirror.gather import empty_state

STALE_SECONDS = 10.0
"""Without any word from DRBD for so long, nothing is known."""
_DISAGREEMENTS = 2


class Knowledge:
    """Times are seconds of one clock that never goes back. state: the best there is. history: of lost peers."""

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()
        self.state = State()
        self._streamed: State | None = None
        self._known_at: float | None = None
        self._line_at = 0.0
        self._blind_since: float | None = None
        self._disagreements = 0

    @property
    def begun(self) -> bool:
        """Whether DRBD has told anything yet."""
        return self._known_at is not None

    def view(self, now: float) -> View:
        age = None if self._known_at is None else max(0.0, now - self._known_at)
        return View(complete=self.state.complete, age=age, stale=age is not None and age > STALE_SECONDS)

    # --- the stream ---

    def stream_started(self, now: float) -> None:
        """A new stream tells the whole state from the beginning; until it has, the old one stands."""
        if self._blind_since is not None and now - self._blind_since > REJOIN_SECONDS:
            self.history = History.from_json(self.history.to_json(), now - self._blind_since)
        self._streamed = State()
        self._disagreements = 0

    def stream_said(self, lines: Iterable[str], now: float) -> bool:
        """Take lines in; True when the state may have changed."""
        if self._streamed is None:
            return False
        any_event = False
        for event in parse_events(lines):
            any_event = True
            self._streamed.apply(event)
            self.history.apply(event, now)
        if any_event and self._streamed.complete:
            self.state = self._streamed
            self._known_at = self._line_at = now
            self._blind_since = None
        return any_event

    def stream_ended(self, now: float) -> None:
        """Events may be missed from now on."""
        if self._streamed is not None:
            self._streamed = None
            self._blind_since = now
            self.history.interrupted()

    # --- the fresh look ---

    def module_missing(self, now: float) -> None:
        """There is no DRBD in the kernel, hence no resource."""
        self.stream_ended(now)
        self.state = empty_state()
        self._known_at = now

    def looked(self, text: str | None, asked_at: float, now: float) -> bool:
        """Take the present state in, None when DRBD's tools failed; False when the stream contradicts it and stays
        so: it has stalled and should be started anew."""
        found = parse_now(text or "")
        if not found.complete:
            return True
        if self._streamed is not None and self._streamed.complete:
            if agree(self._streamed, found):
                self._disagreements = 0
                self._known_at = max(self._known_at or 0.0, asked_at)
                if self._line_at < asked_at:
                    self.state = found  # with its counters, of which 8.4's stream tells no changes
                return True
            if self._line_at >= asked_at:
                return True
            self._disagreements += 1
            if self._disagreements < _DISAGREEMENTS:
                return True
            self.stream_ended(now)
            self._take(text or "", found, asked_at)
            return False
        self._take(text or "", found, asked_at)
        return True

    def _take(self, text: str, found: State, asked_at: float) -> None:
        """Without a stream a look is the best there is, and what it shows of lost peers better than nothing."""
        for event in parse_events(text.splitlines(keepends=True)):
            self.history.apply(event, asked_at)
        self.state = found
        self._known_at = self._blind_since = asked_at


def agree(one: State, other: State) -> bool:
    """Whether two states are the same in all that a verdict hangs on."""
    return _essence(one) == _essence(other)


def _essence(state: State) -> frozenset[tuple[object, ...]]:
    return frozenset(
        [
            *(("resource", found.name, found.role, found.suspended) for found in state.resources),
            *(("device", found.resource, found.volume, found.minor, found.disk) for found in state.devices),
            *(
                ("connection", found.resource, found.peer_node_id, found.state, found.role)
                for found in state.connections
            ),
            *(
                ("peer", found.resource, found.peer_node_id, found.volume, found.replication, found.disk)
                for found in state.peer_devices
            ),
        ]
    )
