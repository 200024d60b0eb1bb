"""What `drbdsetup events2` says, as values: one line format for DRBD 8.4 and 9 (drbdsetup-events2 in drbdsetup(8)).

A line is `verb object key:value ...`. Verbs, objects and keys that are not known here are passed over, missing keys are
None: DRBD 9 has more of them than 8.4, and each release adds some. Nothing in this file does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_NUMBER = re.compile(r"[0-9]{1,18}")
_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?")
_STATE_VERBS = ("exists", "create", "change")


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `exists -`, the end of the initial state, has the object '-' and no values."""

    verb: str
    object: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Resource:
    """suspended: why I/O is frozen (user, fencing, no-data, quorum ...), empty when it is not, None when not told.

    failing: all I/O fails until the last opener has closed the device; None where DRBD does not tell (8.4).
    """

    name: str
    role: str | None
    suspended: frozenset[str] | None
    failing: bool | None


@dataclass(frozen=True, slots=True)
class Device:
    """One volume on this node. size: KiB. client: diskless on purpose. quorum, client: None where not told (8.4).

    With statistics alone: written, read: KiB of its disk since it was attached (written also for the peer). upper_pending,
    lower_pending: requests of users, and of the disk, that have not ended.
    """

    resource: str
    volume: int
    minor: int | None
    disk: str | None
    size: int | None
    quorum: bool | None
    client: bool | None
    blocked: str | None
    written: int | None = None
    read: int | None = None
    upper_pending: int | None = None
    lower_pending: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection to one peer. 8.4 names every peer 'peer' and no peer at all in StandAlone: match by node id."""

    resource: str
    peer_node_id: int
    name: str | None
    state: str | None
    role: str | None


@dataclass(frozen=True, slots=True)
class PeerDevice:
    """One volume on one peer. out_of_sync: KiB. done: per cent of a resync or verify, eta: its seconds to go.

    client: diskless on purpose. done, eta, client: None where DRBD does not tell (8.4). pending: requests to the peer that it has
    not answered, unacked: those of the peer that are not answered yet; with statistics alone.
    """

    resource: str
    peer_node_id: int
    volume: int
    replication: str | None
    disk: str | None
    client: bool | None
    resync_suspended: frozenset[str] | None
    out_of_sync: int | None
    done: float | None
    eta: int | None
    pending: int | None = None
    unacked: int | None = None


_Key = tuple[str, str, int, int]


@dataclass
class State:
    """What the events so far add up to. complete: the whole initial state has been seen."""

    complete: bool = False
    _objects: dict[_Key, dict[str, str]] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take one event in. Those that do not describe a state (calls of helpers) change nothing."""
        if event.verb == "exists" and event.object == "-":
            self.complete = True
            return
        key = _key(event)
        if key is None:
            return
        if event.verb == "destroy":
            self._objects.pop(key, None)
        elif event.verb == "change":
            self._objects.setdefault(key, {}).update(event.values)
        elif event.verb in _STATE_VERBS:
            self._objects[key] = dict(event.values)

    @property
    def resources(self) -> list[Resource]:
        return [
            Resource(
                name=name,
                role=values.get("role"),
                suspended=_reasons(values.get("suspended")),
                failing=_yes_or_no(values.get("force-io-failures")),
            )
            for (name, _, _), values in self._of("resource")
        ]

    @property
    def devices(self) -> list[Device]:
        return [
            Device(
                resource=name,
                volume=volume,
                minor=_number(values.get("minor")),
                disk=values.get("disk"),
                size=_number(values.get("size")),
                quorum=_yes_or_no(values.get("quorum")),
                client=_yes_or_no(values.get("client")),
                blocked=values.get("blocked"),
                written=_number(values.get("written")),
                read=_number(values.get("read")),
                upper_pending=_number(values.get("upper-pending")),
                lower_pending=_number(values.get("lower-pending")),
            )
            for (name, _, volume), values in self._of("device")
        ]

    @property
    def connections(self) -> list[Connection]:
        return [
            Connection(
                resource=name,
                peer_node_id=peer,
                name=values.get("conn-name"),
                state=values.get("connection"),
                role=values.get("role"),
            )
            for (name, peer, _), values in self._of("connection")
        ]

    @property
    def peer_devices(self) -> list[PeerDevice]:
        return [
            PeerDevice(
                resource=name,
                peer_node_id=peer,
                volume=volume,
                replication=values.get("replication"),
                disk=values.get("peer-disk"),
                client=_yes_or_no(values.get("peer-client")),
                resync_suspended=_reasons(values.get("resync-suspended")),
                out_of_sync=_number(values.get("out-of-sync")),
                done=_percent(values.get("done")),
                eta=_number(values.get("eta")),
                pending=_number(values.get("pending")),
                unacked=_number(values.get("unacked")),
            )
            for (name, peer, volume), values in self._of("peer-device")
        ]

    def minor_of(self, resource: str, volume: int) -> int | None:
        """The minor number of a resource's volume, None where this node does not have it."""
        for device in self.devices:
            if (device.resource, device.volume) == (resource, volume):
                return device.minor
        return None

    def _of(self, kind: str) -> Iterator[tuple[tuple[str, int, int], dict[str, str]]]:
        return ((key[1:], values) for key, values in self._objects.items() if key[0] == kind)


def parse_line(line: str) -> Event | None:
    """One whole line; None for what is no event, such as DRBD 9's `- skipped N`."""
    words = line.split()
    if len(words) < 2 or words[0].startswith("-"):
        return None
    pairs = (word.partition(":") for word in words[2:])
    return Event(words[0], words[1], {key: value for key, colon, value in pairs if colon and key})


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events in lines of text. A last line without its newline was cut off and is passed over."""
    for line in lines:
        event = parse_line(line) if line.endswith("\n") else None
        if event is not None:
            yield event


def parse_now(text: str) -> State:
    """The output of `drbdsetup events2 --now`. `complete` is false when the text was cut off."""
    state = State()
    for event in parse_events(text.splitlines(keepends=True)):
        state.apply(event)
    return state


def _key(event: Event) -> _Key | None:
    """What identifies the object of an event; None for objects that are not kept or not identified."""
    name = event.values.get("name")
    peer = _number(event.values.get("peer-node-id"))
    volume = _number(event.values.get("volume"))
    if not name:
        return None
    match event.object:
        case "resource":
            return ("resource", name, -1, -1)
        case "device" if volume is not None:
            return ("device", name, -1, volume)
        case "connection" if peer is not None:
            return ("connection", name, peer, -1)
        case "peer-device" if peer is not None and volume is not None:
            return ("peer-device", name, peer, volume)
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _percent(text: str | None) -> float | None:
    return float(text) if text is not None and _PERCENT.fullmatch(text) else None


def _yes_or_no(text: str | None) -> bool | None:
    return {"yes": True, "no": False}.get(text or "")


def _reasons(text: str | None) -> frozenset[str] | None:
    """`no`, or reasons separated by commas."""
    if text is None:
        return None
    return frozenset(reason for reason in text.split(",") if reason not in ("", "no"))
