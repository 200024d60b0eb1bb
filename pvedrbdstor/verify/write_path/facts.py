"""What the write path was seen to do, as values, and what follows from it. No I/O here."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pvedrbdstor.drbd.disk_cache import WRITE_BACK
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify.write_path.engines import Mode, Result, Tried


@dataclass(frozen=True, slots=True)
class Ground:
    """What a node's writes go to. lower: the disk below DRBD. protocols, flushes: as in drbd.lower. write_cache: of the disk as the kernel
    has it (`write back`: volatile, `write through`: none), None where it does not tell."""

    lower: str
    protocols: tuple[str, ...]
    flushes: bool
    write_cache: str | None

    @property
    def loose(self) -> tuple[str, ...]:
        """The protocols in force that acknowledge a write before the other disk has it."""
        return tuple(sorted({protocol for protocol in self.protocols if protocol != "C"}))

    @property
    def volatile(self) -> bool:
        """Whether a power failure may take what the disk has acknowledged, as DRBD does not have it flush its cache."""
        return self.write_cache == WRITE_BACK and not self.flushes


@dataclass(frozen=True, slots=True)
class Seen:
    """One block, seen on the other node's lower disk. latency: seconds of the write. lag: seconds from its acknowledgement to the answer of
    that disk, so that the block was there no later (whether sooner than it was acknowledged only DRBD's protocol says); late: whether it was not there yet at the first look; there: whether it ever was."""

    latency: float
    lag: float
    late: bool
    there: bool


@dataclass(frozen=True, slots=True)
class Direction:
    """Writes of ``writer``, followed to ``reader``. ground: the reader's. changed: blocks that it reads otherwise through the mount."""

    writer: str
    reader: str
    ground: Ground
    seen: tuple[Seen, ...]
    changed: int

    @property
    def late(self) -> int:
        return sum(1 for seen in self.seen if seen.there and seen.late)

    @property
    def missing(self) -> int:
        return sum(1 for seen in self.seen if not seen.there)

    @property
    def at_first_look(self) -> bool:
        """Whether the reader's disk gave back each write as it was written as soon as it was asked."""
        return not (self.late or self.missing)

    @property
    def good(self) -> bool:
        return self.at_first_look and not self.changed and not self.ground.loose

    def latencies(self) -> dict[str, float]:
        """Milliseconds."""
        return percentiles([seen.latency * 1000 for seen in self.seen])

    def lags(self) -> dict[str, float]:
        return percentiles([seen.lag * 1000 for seen in self.seen])


class Why(enum.StrEnum):
    MODE = "mode"
    """It uses a mode that has not passed."""
    FLUSHES = "flushes"
    """With O_DIRECT the kernel loses some flushed writes when the node loses its power (docs/lab.md)."""
    UNSAFE = "unsafe"
    """cache=unsafe: QEMU ignores the guest's flushes."""


@dataclass(frozen=True, slots=True)
class Risk:
    """Guests' disks that are at risk by one cause; detail: in words, for MODE."""

    why: Why
    drives: tuple[Drive, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """began: seconds since 1970. guests: how many disks of guests were looked at, None where their configurations could not be read.
    unchecked: what could not be checked, in sentences."""

    storage: str
    here: str
    there: str
    blocks: int
    began: float
    seconds: float
    directions: tuple[Direction, ...]
    modes: tuple[Tried, ...] = ()
    risks: tuple[Risk, ...] = ()
    guests: int | None = None
    unchecked: tuple[str, ...] = field(default=())

    @property
    def failing(self) -> tuple[Mode, ...]:
        """The modes that gave wrong content or failed, on either node."""
        wrong = (tried.mode for tried in self.modes if tried.result in (Result.DIFFERS, Result.FAILED))
        return tuple(dict.fromkeys(wrong))

    @property
    def verdict(self) -> str:
        """ok, mismatch, or incomplete: nothing wrong, but not all could be checked."""
        if self.failing or not all(direction.good for direction in self.directions):
            return "mismatch"
        untold = self.unchecked or any(tried.result in (Result.SILENT, Result.UNTRIED) for tried in self.modes)
        return "incomplete" if untold or len(self.directions) < 2 else "ok"

    @property
    def exit_status(self) -> int:
        return {"ok": 0, "mismatch": 1}.get(self.verdict, 2)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and max, by nearest rank: each is one of the values. Empty without any."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95, 99)}
    return {**found, "max": ordered[-1]}


def risks(drives: Iterable[Drive], modes: Iterable[Tried]) -> tuple[Risk, ...]:
    """Each mode that has not passed with the disks that use it, then what is at risk whatever the modes do."""
    found: list[Risk] = []
    everyone = list(drives)
    not_passed: dict[Mode, list[Tried]] = {}
    for tried in modes:
        if tried.result not in (Result.OK, Result.UNTRIED):
            not_passed.setdefault(tried.mode, []).append(tried)
    for mode, results in not_passed.items():
        users = tuple(drive for drive in everyone if _mode_of(drive) == mode)
        if users:
            told = "; ".join(f"{tried.result} on {tried.node}" for tried in results)
            found.append(Risk(Why.MODE, users, f"{mode}: {told}"))
    for why, at_risk in (
        (Why.FLUSHES, tuple(drive for drive in everyone if drive.direct)),
        (Why.UNSAFE, tuple(drive for drive in everyone if drive.cache == "unsafe")),
    ):
        if at_risk:
            found.append(Risk(why, at_risk))
    return tuple(found)


def safer(modes: Iterable[Tried]) -> Mode | None:
    """The mode to use instead: of those that have passed on every node the first through the page cache, else the first."""
    results: dict[Mode, set[Result]] = {}
    for tried in modes:
        results.setdefault(tried.mode, set()).add(tried.result)
    passed = [mode for mode, found in results.items() if found == {Result.OK}]
    cached = [mode for mode in passed if mode.cache == "writeback"]
    return next(iter([*cached, *passed]), None)


def _mode_of(drive: Drive) -> Mode:
    """cache=unsafe is writeback without flushes."""
    return Mode(drive.aio, "writeback" if drive.cache == "unsafe" else drive.cache)
