"""The settings of DRBD that decide what a failure does, as the kernel has them (`drbdsetup show`) or as they are written
(`drbdadm dump`), for 8.4 and 9. Nothing in this file does I/O.

Defaults are those of drbd.conf-8.4(5) and drbd.conf-9.0(5), since `drbdsetup show` leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.blocks import Block

_NUMBER = re.compile(r"[0-9]{1,9}")
_SPLIT_OPTIONS = ("after-sb-0pri", "after-sb-1pri", "after-sb-2pri", "rr-conflict")
_DISCARD_NOTHING = ("disconnect", "retry-connect")
FENCED = "resource-and-stonith"
"""The one fencing policy that freezes I/O until the peer is known not to write."""
_FENCING_STRENGTH = ("dont-care", "resource-only", FENCED)


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The options of the connection to one peer; 8.4 has one connection, whose peer_node_id and peer are None.

    ping_interval, connect_interval, ping_timeout, timeout: seconds; None where the text has no number.
    fencing: None on 8.4, which has it in the disk's options. ko_count: how many times `timeout` a request may stay unanswered
    before the peer is given up; 0: for ever. verify_alg, data_integrity_alg: None where none is set.
    """

    peer_node_id: int | None
    peer: str | None
    protocol: str
    allow_two_primaries: bool
    after_sb_0pri: str
    after_sb_1pri: str
    after_sb_2pri: str
    rr_conflict: str
    ping_interval: float | None
    ping_timeout: float | None
    connect_interval: float | None
    timeout: float | None
    fencing: str | None
    ko_count: int | None = 7
    verify_alg: str | None = None
    data_integrity_alg: str | None = None

    @property
    def detection(self) -> float | None:
        """Seconds until a dead link is noticed at the latest: two pings, and the time-out of the last."""
        if self.ping_interval is None or self.ping_timeout is None:
            return None
        return 2 * self.ping_interval + self.ping_timeout

    @property
    def undisconnected(self) -> tuple[tuple[str, str], ...]:
        """The options of a split brain, with their values, that let DRBD settle it by itself or try again and again."""
        policies = {
            "after-sb-0pri": self.after_sb_0pri,
            "after-sb-1pri": self.after_sb_1pri,
            "after-sb-2pri": self.after_sb_2pri,
            "rr-conflict": self.rr_conflict,
        }
        return tuple((option, policy) for option, policy in policies.items() if policy != "disconnect")

    @property
    def discarding(self) -> tuple[tuple[str, str], ...]:
        """Those of them with which DRBD would choose the copy to lose."""
        return tuple(found for found in self.undisconnected if found[1] not in _DISCARD_NOTHING)


@dataclass(frozen=True, slots=True)
class ResourceConfig:
    """One resource. nets: empty where it is not told (8.4 forgets the connection's options in StandAlone).

    disk_fencing: 8.4's policy by volume, without the volumes that have no disk, where none is in force.
    quorum, on_no_quorum: 9 only, else 'off' and the default. read_balancing: by volume, of those that have a disk.
    """

    name: str
    nets: tuple[NetConfig, ...]
    disk_fencing: Mapping[int, str]
    quorum: str
    on_no_quorum: str
    read_balancing: Mapping[int, str] = field(default_factory=dict)

    def fencing(self, volume: int) -> str | None:
        """The weakest policy in force for a volume; None where it is not told."""
        policies = [net.fencing for net in self.nets if net.fencing is not None]
        if volume in self.disk_fencing:
            policies.append(self.disk_fencing[volume])
        return min(policies, key=_strength, default=None)

    @property
    def allow_two_primaries(self) -> bool | None:
        return any(net.allow_two_primaries for net in self.nets) if self.nets else None

    @property
    def detection(self) -> float | None:
        """The longest of all connections, in seconds; None where one of them does not tell, or there is none."""
        times = [net.detection for net in self.nets]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None


def parse_show(text: str) -> dict[str, ResourceConfig]:
    """The resources in the output of `drbdsetup show [RESOURCE]`; one that is cut off is left out."""
    resources = {}
    for block in blocks.parse(text).named("resource"):
        if block.whole and len(block.words) == 2:
            config = _resource(block)
            resources[config.name] = config
    return resources


def discarding(dump: str, resource: str) -> tuple[tuple[str, str], ...]:
    """What `drbdadm dump` has of a resource, with which DRBD would choose the copy to lose: option and value.

    A connection's own net { } (9) comes before the resource's, and that before the common one.
    """
    top = blocks.parse(dump)
    common = [net for owner in top.named("common") for net in owner.named("net")]
    found = []
    for owner in top.named("resource"):
        if owner.words[1:2] != (resource,):
            continue
        inherited = [*owner.named("net"), *common]
        for chain in (inherited, *([*each.named("net"), *inherited] for each in owner.named("connection"))):
            for option in _SPLIT_OPTIONS:
                value = next((net.value(option) for net in chain if option in net.options), None)
                if value is not None and value not in _DISCARD_NOTHING:
                    found.append((option, value))
    return tuple(dict.fromkeys(found))


