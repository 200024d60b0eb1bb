"""What the guard tells of itself in its status file, and whether it runs. Nothing in this file does I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.fencing import paths
from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.corosync_conf import Timing

PATH = paths.STATUS
STALE_SECONDS = 10.0
"""The guard writes it anew every 2 s: one older than this is of a guard that does not run, or hangs."""
START = "systemctl start pvedrbdstor-fence"


@dataclass(frozen=True, slots=True)
class Ring:
    """The membership that corosync told last. ring: its number."""

    quorate: bool
    ring: int
    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Frozen:
    """An outage of the DRBD device ``minor``. seconds: since it began. said: what was decided last, as a clause."""

    minor: str
    seconds: float
    won: bool
    said: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """Of a guard that runs. age: seconds since it wrote. quorum, votes, timing: None where corosync does not tell it.

    version: of the program that runs. handicap: why this node could not win an outage that began now.
    """

    age: float
    pid: int
    quorum: Ring | None
    votes: Votes | None
    version: str | None = None
    handicap: str | None = None
    outages: tuple[Frozen, ...] = ()
    timing: Timing | None = None


def parse(text: str | None, now: float) -> Status | None:
    """Read the status file; now: CLOCK_BOOTTIME, as the file's own times. None: no guard runs, as far as the file tells."""
    try:
        found = json.loads(text) if text is not None else None
        if not isinstance(found, dict):
            return None
        age = now - float(found["at"])
        if not -1.0 <= age <= STALE_SECONDS:  # one from later than now is of another boot
            return None
        return Status(
            age=max(0.0, age),
            pid=int(found["pid"]),
            quorum=_ring(found.get("quorum")),
            votes=_votes(found.get("votes")),
            version=_text(found.get("version")),
            handicap=_text(found.get("handicap")),
            outages=tuple(_frozen(now, minor, outage) for minor, outage in (found.get("outages") or {}).items()),
            timing=_timing(found.get("timing")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _frozen(now: float, minor: object, values: Mapping[str, object]) -> Frozen:
    began = values["began"]
    if not isinstance(began, int | float):
        raise TypeError(began)
    return Frozen(str(minor), max(0.0, now - began), values.get("won") is True, _text(values.get("said")))


def _ring(values: object) -> Ring | None:
    if not isinstance(values, Mapping):
        return None
    return Ring(values["quorate"] is True, int(values["ring"]), frozenset(int(member) for member in values["members"]))


def _timing(values: object) -> Timing | None:
    if not isinstance(values, Mapping):
        return None
    return Timing(float(values["token"]), float(values["consensus"]))


def _votes(values: object) -> Votes | None:
    if not isinstance(values, Mapping):
        return None
    return Votes(
        node_id=int(values["node_id"]),
        expected=int(values["expected"]),
        highest_expected=int(values["highest_expected"]),
        total=int(values["total"]),
        quorum=int(values["quorum"]),
        flags=Flag(int(values["flags"])),
    )
