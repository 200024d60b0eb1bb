"""/proc/drbd of DRBD 8.4 as values (drbd_seq_show() and drbd_syncer_progress() in drivers/block/drbd/drbd_proc.c).

DRBD 9 has only its version there. On 8.4 this is the one true source of a resync's progress: `done:` of its tools is
wrong. Nothing in this file does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"[0-9]{1,20}"
_DEVICE = re.compile(
    r"^ *(?P<minor>[0-9]{1,7}): cs:(?P<cs>\w+) ro:(?P<role>\w+)/(?P<peer>\w+) ds:(?P<disk>\w+)/(?P<pdsk>\w+) "
    r"(?P<protocol>[ABC ]) (?P<flags>[rs][a-z-]{5})$"
)
_UNCONFIGURED = re.compile(r"^ *(?P<minor>[0-9]{1,7}): cs:Unconfigured$")
_COUNTER = re.compile(rf"(?<!\S)(ns|nr|dw|dr|al|bm|lo|pe|ua|ap|ep|oos):({_NUMBER})(?!\S)")
_PROGRESS = re.compile(
    rf"(?P<what>sync'ed|verified): *(?P<percent>[0-9]{{1,3}}\.[0-9]) ?% "
    rf"\((?P<left>{_NUMBER})/(?P<total>{_NUMBER})\) ?(?P<unit>[KM])"
)
_FINISH = re.compile(
    r"^\tfinish: (?P<h>[0-9]{1,12}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2}) speed: (?P<speed>[0-9,]{1,26}) \([^)]*\)"
    r"(?: want: (?P<want>[0-9,]{1,26}))? K/sec(?P<stalled> \(stalled\))?$"
)


@dataclass(frozen=True, slots=True)
class Flags:
    """The six flags of a device.

    suspended: its I/O is frozen ('s' instead of 'r'), for whatever reason. after, by_peer, by_user: the resync is
    paused by a resync-after dependency ('a'), by the peer ('p'), by an administrator here ('u'). blocked: why requests
    wait, None when they do not: 'd' inside DRBD, 'b' the lower disk, 'n' the network, 'a' both of these.
    activity_log: changes of the activity log are suspended ('s').
    """

    suspended: bool
    after: bool
    by_peer: bool
    by_user: bool
    blocked: str | None
    activity_log: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a resync or, with `verify`, of an online verify.

    percent: done. left, total: KiB, as fine as printed (MiB beyond 4 GiB). finish: seconds to go. speed, wanted: KiB/s.
    finish and speed are None where their line is missing. stalled: no progress for three minutes.
    """

    verify: bool
    percent: float
    left: int
    total: int
    finish: int | None
    speed: int | None
    wanted: int | None
    stalled: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """ns, nr, dw, dr: KiB sent, received, written, read. al, bm: writes of metadata. lo, pe, ua, ap: open requests of
    the lower disk, to the peer, not yet acknowledged to the peer, and of users. ep: epochs. oos: KiB out of sync."""

    ns: int
    nr: int
    dw: int
    dr: int
    al: int
    bm: int
    lo: int
    pe: int
    ua: int
    ap: int
    ep: int
    oos: int


@dataclass(frozen=True, slots=True)
class ProcDevice:
    """One minor. protocol: None in StandAlone. counters: None where their line is missing or cut off."""

    minor: int
    connection: str
    role: str
    peer_role: str
    disk: str
    peer_disk: str
    protocol: str | None
    flags: Flags
    counters: Counters | None
    progress: Progress | None

    @property
    def verifying(self) -> bool:
        return self.connection in ("VerifyS", "VerifyT")


@dataclass(frozen=True, slots=True)
class ProcDrbd:
    """devices: by minor. unconfigured: minors that exist without a disk and a connection, as Secondary."""

    devices: dict[int, ProcDevice]
    unconfigured: frozenset[int]


def parse(text: str) -> ProcDrbd:
    """Every device whose first line is whole. A line without its newline was cut off and is passed over."""
    lines = text.split("\n")[:-1]
    devices: dict[int, ProcDevice] = {}
    unconfigured = set()
    for number, line in enumerate(lines):
        if found := _DEVICE.fullmatch(line):
            following = _until_next_device(lines[number + 1 :])
            devices[int(found["minor"])] = _device(found, following)
        elif found := _UNCONFIGURED.fullmatch(line):
            unconfigured.add(int(found["minor"]))
    return ProcDrbd(devices, frozenset(unconfigured))


def _until_next_device(lines: list[str]) -> list[str]:
    for number, line in enumerate(lines):
        if _DEVICE.fullmatch(line) or _UNCONFIGURED.fullmatch(line):
            return lines[:number]
    return lines


def _device(found: re.Match[str], lines: list[str]) -> ProcDevice:
    protocol = found["protocol"].strip()
    return ProcDevice(
        minor=int(found["minor"]),
        connection=found["cs"],
        role=found["role"],
        peer_role=found["peer"],
        disk=found["disk"],
        peer_disk=found["pdsk"],
        protocol=protocol or None,
        flags=_flags(found["flags"]),
        counters=_counters(lines),
        progress=_progress(lines),
    )


def _flags(text: str) -> Flags:
    io, after, peer, user, blocked, activity_log = tuple(text)
    return Flags(
        suspended=io == "s",
        after=after == "a",
        by_peer=peer == "p",
        by_user=user == "u",
        blocked=None if blocked == "-" else blocked,
        activity_log=activity_log == "s",
    )


def _counters(lines: list[str]) -> Counters | None:
    for line in lines:
        values = {name: int(value) for name, value in _COUNTER.findall(line)}
        if len(values) == len(Counters.__slots__):
            return Counters(**values)
    return None


def _progress(lines: list[str]) -> Progress | None:
    done = next((found for line in lines if (found := _PROGRESS.search(line))), None)
    if done is None:
        return None
    finish = next((found for line in lines if (found := _FINISH.fullmatch(line))), None)
    scale = 1024 if done["unit"] == "M" else 1
    return Progress(
        verify=done["what"] == "verified",
        percent=float(done["percent"]),
        left=int(done["left"]) * scale,
        total=int(done["total"]) * scale,
        finish=int(finish["h"]) * 3600 + int(finish["m"]) * 60 + int(finish["s"]) if finish else None,
        speed=_grouped(finish["speed"]) if finish else None,
        wanted=_grouped(finish["want"]) if finish and finish["want"] else None,
        stalled=bool(finish and finish["stalled"]),
    )


def _grouped(text: str) -> int | None:
    digits = text.replace(",", "")
    return int(digits) if digits else None
