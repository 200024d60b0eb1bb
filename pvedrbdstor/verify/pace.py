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
_PAUSE_MAX = 5.0


@dataclass
class Pace:
    """rate: bytes per second on each node, None without a limit. bound: milliseconds that a write may take on average; None: no matter.

    factor: for each second of reading, factor - 1 seconds of rest.
    """

    rate: float | None = None
    bound: float | None = LATENCY_MS
    factor: float = 1.0
    _free: float = 0.0
    _last: dict[str, NodeState] = field(default_factory=dict)

    def before(self, length: int, now: float) -> float:
        """Seconds to wait before ``length`` bytes are asked for."""
        if self.rate is None:
            return 0.0
        begins = max(now, self._free)
        self._free = begins + length / self.rate
        return begins - now

    def after(self, seconds: float) -> float:
        """Seconds to rest after ``seconds`` of reading."""
        return min(_PAUSE_MAX, seconds * (self.factor - 1))

    def see(self, node: str, state: NodeState) -> None:
        """How a node's writes have fared since it was last seen: too slow on any node, and the factor doubles; else it goes back."""
        before, self._last[node] = self._last.get(node), state
        waited = _average(before, state) if before is not None else None
        if self.bound is None:
            return
        if waited is not None and waited > self.bound:
            self.factor = min(_SLOWEST, self.factor * _SLOWER)
        else:
            self.factor = max(1.0, self.factor * _FASTER)


def _average(before: NodeState, now: NodeState) -> float | None:
    """Milliseconds of a write; None where there were too few to tell, or the numbers began anew."""
    if None in (before.writes, before.write_ms, now.writes, now.write_ms):
        return None
    assert before.writes is not None and now.writes is not None
    assert before.write_ms is not None and now.write_ms is not None
    count, spent = now.writes - before.writes, now.write_ms - before.write_ms
    return spent / count if count >= _WRITES_MIN and spent >= 0 else None
