"""What the last check of a storage's write path has found, on the disk of the node that led: for `mirror status` and `doctor`.

A mismatch stands until a whole check found none: one that could not check all says nothing of the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TypeAlias

from pvedrbdstor.verify import kept
from pvedrbdstor.verify.kept import COULD_NOT, Unknown, age, plain
from pvedrbdstor.verify.write_path.engines import MODES, Mode
from pvedrbdstor.verify.write_path.facts import Outcome, safer

FOLDER = "/var/lib/pvedrbdstor/verify/write-path"
VERDICTS = ("ok", "mismatch", "incomplete", COULD_NOT)


@dataclass(frozen=True, slots=True)
class Check:
    """began, ended: seconds since 1970. node: the one that led. disks: of guests that were at risk, None where nobody could tell. reason: why
    it could not be checked, or not all of it. writes: what became of the writes of its own that were not as they should be. modes: QEMU's, that gave
    wrong content or failed, each as `AIO/CACHE`, a blank between. safer: the one to use instead."""

    node: str
    verdict: str
    began: float
    ended: float
    disks: int | None = None
    reason: str | None = None
    writes: str | None = None
    modes: str | None = None
    safer: str | None = None


Record: TypeAlias = kept.Record[Check]


def check_of(found: Outcome, now: float) -> Check:
    at_risk = {(drive.vmid, drive.key) for risk in found.risks for drive in risk.drives}
    return Check(
        node=found.here,
        verdict=found.verdict,
        began=found.began,
        ended=now,
        disks=None if found.guests is None else len(at_risk),
        reason=plain("; ".join(found.unchecked) or None),
        writes=plain("; ".join(_amiss(found)) or None),
        modes=" ".join(map(_short, found.failing)) or None,
        safer=None if (better := safer(found.modes)) is None else _short(better),
    )


def _amiss(found: Outcome) -> Iterator[str]:
    for direction in found.directions:
        if direction.late or direction.missing:
            count = f"{direction.late + direction.missing} of {len(direction.seen)}"
            yield f"{count} writes of {direction.writer} were not on {direction.reader}'s disk when they were acknowledged"
        if direction.changed:
            yield f"{direction.changed} of {len(direction.seen)} blocks of {direction.writer} read otherwise on {direction.reader}"
        if direction.ground.loose:
            yield f"DRBD on {direction.reader} has protocol {', '.join(direction.ground.loose)}"


def _short(mode: Mode) -> str:
    return f"{mode.aio}/{mode.cache}"


def modes_of(words: str | None) -> tuple[Mode, ...]:
    """Those that a check has kept, as far as they are modes known here."""
    kept_ = (words or "").split()
    return tuple(mode for mode in MODES if _short(mode) in kept_)


def failed(node: str, began: float, now: float, reason: str) -> Check:
    """A try that came to nothing."""
    return Check(node, COULD_NOT, began, now, reason=plain(reason))


def keep(storage: str, check: Check) -> None:
    """On the disk when this returns. Raises OSError."""
    kept.keep(path(storage), check, lambda: read(storage), stands=check.verdict != "incomplete")


def path(storage: str) -> str:
    return f"{FOLDER}/{storage}.json"


def read(storage: str) -> Record | None:
    """None where it was never checked from this node. Raises Unknown."""
    return kept.read(path(storage), Check, VERDICTS)


def as_json(record: Record | None) -> dict[str, object] | None:
    """As of kept.as_json(), with `standing`: the last one that has found a mismatch, or none in all of it."""
    told = kept.as_json(record)
    standing = record.standing if record is not None else None
    return None if told is None else {**told, "standing": None if standing is None else asdict(standing)}


def line(record: Record | None, now: float | None = None) -> str:
    """For people: `last write path check: ok, 3 days ago (2 disks of guests at risk)`."""
    if record is None:
        return "write path never checked"
    now = time.time() if now is None else now
    last, judged = record.last, record.judged
    if last.verdict != COULD_NOT:
        return f"last write path check: {_told(last, now)}"
    reason = f": {last.reason.rstrip('.')}" if last.reason else ""
    before = _told(judged, now) if judged is not None else "never one that came to a verdict"
    return f"last write path check: {COULD_NOT}, {age(now - last.ended)} ago{reason}; before: {before}"


def _told(check: Check, now: float) -> str:
    verdict = "MISMATCH" if check.verdict == "mismatch" else check.verdict
    at_risk = f" ({check.disks} disk{'s' if check.disks != 1 else ''} of guests at risk)" if check.disks else ""
    return f"{verdict}, {age(now - check.ended)} ago{at_risk}"


__all__ = [
    "COULD_NOT",
    "VERDICTS",
    "Check",
    "Record",
    "Unknown",
    "as_json",
    "check_of",
    "failed",
    "keep",
    "line",
    "modes_of",
    "path",
    "read",
]
