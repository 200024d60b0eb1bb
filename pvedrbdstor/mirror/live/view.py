"""What the monitor last said of a storage: one small JSON file below /run, replaced as a whole, with a heartbeat in it.

Reading it touches neither the mount nor DRBD. A file without a recent heartbeat is never taken for the present.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pvedrbdstor import files
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.finding import Finding, Kind, Severity
from pvedrbdstor.mirror.verdict import Verdict

FOLDER = "/run/pvedrbdstor/live"
HEARTBEAT_SECONDS = 2.0
"""The monitor writes at least this often."""
STALE_SECONDS = 6.0
"""Three heartbeats missed: the monitor hangs, is stopped, or the machine is out of breath."""
_FORMAT = 1
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class InUse:
    """Images that guests of this node have open, as seen while guests were admitted, and since.

    inodes: of images locked by QEMU. volumes: `VMID/NAME` of images behind loop devices (containers). guests: numbers of
    the virtual machines that ran.
    """

    inodes: frozenset[int] = frozenset()
    volumes: frozenset[str] = frozenset()
    guests: frozenset[int] = frozenset()

    def __or__(self, other: InUse) -> InUse:
        return InUse(self.inodes | other.inodes, self.volumes | other.volumes, self.guests | other.guests)

    def covers(self, vmid: int, inode: int) -> bool:
        """Whether an image is of a guest that has it, or any other of its own, open here."""
        in_a_loop = any(volume.startswith(f"{vmid}/") for volume in self.volumes)
        return inode in self.inodes or vmid in self.guests or in_a_loop


@dataclass(frozen=True, slots=True)
class View:
    """verdict: of the monitor, or `unknown` where it has not been heard of recently; last: its last, None without any.

    age: seconds since its last word, None when there was none. fresh: that is recent. sizes: bytes total, avail, used,
    None while the mount has not told. in_use: see InUse.
    """

    storage: str
    verdict: Verdict
    last: Verdict | None = None
    fresh: bool = False
    age: float | None = None
    sizes: Mapping[str, int] | None = None
    in_use: InUse = InUse()
    source: tuple[object, ...] = ()

    def describes(self, config: StorageConfig) -> bool:
        """Whether it is about the storage as it is configured now."""
        return self.source == source_of(config)


@dataclass(frozen=True, slots=True)
class Record:
    """What the monitor writes. at, since: seconds of the boot clock: of writing, and of the verdict's last change.

    losses: drbd.history's, for the next monitor.
    """

    config: StorageConfig
    verdict: Verdict
    at: float
    since: float
    sizes: Mapping[str, int] | None = None
    in_use: InUse = InUse()
    losses: list[dict[str, object]] = field(default_factory=list)


def boot_clock() -> float:
    """Seconds since the machine was booted, those asleep counted; the same for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_view(storage_id: str, folder: str | None = None) -> View:
    """The last word on a storage, fresh or not; never raises, never waits."""
    data = read_record(storage_id, folder)
    try:
        last = _verdict_from(data["verdict"])
        age = max(0.0, boot_clock() - float(data["at"]))
        sizes = data["sizes"]
        used = data["in_use"]
        in_use = InUse(*(frozenset(used.get(key, ())) for key in ("inodes", "volumes", "guests")))
        source = tuple(data["source"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return View(storage_id, _unheard(storage_id, None))
    fresh = age <= STALE_SECONDS
    verdict = last if fresh else _unheard(storage_id, age)
    return View(storage_id, verdict, last, fresh, age, sizes, in_use, source)


def read_record(storage_id: str, folder: str | None = None) -> dict[str, Any]:
    """The file as it is; empty where there is none or it is none of ours."""
    try:
        with open(_path(storage_id, folder), encoding="utf-8") as file:
            data = json.loads(file.read(_LIMIT))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and data.get("format") == _FORMAT else {}


def write_view(record: Record, folder: str | None = None) -> None:
    """Replace the file in one step; its folder is made where it is missing. Raises OSError."""
    path = _path(record.config.id, folder)
    os.makedirs(folder or FOLDER, exist_ok=True)
    data = {
        "format": _FORMAT,
        "storage": record.config.id,
        "source": list(source_of(record.config)),
        "at": record.at,
        "since": record.since,
        "verdict": verdict_as_json(record.verdict),
        "sizes": record.sizes,
        "in_use": {key: sorted(getattr(record.in_use, key)) for key in ("inodes", "volumes", "guests")},
        "losses": record.losses,
    }
    files.replace(path, json.dumps(data) + "\n")


def remove_view(storage_id: str, folder: str | None = None) -> None:
    """Of a storage that is not configured any more."""
    try:
        os.unlink(_path(storage_id, folder))
    except FileNotFoundError:
        pass


def source_of(config: StorageConfig) -> tuple[object, ...]:
    return (config.path, config.resource, config.volume, config.uuid)


def verdict_as_json(verdict: Verdict) -> dict[str, object]:
    """For the file, and for `--json`."""
    return {
        "kind": verdict.kind.value,
        "usable_here": verdict.usable_here,
        "active": verdict.active,
        "admits": verdict.admits,
        "cause": verdict.cause,
        "remedy": verdict.remedy,
        "severity": verdict.severity.name.lower(),
        "what": verdict.what,
        "also": [
            {
                "kind": finding.kind.value,
                "cause": finding.cause,
                "remedy": finding.remedy,
                "severity": finding.severity.name.lower(),
                "usable": finding.usable,
                "active": finding.active,
                "admits": finding.admits,
                "what": finding.what,
            }
            for finding in verdict.also
        ],
        "notes": list(verdict.notes),
    }


def _verdict_from(data: dict[str, Any]) -> Verdict:
    return Verdict(
        kind=Kind(data["kind"]),
        usable_here=data["usable_here"] is True,
        active=data["active"] is True,
        admits=data["admits"] is True,
        cause=str(data["cause"]),
        remedy=str(data["remedy"]),
        severity=Severity[str(data["severity"]).upper()],
        also=tuple(
            Finding(
                Kind(found["kind"]),
                str(found["cause"]),
                str(found["remedy"]),
                Severity[str(found["severity"]).upper()],
                usable=found["usable"] is True,
                active=found["active"] is True,
                admits=found["admits"] is True,
                what=str(found.get("what", "")),
            )
            for found in data["also"]
        ),
        notes=tuple(str(note) for note in data["notes"]),
        what=str(data.get("what", "")),
    )


def _unheard(storage_id: str, age: float | None) -> Verdict:
    heard = "has not reported yet" if age is None else f"last reported {age:.0f} s ago"
    return Verdict(
        kind=Kind.UNKNOWN,
        usable_here=False,
        active=False,
        admits=False,
        cause=f"The monitor of storage '{storage_id}' {heard}.",
        remedy="Look at 'systemctl status pvedrbdstor', and restart it: 'systemctl restart pvedrbdstor'.",
        severity=Severity.ERROR,
    )


def _path(storage_id: str, folder: str | None) -> str:
    return f"{folder or FOLDER}/{storage_id}.json"
