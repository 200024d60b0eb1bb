"""Whether a resync moves, and whether one has been: from what DRBD tells of it. Its stream of events is read at the edge."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.events2 import Event, State, parse_events
from pvedrbdstor.drbd.stream import Stream

STALL_SECONDS = 120.0
_START_SECONDS = 10.0
_PAUSE = 0.05


class Stall:
    """A resync that stands still for too long."""

    def __init__(self, seconds: float = STALL_SECONDS) -> None:
        self._seconds = seconds
        self._last: int | None = None
        self._since = 0.0

    def seen(self, kib: int | None, now: float) -> bool:
        """Whether what is left, in KiB, has not changed for so long. None: not connected, or not told; then it begins anew.

        now: seconds of a clock that never goes back.
        """
        if kib is None or kib != self._last:
            self._last, self._since = kib, now
            return False
        return now - self._since >= self._seconds


@dataclass
class Witness:
    """What a volume's replication went through, in DRBD's words, event by event."""

    resource: str
    volume: int
    replications: list[str] = field(default_factory=list)
    state: State = field(default_factory=State)

    def apply(self, event: Event) -> None:
        before = self._replication()
        self.state.apply(event)
        now = self._replication()
        if now is not None and now != before and self.state.complete:
            self.replications.append(now)

    @property
    def was_target(self) -> bool:
        return "SyncTarget" in self.replications

    @property
    def was_source(self) -> bool:
        return "SyncSource" in self.replications

    def _replication(self) -> str | None:
        return next(
            (
                peer.replication
                for peer in self.state.peer_devices
                if (peer.resource, peer.volume) == (self.resource, self.volume)
            ),
            None,
        )


class Watch:
    """A context manager: DRBD's stream of events from before it is entered, as a Witness."""

    def __init__(self, config: StorageConfig) -> None:
        self.witness = Witness(config.resource, config.volume)
        self._stream = Stream()

    def __enter__(self) -> Watch:
        deadline = time.monotonic() + _START_SECONDS
        self._stream.start(time.monotonic())
        while self.look() and not self.witness.state.complete and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.stop(time.monotonic())

    def look(self) -> bool:
        """Take in what has come; False where the stream has ended, and what came since is not known."""
        lines = self._stream.lines(time.monotonic())
        for event in parse_events(lines or ()):
            self.witness.apply(event)
        return lines is not None
