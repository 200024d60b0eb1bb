"""The side that asks: it goes through a plan once on both nodes, then looks at what differed until that has a verdict."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.pair import Both, Moment, Pair
from pvedrbdstor.verify.plan import Plan, blocks_of, ranges_of
from pvedrbdstor.verify.settle import Look, Settling, pauses
from pvedrbdstor.verify.wire import DIGEST_BYTES, Answer, Request

UNIT = 4096
"""Bytes of the blocks that get a verdict, whatever the granularity of the first pass."""
_AHEAD = 3
"""Slices under way on each node beside the one that is waited for."""
_BATCH_RUNS = 48
_BATCH_BYTES = 4 << 20
"""Of a look: small, so that it can fall between two writes."""
_WEED_BYTES = 64 << 20
_WEED_RANGES = 2048
OPEN_MAX = 65536
"""Blocks without a verdict, 256 MiB: where more differ, nobody needs the rest of the list."""


@dataclass
class Findings:
    """What a comparison has come to so far. at: up to which byte the plan was compared. suspects: found different, not looked at again yet.

    much: so much differs that the rest was left out.
    """

    at: int = 0
    compared: int = 0
    suspects: list[Range] = field(default_factory=list)
    settling: Settling = field(default_factory=lambda: Settling(None))
    much: bool = False

    def pending(self, size: int) -> tuple[Range, ...]:
        """All that has no verdict yet."""
        return merged([*self.suspects, *ranges_of(self.settling.open, UNIT, size)])


class Leader:
    """progress: called with the bytes compared, of how many. say: called with what is done next."""

    def __init__(
        self,
        pair: Pair,
        plan: Plan,
        findings: Findings,
        pace: Pace,
        progress: Callable[[int, int], None] = lambda done, total: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._pair, self._plan, self._pace, self._progress, self._say = pair, plan, pace, progress, say
        self.findings = findings
        self._number = 0
        self._last: Moment | None = None
        self._dice = random.Random()  # noqa: S311 - to keep out of step with others' clocks

    def run(self) -> None:
        """Raises VerifyStopped, Interrupted, OSError; findings hold what is known then."""
        self._last = self._pair.now()
        self._pair.check(self._last)
        self._pass()
        self._weed()
        self._settle()

    # --- the first pass ----------------------------------------------------------------------------------------

    def _pass(self) -> None:
        found, total = self.findings, self._plan.total
        if not total:
            return
        under_way: deque[tuple[Range, ...]] = deque()
        busy = time.monotonic()
        for ranges in self._plan.slices(found.at):
            begins = time.monotonic() + self._pace.before(_bytes_of(ranges), time.monotonic())
            if self._pace.slowed or begins > time.monotonic():
                self._drain(under_way)  # or the rest would be measured by a part of what was read since the last one
            rest = max(0.0, begins - time.monotonic()) + self._pace.after(time.monotonic() - busy)
            if rest > 0:
                self._pair.rest(rest)
            busy = time.monotonic()
            self._ask(ranges, self._plan.granularity)
            self._pair.ask_moment()
            under_way.append(ranges)
            if len(under_way) > _AHEAD:
                self._confirm(under_way)
            self._progress(found.compared, total)
            if sum(length for _, length in found.suspects) > _WEED_BYTES or len(found.suspects) > _WEED_RANGES:
                self._drain(under_way)
                self._weed()
            if len(found.settling) > OPEN_MAX:
                found.much = True
                break
        self._drain(under_way)
        self._progress(found.compared if found.much else total, total)

    def _drain(self, under_way: deque[tuple[Range, ...]]) -> None:
        while under_way:
            self._confirm(under_way)

    def _confirm(self, under_way: deque[tuple[Range, ...]]) -> None:
        """Take one slice's answers, which count only if both disks have served them, by what both nodes say after it."""
        ranges = under_way.popleft()
        both = self._pair.answer()
        moment = self._pair.moment()
        assert self._last is not None
        kib = [_kib_read(ranges, self._plan.granularity, side) for side in (both.here, both.there)]
        self._pair.compare(self._last, moment, *kib)
        self._last = moment
        for node, state in zip(self._pair.names, (moment.here, moment.there), strict=True):
            self._pace.see(node, state, time.monotonic())
        self.findings.suspects += differing(both, ranges, self._plan.granularity)
        self.findings.at = sum(ranges[-1])
        self.findings.compared += _bytes_of(ranges)

    # --- further looks -----------------------------------------------------------------------------------------

    def _weed(self) -> None:
        """A first look at the suspects in blocks of UNIT: most were just being written and are equal by now."""
        looks = list(batches(merged(self.findings.suspects)))
        while looks:
            self._look_at(looks[0], fresh=True)
            del looks[0]
            self.findings.suspects = [part for batch in looks for part in batch]
            if len(self.findings.settling) > OPEN_MAX:
                self.findings.much = True
                self.findings.suspects = []
                return

    def _settle(self) -> None:
        settling = self.findings.settling
        if not len(settling):
            return
        self._say(f"{len(settling) * UNIT >> 10} KiB differ at first sight and are looked at again")
        for number, pause in enumerate(pauses(settling.patience)):
            if not len(settling):
                return
            if number == 6 and settling.patience is not None:
                self._say(
                    f"{len(settling) * UNIT >> 10} KiB still differ while guests write: they are followed for {settling.patience:.0f} s, "
                    "after which no write can be under way any more"
                )
            self._pair.rest(pause * self._dice.uniform(1.0, 1.1))
            for batch in batches(ranges_of(settling.open, UNIT, self._plan.size)):
                self._look_at(batch)
        settling.finish()

    def _look_at(self, batch: Sequence[Range], fresh: bool = False) -> None:
        """One look at a few blocks on both nodes, and whether anybody wrote meanwhile. fresh: they have not been looked at in this size."""
        before = self._pair.now()
        began = time.monotonic()
        self._ask(batch, UNIT)
        both = self._pair.answer()
        ended = time.monotonic()
        after, later = self._pair.now(), self._pair.now()
        self._pair.compare(before, after, *(_kib_read(batch, UNIT, side) for side in (both.here, both.there)))
        self._last = later
        self._pair.check(later)
        still = all(
            states.still(one, two)
            for one, two in (
                (before.here, after.here),
                (before.here, later.here),
                (before.there, after.there),
                (before.there, later.there),
            )
        )
        look = look_of(batch, both, began, ended, still)
        if fresh:
            self.findings.settling.suspect(look.blocks)
        self.findings.settling.see(look)

    def _ask(self, ranges: Sequence[Range], granularity: int) -> None:
        self._number = (self._number + 1) % (1 << 32)
        self._pair.ask(Request(self._number, tuple(ranges), granularity))


