"""The replication link, and the nodes' clocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor.doctor.checks.o2cb import anew, registered, unregister
from pvedrbdstor.doctor.facts import Look, Node, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.drbd.endpoints import endpoints
from pvedrbdstor.ocfs2 import o2cb

MTU = Entry("network-mtu-differs", (Severity.WARNING,), "the ends of the replication link have different MTUs")
SHARED = Entry("network-shared", (Severity.HINT,), "the replication link shares a bridge with guests")
SLOW = Entry("network-slow", (Severity.WARNING,), "the replication link has less than 1 Gbit/s")
SLOWER = Entry(
    "network-slower-than-disk",
    (Severity.HINT,),
    "the replication link carries less than a third of what the slower of the two disks reads",
)
CLOCK = Entry("clock-skew", (Severity.WARNING,), "the nodes' clocks are two seconds or more apart")
ENTRIES = (MTU, SHARED, SLOW, SLOWER, CLOCK)
_SHARE = 3
_BYTES_OF_MBIT, _MB = 125_000, 1_000_000
_SKEW_SECONDS = 2.0
_SLOW_MBIT = 1000
_GUESTS = ("tap", "veth", "fwpr", "fwln")
"""Interfaces that Proxmox makes for guests (PVE::Network)."""


@dataclass(frozen=True, slots=True)
class Link:
    """One end. name: of the interface that has the address. below: the interfaces that it lies upon, itself first, without bridges, which tell the
    speed of their fastest port, a guest's too (br_get_link_ksettings() in net/bridge/br_device.c). bridges: with guests, that it shares."""

    name: str
    mtu: int | None
    below: tuple[str, ...]
    bridges: tuple[str, ...]


def check(look: Look) -> Iterator[Finding]:
    for resource in dict.fromkeys(storage.resource for storage in look.storages):
        ends = {node.name: end for node in look.nodes if (end := link(node, resource)) is not None}
        for node in look.nodes:
            if node.name in ends:
                yield from _end(node, ends[node.name], resource, [storage.id for storage in look.storages])
        mtus = {end.mtu for end in ends.values() if end.mtu is not None}
        if len(mtus) > 1:
            told = " and ".join(f"{end.mtu} on {name} ({plain(end.name, 20)})" for name, end in ends.items())
            lowest = min(mtus)
            changes = [
                f"on {name} 'ip link set {plain(end.name, 20)} mtu {lowest}'"
                for name, end in ends.items()
                if end.mtu != lowest
            ]
            yield MTU.found(
                f"The replication link of '{resource}' has MTU {told}",
                "Large packets get lost in one direction: DRBD connects, and stands still under load.",
                f"Make it the same in /etc/network/interfaces. Some network cards drop the link for seconds when it is changed, which may fence a node: run "
                f"'pvedrbdstor mirror down' for its storages on both nodes first, then {', '.join(changes)}",
                nodes=tuple(ends),
            )
        yield from _beside_the_disks(look, ends, resource)
    yield from _clocks(look)


def _beside_the_disks(look: Look, ends: Mapping[str, Link], resource: str) -> Iterator[Finding]:
    """What the drivers tell against what was read from both lower disks, in a moment. DRBD has one connection, which a bond carries by one of its
    members: so the slowest one counts."""
    disks = [number(node.mapping("disk_speeds").get(resource)) for node in look.nodes]
    told = [
        speed
        for node in look.nodes
        if node.name in ends
        for name in ends[node.name].below
        if (speed := _speed(node, name))
    ]
    read = min((disk for disk in disks if disk), default=0)
    if len(look.nodes) < 2 or None in disks or not told or min(told) < _SLOW_MBIT:  # which is told by itself
        return
    if min(told) * _BYTES_OF_MBIT * _SHARE < read:
        carried = min(told) * _BYTES_OF_MBIT
        yield SLOWER.found(
            f"The replication link of '{resource}' carries {carried // _MB} MB/s, and the slower disk reads {read // _MB} MB/s at least",
            "All guests' writes together, and a resync, get no more than the link carries.",
            "If guests wait for their writes, give replication a faster link, or a link of its own; 'pvedrbdstor setup facts' shows the networks",
            nodes=tuple(node.name for node in look.nodes),
        )


def _speed(node: Node, name: str) -> int | None:
    """Mbit/s, as the driver tells; None where it tells none."""
    text = node.mapping("speeds").get(name)
    found = int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 9 else 0
    return found or None


