"""Which of the blocks that were found different once are different: a verdict over several looks at both copies. No I/O here.

DRBD writes to one disk a moment before the other, so that every busy block differs now and then. What is written in place of what it
replaces can even differ in the same way twice. So a block counts as different only where one of two things holds besides:

- *still*: at one of the looks nobody was writing, on either node, from before it began to after it had ended. Then nothing was under
  way to the other disk, and nothing will make them equal. This is certain.
- *lasting*: over many looks neither copy changed, and they span more time than DRBD gives a request before it gives up the peer. A
  write would have had to be caught half done at each of them, in the same way, with the same content.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pvedrbdstor.verify.wire import DIGEST_BYTES

LASTING_LOOKS = 8
"""Of which none may have met a block in another state than the first."""


class Verdict(enum.Enum):
    """unsettled: it kept changing, or nothing proves that nothing was under way. unreadable: on one side at least."""

    CLEAN = "clean"
    DIVERGED = "diverged"
    UNSETTLED = "unsettled"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Look:
    """Both copies of some blocks, read at about the same time.

    blocks: their numbers. here, there: DIGEST_BYTES for each. lost_here, lost_there: numbers of those that could not be read. began,
    ended: seconds of one clock. still: nobody wrote anything in that time.
    """

    blocks: Sequence[int]
    here: bytes
    there: bytes
    began: float
    ended: float
    still: bool
    lost_here: frozenset[int] = frozenset()
    lost_there: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Block:
    """What is known of a block since it was last seen to change."""

    pair: bytes
    since: float
    looks: int = 1
    still: bool = False
    lost: int = 0


@dataclass
class Settling:
    """patience: seconds after which no request can be under way any more; None where that may be for ever."""

    patience: float | None
    unreadable_here: set[int] = field(default_factory=set)
    unreadable_there: set[int] = field(default_factory=set)
    diverged: set[int] = field(default_factory=set)
    unsettled: set[int] = field(default_factory=set)
    _open: dict[int, _Block | None] = field(default_factory=dict)

    def suspect(self, blocks: Iterable[int]) -> None:
        """Take blocks in that were found different, and have yet to be looked at in this size."""
        for block in blocks:
            self._open.setdefault(block)

    @property
    def open(self) -> list[int]:
        """The blocks without a verdict, in order."""
        return sorted(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def see(self, look: Look) -> None:
        """Take a look in; of blocks that are not open it says nothing."""
        lost = look.lost_here | look.lost_there
        for index, number in enumerate(look.blocks):
            if number not in self._open:
                continue
            at = slice(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
            if number in lost:
                self._lost(number, look)
            elif look.here[at] == look.there[at]:
                del self._open[number]
            else:
                self._differs(number, look.here[at] + look.there[at], look)

    def finish(self) -> None:
        """No more looks: what is open has not been settled."""
        self.unsettled.update(self._open)
        self._open.clear()

    def _differs(self, number: int, pair: bytes, look: Look) -> None:
        known = self._open[number]
        if known is None or known.pair != pair:
            self._open[number] = _Block(pair, look.ended, still=look.still)
            return
        known.looks += 1
        known.still = known.still or look.still
        lasting = (
            self.patience is not None and known.looks >= LASTING_LOOKS and look.began - known.since > self.patience
        )
        if known.still or lasting:
            del self._open[number]
            self.diverged.add(number)

    def _lost(self, number: int, look: Look) -> None:
        """Once may be an accident; twice one after the other is not."""
        known = self._open[number]
        if known is None or not known.lost:
            self._open[number] = _Block(b"", look.ended, lost=1)
            return
        del self._open[number]
        if number in look.lost_here:
            self.unreadable_here.add(number)
        if number in look.lost_there:
            self.unreadable_there.add(number)

    @property
    def unreadable(self) -> set[int]:
        return self.unreadable_here | self.unreadable_there

    @property
    def verdict(self) -> Verdict:
        """On all blocks that were ever suspected, the gravest."""
        if self.diverged:
            return Verdict.DIVERGED
        if self.unreadable:
            return Verdict.UNREADABLE
        return Verdict.UNSETTLED if self.unsettled or self._open else Verdict.CLEAN


def pauses(patience: float | None) -> list[float]:
    """Seconds before each look but the first: short ones, in which a still moment is likely, and then, for all blocks at once, as long as
    a lasting difference must be seen. They keep out of step with o2cb's heartbeat, which writes every 2 s."""
    short = [0.15, 0.35, 0.7, 1.1, 1.3, 1.7]
    if patience is None:
        return [*short, *short]
    left = patience + 1.0 - sum(short[1:])
    many = max(2, LASTING_LOOKS - len(short), -int(-left // 15.7))
    return [*short, *([max(left, 0.0) / many] * many), 0.7]
