"""Which networks both nodes are in, and by which addresses. No I/O here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.setup.facts import Facts


@dataclass(frozen=True, slots=True)
class Link:
    """A network that both nodes are in. network: 10.10.10.0/24. addresses: node -> its own. speed: of the slower side, in Mbit/s,
    None where one side's driver does not tell. mtus: node -> bytes."""

    network: str
    addresses: Mapping[str, str]
    speed: int | None
    mtus: Mapping[str, int]


def links(nodes: Mapping[str, Facts]) -> tuple[Link, ...]:
    """The IPv4 networks that all nodes have exactly one address in; OCFS2's o2net knows no others."""
    found: dict[str, dict[str, list[tuple[str, int | None, int]]]] = {}
    for node, facts in nodes.items():
        for interface in facts.interfaces:
            for written in interface.addresses:
                address = _ipv4(written)
                if address is None:
                    continue
                here = found.setdefault(str(address.network), {}).setdefault(node, [])
                here.append((str(address.ip), interface.speed, interface.mtu))
    return tuple(
        _link(network, {node: each[0] for node, each in sides.items()})
        for network, sides in sorted(found.items())
        if set(sides) == set(nodes) and all(len(each) == 1 for each in sides.values())
    )


def _link(network: str, sides: Mapping[str, tuple[str, int | None, int]]) -> Link:
    speeds = [speed for _, speed, _ in sides.values()]
    known = [speed for speed in speeds if speed is not None]
    return Link(
        network,
        {node: address for node, (address, _, _) in sides.items()},
        min(known) if known and len(known) == len(speeds) else None,
        {node: mtu for node, (_, _, mtu) in sides.items()},
    )


def _ipv4(written: str) -> ipaddress.IPv4Interface | None:
    """None for what is no address that another node could reach."""
    try:
        found = ipaddress.ip_interface(written)
    except ValueError:
        return None
    if not isinstance(found, ipaddress.IPv4Interface) or found.network.prefixlen == 32 or found.is_loopback:
        return None
    return found