def fence_peer_handler(dump: str, resource: str) -> str | None:
    """The program that `drbdadm dump` names as a resource's fence-peer handler, its own or the common one.

    None where there is none; whether the resource is in the text at all is for the caller to know.
    """
    top = blocks.parse(dump)
    own = [block for block in top.named("resource") if block.words[1:2] == (resource,)]
    for owner in [*own, *top.named("common")]:
        for handlers in owner.named("handlers"):
            if command := handlers.value("fence-peer"):
                return command
    return None


def hosts(dump: str, resource: str) -> tuple[str, ...]:
    """The nodes that `drbdadm dump` has for a resource, by the names that `uname -n` gives them; none of floating ones."""
    return tuple(
        host
        for block in blocks.parse(dump).named("resource")
        if block.words[1:2] == (resource,)
        for section in block.named("on")
        for host in section.words[1:]
    )


def hosts_with_disk(dump: str, resource: str, volume: int) -> tuple[str, ...]:
    """Those of hosts() that have a disk for a volume: not with `disk none`, as a tiebreaker of DRBD 9 has it."""
    return tuple(
        host
        for block in blocks.parse(dump).named("resource")
        if block.words[1:2] == (resource,)
        for section in block.named("on")
        if _disk(section, block, volume) != "none"
        for host in section.words[1:]
    )


def _disk(host: Block, resource: Block, volume: int) -> str | None:
    """As written for the host, else for all hosts of the resource; an option that stands in no volume { } is of all."""
    for owner in (host, resource):
        inside = [block for block in owner.named("volume") if block.words[1:2] == (str(volume),)]
        for block in (*inside, owner):
            if (disk := block.value("disk")) is not None:
                return disk
    return None


def resources(dump: str) -> tuple[str, ...]:
    """The names of all that `drbdadm dump` has."""
    return tuple(block.words[1] for block in blocks.parse(dump).named("resource") if len(block.words) > 1)


def _resource(block: Block) -> ResourceConfig:
    options = _section(block, "options")
    hosts = list(block.named("_this_host"))
    connections = list(block.named("connection"))
    v9 = bool(connections) or any("node-id" in host.options for host in hosts)
    owners = connections if v9 else [block] if list(block.named("net")) or list(block.named("_remote_host")) else []
    volumes = [volume for host in hosts for volume in host.named("volume")]
    return ResourceConfig(
        name=block.words[1],
        nets=tuple(_net(owner, v9) for owner in owners),
        disk_fencing={} if v9 else dict(fencing for volume in volumes for fencing in _disk_fencing(volume)),
        quorum=options.value("quorum") or "off",
        on_no_quorum=options.value("on-no-quorum") or "suspend-io",
        read_balancing=dict(policy for volume in volumes for policy in _read_balancing(volume)),
    )


def _disk_fencing(volume: Block) -> list[tuple[int, str]]:
    """The policy of a volume of 8.4: stored with its disk, so without a disk there is none."""
    return _disk_option(volume, "fencing", "dont-care")


def _read_balancing(volume: Block) -> list[tuple[int, str]]:
    return _disk_option(volume, "read-balancing", "prefer-local")


def _disk_option(volume: Block, option: str, default: str) -> list[tuple[int, str]]:
    """(volume, value); none of a volume without a disk."""
    number = _number(volume.words[1]) if len(volume.words) == 2 else None
    if number is None or volume.value("disk") is None:
        return []
    return [(int(number), _section(volume, "disk").value(option) or default)]


def _net(owner: Block, v9: bool) -> NetConfig:
    net = _section(owner, "net")

    def seconds(option: str, default: float, unit: float = 1) -> float | None:
        if option not in net.options:
            return default
        number = _number(net.value(option) or "")
        return None if number is None else number * unit

    peer = _number(owner.value("_peer_node_id") or "")
    ko_count = _number(net.value("ko-count") or "7")
    return NetConfig(
        peer_node_id=None if peer is None else int(peer),
        peer=net.value("_name"),
        protocol=net.value("protocol") or "C",
        allow_two_primaries=net.value("allow-two-primaries") in ("", "yes"),
        after_sb_0pri=net.value("after-sb-0pri") or "disconnect",
        after_sb_1pri=net.value("after-sb-1pri") or "disconnect",
        after_sb_2pri=net.value("after-sb-2pri") or "disconnect",
        rr_conflict=net.value("rr-conflict") or "disconnect",
        ping_interval=seconds("ping-int", 10),
        ping_timeout=seconds("ping-timeout", 0.5, 0.1),
        connect_interval=seconds("connect-int", 10),
        timeout=seconds("timeout", 6, 0.1),
        fencing=(net.value("fencing") or "dont-care") if v9 else None,
        ko_count=None if ko_count is None else int(ko_count),
        verify_alg=net.value("verify-alg") or None,
        data_integrity_alg=net.value("data-integrity-alg") or None,
    )


def _section(block: Block, name: str) -> Block:
    return next(block.named(name), Block((name,)))


def _strength(policy: str) -> int:
    """A policy that is not known here counts as none."""
    return _FENCING_STRENGTH.index(policy) if policy in _FENCING_STRENGTH else 0


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None
