"""How fast to read: no more than a rate, and slower where the guests' writes take long meanwhile. No I/O here.

Of the guests' own requests only writes are told apart from the comparison's, which reads: /sys/block/drbdN/stat counts both kinds, and
reads with many in flight look slow whatever the disk does. A mirror whose writes are slow has slow reads as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pvedrbdstor.verify.state import NodeState

LATENCY_MS = 50.0
"""Of a guest's write, which has to reach both disks. More than a good disk needs, less than a guest complains of."""
_SLOWEST = 16.0
_SLOWER, _FASTER = 2.0, 0.8
_WRITES_MIN = 4
_WINDOW_SECONDS = 1.0
"""A node's writes are judged after so many or after so long: of few writes a second no slice sees more than one."""
_PAUSE_MAX = 5.0


@dataclass
class _Window:
    """Of one node. began: when it was in the state ``first``. last: as it was seen last. stuck: since when it has had
    open writes whenever it was seen; where none has ended meanwhile they are the same ones."""

    first: NodeState
    began: float
    last: NodeState
    stuck: float | None


@dataclass
class Pace:
    """rate: bytes per second on each node, None without a limit. bound: milliseconds that a write may take on average; None: no matter.

    factor: for each second of reading, factor - 1 seconds of rest.
    """

    rate: float | None = None
    bound: float | None = LATENCY_MS
    factor: float = 1.0
    _free: float = 0.0
    _windows: dict[str, _Window] = field(default_factory=dict)
    _slow: set[str] = field(default_factory=set)

    def before(self, length: int, now: float) -> float:
        """Seconds to wait before ``length`` bytes are asked for."""
        if self.rate is None:
            return 0.0
        begins = max(now, self._free)
        self._free = begins + length / self.rate
        return begins - now

    @property
    def slowed(self) -> bool:
        """Whether there is a rest after each reading."""
        return self.factor > 1.0

    def after(self, seconds: float) -> float:
        """Seconds to rest after ``seconds`` of reading."""
        return min(_PAUSE_MAX, seconds * (self.factor - 1))

    def see(self, node: str, state: NodeState, now: float) -> None:
        """How a node's writes fare: too slow, and the factor doubles; quick on all nodes, and it goes back.

        Called after each slice, however short that was: the window in which its writes are counted lasts longer.
        """
        if self.bound is None:
            return
        window = self._windows.get(node)
        if window is None or not _goes_on(window.last, state):
            self._slow.discard(node)
            self._windows[node] = _Window(state, now, state, now if state.open_writes else None)
            return
        _seen(window, state, now)
        slow = self._judged(window, now, self.bound)
        if slow is None:
            return
        self._windows[node] = _Window(state, now, state, window.stuck)
        if slow:
            self._slow.add(node)
            self.factor = min(_SLOWEST, self.factor * _SLOWER)
            return
        self._slow.discard(node)
        if not self._slow:  # one node's quick writes do not make up for the other's
            self.factor = max(1.0, self.factor * _FASTER)

    def _judged(self, window: _Window, now: float, bound: float) -> bool | None:
        """Whether the writes of a window are too slow; None where that is for later to tell."""
        count, spent = _ended(window.first, window.last)
        if count < _WRITES_MIN and now - window.began < _WINDOW_SECONDS:
            return None
        if count:
            return spent > bound * count
        if window.stuck is None:
            return False
        return True if now - max(window.stuck, window.began) >= _WINDOW_SECONDS else None


def _seen(window: _Window, state: NodeState, now: float) -> None:
    if not state.open_writes:
        window.stuck = None
    elif window.stuck is None:
        window.stuck = now
    window.last = state


def _goes_on(before: NodeState, now: NodeState) -> bool:
    """Whether the numbers are those of before, or larger; where they began anew they tell nothing."""
    if None in (before.writes, before.write_ms, now.writes, now.write_ms):
        return False
    count, spent = _ended(before, now)
    return count >= 0 and spent >= 0


def _ended(before: NodeState, now: NodeState) -> tuple[int, int]:
    """Writes that have ended in between, and their milliseconds."""
    return (now.writes or 0) - (before.writes or 0), (now.write_ms or 0) - (before.write_ms or 0)