def differing(both: Both, ranges: Sequence[Range], granularity: int) -> list[Range]:
    """The parts of a slice whose digests differ, or that a side could not read."""
    here, there = both.here, both.there
    if here.values == there.values and not here.errors and not there.errors:
        return []
    blocks = [
        (at, min(granularity, start + length - at))
        for start, length in ranges
        for at in range(start, start + length, granularity)
    ]
    return list(
        merged(
            [
                block
                for number, block in enumerate(blocks)
                if number in here.errors or number in there.errors or _digest(here, number) != _digest(there, number)
            ]
        )
    )


def batches(ranges: Iterable[Range]) -> Iterable[list[Range]]:
    """The ranges cut into looks."""
    batch: list[Range] = []
    left = _BATCH_BYTES
    for start, length in ranges:
        position, end = start, start + length
        while position < end:
            piece = min(end - position, left)
            batch.append((position, piece))
            position += piece
            left -= piece
            if not left or len(batch) >= _BATCH_RUNS:
                yield batch
                batch, left = [], _BATCH_BYTES
    if batch:
        yield batch


def look_of(batch: Sequence[Range], both: Both, began: float, ended: float, still: bool) -> Look:
    blocks = list(blocks_of(batch, UNIT))
    return Look(
        blocks=blocks,
        here=both.here.values,
        there=both.there.values,
        began=began,
        ended=ended,
        still=still,
        lost_here=frozenset(blocks[at] for at in both.here.errors),
        lost_there=frozenset(blocks[at] for at in both.there.errors),
    )


def _bytes_of(ranges: Sequence[Range]) -> int:
    return sum(length for _, length in ranges)


def _digest(answer: Answer, number: int) -> bytes:
    return answer.values[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def _kib_read(ranges: Sequence[Range], granularity: int, answer: Answer) -> int:
    """What DRBD must have counted at least; of a range where something could not be read nobody knows how much that was."""
    kib = first = 0
    for _, length in ranges:
        behind = first + -(-length // granularity)
        if not any(first <= number < behind for number in answer.errors):
            kib += length >> 10
        first = behind
    return kib