def _end(node: Node, end: Link, resource: str, ids: Sequence[str]) -> Iterator[Finding]:
    for bridge in end.bridges:
        yield SHARED.found(
            f"The replication of '{resource}' runs through {plain(bridge, 20)} on {node.name}, as do guests",
            "A guest's backup or flood takes the link's time from every write of all guests.",
            f"Give replication a link of its own. Write its addresses on both nodes into resource {resource} in /etc/drbd.d/ and into {o2cb.CLUSTER_CONF}, shut "
            f"all guests on the storage down, and {anew(ids, _between(node, resource))}. Until then, give the ports of DRBD and OCFS2 a priority",
            nodes=(node.name,),
        )
    for name in end.below:
        speed = _speed(node, name)
        if speed is not None and speed < _SLOW_MBIT:
            yield SLOW.found(
                f"{plain(name, 20)} on {node.name}, which carries the replication of '{resource}', has {speed} Mbit/s",
                "Every write of every guest goes through it: no more than that can be written.",
                f"See why it has not more: 'ethtool {plain(name, 20)}'; a bad cable falls back so",
                nodes=(node.name,),
            )


def _between(node: Node, resource: str) -> str:
    """What takes the new addresses up, while nothing is mounted: neither DRBD nor o2cb does so by itself."""
    adjust = f"'drbdadm --dry-run adjust {resource}', which shows a new connection and no more, and 'drbdadm adjust {resource}' on all"
    cluster = registered(node)
    return adjust if cluster is None else f"{adjust}, then {unregister(cluster[0])}"


def link(node: Node, resource: str) -> Link | None:
    """Where a resource's own address lies; None where that is not told."""
    addresses = {address for address, _ in endpoints(node.text("show") or "", resource)[0]}
    interfaces = _interfaces(node.text("addresses") or "")
    own = next((found for found in interfaces.values() if addresses & set(_addresses(found))), None)
    if own is None:
        return None
    name = str(own.get("ifname"))
    below = tuple(_below(name, interfaces))
    shared = {*below, *(master for each in below if (master := _text(interfaces[each], "master")) is not None)}
    bridges = tuple(sorted(each for each in shared if each in interfaces and _has_guests(each, interfaces)))
    wires = tuple(each for each in below if _kind(interfaces[each]) != "bridge")
    return Link(name, number(own.get("mtu")), wires, bridges)


def _interfaces(text: str) -> dict[str, Mapping[str, object]]:
    """By name, from `ip -json -details address`."""
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return {}
    listed = found if isinstance(found, list) else []
    return {each["ifname"]: each for each in listed if isinstance(each, dict) and isinstance(each.get("ifname"), str)}


def _addresses(interface: Mapping[str, object]) -> Iterator[str]:
    listed = interface.get("addr_info")
    for info in listed if isinstance(listed, list) else ():
        if isinstance(info, dict) and isinstance(info.get("local"), str):
            yield info["local"]


def _below(name: str, interfaces: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Itself, what a VLAN lies upon, the members of a bond, and the ports of a bridge that are not guests'."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each in seen or each not in interfaces:
            continue
        seen.add(each)
        yield each
        if (parent := _text(interfaces[each], "link")) is not None:
            waiting.append(parent)
        if _kind(interfaces[each]) in ("bond", "bridge"):
            waiting += [
                other
                for other, found in interfaces.items()
                if found.get("master") == each and not other.startswith(_GUESTS)
            ]


def _has_guests(name: str, interfaces: Mapping[str, Mapping[str, object]]) -> bool:
    if _kind(interfaces[name]) != "bridge":
        return False
    return any(found.get("master") == name and other.startswith(_GUESTS) for other, found in interfaces.items())


def _kind(interface: Mapping[str, object]) -> str | None:
    details = interface.get("linkinfo")
    return _text(details, "info_kind") if isinstance(details, dict) else None


def _text(values: Mapping[str, object], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _clocks(look: Look) -> Iterator[Finding]:
    """A node's clock when it had looked lies between the moments at which it was asked and heard, or is off by the rest at least."""
    for other in look.others:
        if other.asked is None or other.heard is None:
            continue
        skew = max(other.asked - other.at, other.at - other.heard)
        if skew >= _SKEW_SECONDS:
            word = "behind" if other.at < other.asked else "ahead of"
            yield CLOCK.found(
                f"The clock of {other.name} is at least {skew:.0f} s {word} {look.here.name}'s",
                "Logs of the two cannot be laid side by side, and Proxmox refuses tickets of the other node.",
                "See that both ask the same servers for the time: 'systemctl status chrony systemd-timesyncd ntpsec' tells which of them runs",
                nodes=(look.here.name, other.name),
            )
