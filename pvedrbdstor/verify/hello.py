"""Who a side is: what both nodes must agree upon before their copies are compared. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pvedrbdstor.drbd.config import ResourceConfig
from pvedrbdstor.verify import values
from pvedrbdstor.verify.state import Obstacle
from pvedrbdstor.verify.wire import VERSION

LOCAL = "prefer-local"


@dataclass(frozen=True, slots=True)
class Hello:
    """One node's own words. version: of the wire. package: of pvedrbdstor. size, sector: bytes. uuid: of the OCFS2 file system.

    generation: DRBD's current data generation, in hex, None where it does not tell. read_balancing: of the volume. patience: seconds
    after which DRBD gives up a peer that leaves a request unanswered; None: never. verify_alg: of DRBD's own verify, None without.
    """

    version: int
    node: str
    package: str
    resource: str
    volume: int
    size: int
    sector: int
    uuid: str
    generation: str | None = None
    read_balancing: str | None = None
    patience: float | None = None
    verify_alg: str | None = None


def as_json(hello: Hello) -> dict[str, object]:
    return asdict(hello)


def from_json(data: Mapping[str, object]) -> Hello:
    """Raises ValueError."""
    return values.read(Hello, data)


def version_of(data: Mapping[str, object]) -> int | None:
    """Of the wire that the other side speaks, whatever the rest of its words mean."""
    version = data.get("version")
    return version if type(version) is int else None


def another_version(own: Hello, data: Mapping[str, object]) -> Obstacle | None:
    """Why two nodes do not understand one another."""
    if version_of(data) == VERSION:
        return None
    package = data.get("package")
    told = (
        f"pvedrbdstor {package}"
        if isinstance(package, str) and package.isprintable() and len(package) < 64
        else "another version"
    )
    return Obstacle(
        f"the other node has {told}, this one {own.package}, and they do not understand one another",
        "Install the same version of pvedrbdstor on both",
    )


def obstacle(own: Hello, other: Hello, storage: str) -> Obstacle | None:
    """Why the two are not copies of one mirror, or not read as such."""
    if own.node == other.node:
        return Obstacle(
            f"{own.node} has reached itself instead of its peer", "Look at the names in DRBD's configuration"
        )
    for what, mine, theirs in (
        ("DRBD resource", own.resource, other.resource),
        ("DRBD volume", str(own.volume), str(other.volume)),
        ("size in bytes", str(own.size), str(other.size)),
        ("OCFS2 UUID", own.uuid, other.uuid),
    ):
        if mine != theirs:
            return Obstacle(
                f"the {what} is {mine} on {own.node} and {theirs} on {other.node}: these are no copies of one mirror",
                "Compare /etc/pve/storage.cfg and DRBD's configuration of both nodes",
            )
    if own.generation is not None and other.generation is not None and own.generation != other.generation:
        return Obstacle(
            f"DRBD calls the data {own.generation} on {own.node} and {other.generation} on {other.node}: they are not of one generation",
            f"'pvedrbdstor mirror status {storage}' on both nodes tells more",
        )
    for side in (own, other):
        if side.read_balancing not in (None, LOCAL):
            return Obstacle(
                f"`read-balancing {side.read_balancing}` lets DRBD on {side.node} read from its peer, which would prove nothing",
                f"Set it to {LOCAL} in disk {{ }} of {side.resource}, then 'drbdadm adjust {side.resource}' there",
            )
    return None


def patience_of(config: ResourceConfig) -> float | None:
    """Seconds for which a request can be under way at most: `timeout` times `ko-count`, and as long as the link's death goes unnoticed.

    net { } of drbd.conf(5): a peer that leaves a request unanswered for `timeout` x `ko-count` is given up; 0 is for ever.
    """
    times = []
    for net in config.nets:
        if not net.ko_count or net.timeout is None or net.detection is None:
            return None
        times.append(net.timeout * net.ko_count + net.detection)
    return max(times, default=None)


def longest_patience(own: Hello, other: Hello) -> float | None:
    """Seconds after which no request of either node can be under way any more."""
    if own.patience is None or other.patience is None:
        return None
    return max(own.patience, other.patience)
