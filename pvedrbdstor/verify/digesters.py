"""How a copy is read: long stretches in large requests, blocks that lie apart many at once."""

from __future__ import annotations

from pvedrbdstor.native import Digester, Digests
from pvedrbdstor.verify.wire import Request

_REQUEST_BYTES = 1 << 20
_DEPTH = 8
_APART_BYTES = 64 << 10
APART_DEPTH = 32
"""Of blocks that lie apart: reads in flight, of _APART_BYTES, or of a block where that is longer."""


class Digesters:
    """Of one descriptor, open with O_DIRECT. path: what errors name. One thread digests; any may cancel."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path
        self._made: dict[tuple[int, bool], Digester] = {}
        self._cancelled = False

    def digest(self, asked: Request) -> Digests:
        """Raises OSError; native.Cancelled after cancel()."""
        apart = asked.length <= len(asked.ranges) * max(asked.granularity, _APART_BYTES)
        found = self._made.get((asked.granularity, apart)) or self._make(asked.granularity, apart)
        return found.run_ranges(asked.ranges)

    def cancel(self) -> None:
        """End what is being read, and all that would be read later; also from a signal's handler."""
        self._cancelled = True
        for digester in list(self._made.values()):
            digester.cancel()

    def close(self) -> None:
        for digester in self._made.values():
            digester.close()

    def _make(self, granularity: int, apart: bool) -> Digester:
        request, depth = (max(granularity, _APART_BYTES), APART_DEPTH) if apart else (_REQUEST_BYTES, _DEPTH)
        made = Digester(self._fd, granularity=granularity, request=request, depth=depth, path=self._path)
        self._made[granularity, apart] = made
        if self._cancelled:
            made.cancel()
        return made
