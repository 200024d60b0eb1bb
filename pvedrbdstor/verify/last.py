"""What the last check of a storage has found, on this node's disk: for `mirror status` and for whoever monitors.

Checks of what was written before a rejoin have a record of their own: a clean one says nothing of the rest, and must not stand where a check of
all of it stood. One that has found a difference stands in both.

A difference stands until all that is allocated was found equal, by either node: a sample that has met nothing, or a comparison that left something
open, says nothing of that block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.verify import kept
from pvedrbdstor.verify.kept import COULD_NOT, Unknown, age, plain

FOLDER = "/var/lib/pvedrbdstor/verify/last"
"""A folder of its own: a storage may be called `ha.last`, and its file must not be mistaken for another's."""
REJOIN = "rejoin"
SAMPLE = "sample"
"""The modes of such comparisons (verify.plan.Mode)."""
VERDICTS = ("clean", "diverged", "unsettled", "unreadable", COULD_NOT)
"""`unreadable`: a disk could not give back some of it; the rest is equal."""


@dataclass(frozen=True, slots=True)
class Check:
    """began, ended: seconds since 1970. node: the one that led. compared, size, diverged, unsettled, unreadable: bytes. reason: why it could
    not check. resumed: it went on with one that was interrupted; began is that one's."""

    mode: str
    node: str
    verdict: str
    began: float
    ended: float
    compared: int = 0
    size: int = 0
    diverged: int = 0
    unsettled: int = 0
    unreadable: int = 0
    reason: str | None = None
    resumed: bool | None = None


Record: TypeAlias = kept.Record[Check]


class Compared(Protocol):
    """What a comparison has found; verify.report.Outcome is one."""

    @property
    def storage(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def here(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def began(self) -> float: ...
    @property
    def compared(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def diverged(self) -> Iterable[Range]: ...
    @property
    def unsettled(self) -> Iterable[Range]: ...
    @property
    def unreadable_here(self) -> Iterable[Range]: ...
    @property
    def unreadable_there(self) -> Iterable[Range]: ...
    @property
    def stopped(self) -> str | None: ...
    @property
    def resumed(self) -> bool: ...


def check_of(found: Compared, now: float) -> Check:
    """What differs for certain is diverged, also where the comparison was stopped later."""
    diverged = _total(found.diverged)
    verdict = "diverged" if diverged else found.verdict if found.verdict in VERDICTS else COULD_NOT
    return Check(
        mode=found.mode,
        node=found.here,
        verdict=verdict,
        began=found.began,
        ended=now,
        compared=found.compared,
        size=found.size,
        diverged=diverged,
        unsettled=_total(found.unsettled),
        unreadable=_total(found.unreadable_here) + _total(found.unreadable_there),
        reason=plain(found.stopped),
        resumed=found.resumed,
    )


def failed(mode: str, node: str, began: float, now: float, reason: str) -> Check:
    """A try that was refused."""
    return Check(mode, node, COULD_NOT, began, now, reason=plain(reason))


def keep(storage: str, check: Check) -> None:
    """On the disk when this returns. Raises OSError."""
    if check.mode == REJOIN:
        _keep(storage, check, rejoin=True)
        known = _read_or_none(storage)
        if check.verdict == "diverged" and (known is None or differing(known) is None):
            _keep(storage, check)
    else:
        _keep(storage, check)


def of_all(check: Check) -> bool:
    """Whether it has found all that is allocated equal, so that no earlier difference stands."""
    return check.verdict == "clean" and check.mode not in (SAMPLE, REJOIN)


def take_back(storage: str, check: Check) -> None:
    """What the other node has found equal takes this one's difference back, if that was known before the comparison began: it may have been
    past that block otherwise. Raises OSError."""
    known = _read_or_none(storage)
    found = differing(known) if known is not None else None
    if found is not None and of_all(check) and found.ended <= check.began:
        _keep(storage, check)


def from_text(text: str) -> Check:
    """Of JSON, as asdict() has it. Raises ValueError."""
    return kept.check_of(text, Check, VERDICTS)


def _read_or_none(storage: str) -> Record | None:
    try:
        return read(storage)
    except Unknown:
        return None


def _keep(storage: str, check: Check, *, rejoin: bool = False) -> None:
    stands = check.verdict == "diverged" or (check.verdict == "clean" and check.mode != SAMPLE)
    kept.keep(path(storage, rejoin=rejoin), check, lambda: read(storage, rejoin=rejoin), stands=stands)


def path(storage: str, *, rejoin: bool = False) -> str:
    return f"{FOLDER}/rejoin/{storage}.json" if rejoin else f"{FOLDER}/{storage}.json"


def read(storage: str, *, rejoin: bool = False) -> Record | None:
    """rejoin: of the comparisons of rejoins. None where it was never checked on this node. Raises Unknown."""
    return kept.read(path(storage, rejoin=rejoin), Check, VERDICTS)


def as_json(record: Record | None) -> dict[str, object] | None:
    """As of kept.as_json(), with `standing`: the last one that has found a difference, or all that is allocated equal."""
    told = kept.as_json(record)
    standing = record.standing if record is not None else None
    return None if told is None else {**told, "standing": None if standing is None else asdict(standing)}


def differing(record: Record) -> Check | None:
    """The one that has found a difference which none found gone since."""
    found = record.standing
    return found if found is not None and found.verdict == "diverged" else None


def line(record: Record | None, size_of: SizeOf, now: float | None = None, name: str = "last verify") -> str:
    """For people: `last verify: clean, full, 3 days ago (412 GiB)`. size_of: how a size is written. name: how it begins."""
    if record is None:
        return "never verified"
    now = time.time() if now is None else now
    last, judged = record.last, record.judged
    found = differing(record)
    open_still = (
        ""
        if found in (None, last, judged)
        else f"; what differed was not found equal since: {_told(found, size_of, now)}"
    )
    if last.verdict != COULD_NOT:
        return f"{name}: {_told(last, size_of, now)}{open_still}"
    reason = f": {last.reason}" if last.reason else ""
    before = _told(judged, size_of, now) if judged is not None else "never one that came to a verdict"
    return f"{name}: {COULD_NOT}, {last.mode}, {age(now - last.ended)} ago{reason.rstrip('.')}; before: {before}{open_still}"


class SizeOf(Protocol):
    def __call__(self, size: int, /) -> str: ...


def _told(check: Check, size_of: SizeOf, now: float) -> str:
    differs = f", {size_of(check.diverged)} DIFFER" if check.diverged else ""
    begun = f", begun {age(now - check.began)} ago and resumed" if check.resumed else ""
    return f"{check.verdict}, {check.mode}, {age(now - check.ended)} ago{begun} ({size_of(check.compared)}{differs})"


def _total(ranges: Iterable[Range]) -> int:
    return sum(length for _, length in ranges)


__all__ = [
    "COULD_NOT",
    "VERDICTS",
    "Check",
    "Record",
    "Unknown",
    "age",
    "as_json",
    "check_of",
    "differing",
    "failed",
    "from_text",
    "keep",
    "line",
    "of_all",
    "path",
    "read",
    "take_back",
]
