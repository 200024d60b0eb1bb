"""What was measured, and whether it is what was asked for. Pure. All times are seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """One run: all its seconds, and those of them spent in syncing to disk for durability.

    cpu: CPU seconds of all processes of our side together; 0 where unknown.
    """

    total: float
    sync: float = 0.0
    cpu: float = 0.0

    @property
    def own(self) -> float:
        return self.total - self.sync


@dataclass(frozen=True)
class Series:
    """Repeated runs of one thing."""

    label: str
    timings: tuple[Timing, ...]

    @property
    def own(self) -> float:
        """The median without syncing."""
        return statistics.median(timing.own for timing in self.timings)

    @property
    def own_p95(self) -> float:
        """Without syncing, what 95 of 100 runs stay within."""
        return percentile([timing.own for timing in self.timings], 95)

    def cpu(self, percent: float) -> float:
        """The CPU seconds that ``percent`` of 100 runs stay within."""
        return percentile([timing.cpu for timing in self.timings], percent)

    @property
    def sync(self) -> float:
        """The median of the syncing alone."""
        return statistics.median(timing.sync for timing in self.timings)


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that ``percent`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True)
class Verdict:
    """measured: for people; ratio: reference by ours, or for a bound ours by the reference; met: None without a goal."""

    goal: str
    measured: str
    ratio: float
    met: bool | None


@dataclass(frozen=True)
class Faster:
    """At least ``times`` faster than the reference, by the clock on the wall.

    Where a ``limit`` is given, median and 95th percentile of its CPU time stay under it, which is its own whatever
    else a busy machine does.
    """

    times: float
    limit: float | None = None

    def judge(self, ours: Series, reference: Series) -> Verdict:
        ratio = reference.own / ours.own
        goal, measured = f"at least {self.times:g} times faster", f"{digits(ratio)} times faster"
        met = ratio >= self.times
        if self.limit is not None:
            goal += f", under {self.limit * 1e3:g} ms CPU"
            median, p95 = ours.cpu(50), ours.cpu(95)
            measured += f", {digits(median * 1e3)} ms CPU (p95 {digits(p95 * 1e3)} ms)"
            met = met and median < self.limit and p95 < self.limit
        return Verdict(goal, measured, ratio, met)


@dataclass(frozen=True)
class Within:
    """At most ``times`` the reference and ``plus`` seconds."""

    times: float
    plus: float

    def judge(self, ours: Series, reference: Series) -> Verdict:
        bound = reference.own * self.times + self.plus
        goal = f"within {self.times:g} x the bare call + {self.plus * 1e3:g} ms"
        measured = f"{digits(ours.own * 1e3)} ms, the bound is {digits(bound * 1e3)} ms"
        return Verdict(goal, measured, ours.own / reference.own, ours.own <= bound)


@dataclass(frozen=True)
class Share:
    """At least this share of the reference's rate, where both move so many bytes."""

    share: float
    size: int

    def judge(self, ours: Series, reference: Series) -> Verdict:
        ratio = reference.own / ours.own
        rates = " and ".join(f"{digits(self.size / series.own / 1e9)} GB/s" for series in (ours, reference))
        goal = f"at least {self.share:.0%} of {reference.label}"
        return Verdict(goal, f"{ratio:.0%}, {rates}", ratio, ratio >= self.share)


@dataclass(frozen=True)
class NoGoal:
    """Measured for information."""

    def judge(self, ours: Series, reference: Series) -> Verdict:
        ratio = reference.own / ours.own
        words = f"{digits(ratio)} times faster" if ratio >= 1 else f"{digits(1 / ratio)} times slower"
        return Verdict("-", words, ratio, None)


Goal = Faster | Within | Share | NoGoal


@dataclass(frozen=True)
class Comparison:
    """One line of the table: our whole line against the reference. pictured: whether the picture has it, too."""

    title: str
    ours: Series
    reference: Series
    goal: Goal
    pictured: bool = True

    @property
    def verdict(self) -> Verdict:
        return self.goal.judge(self.ours, self.reference)
