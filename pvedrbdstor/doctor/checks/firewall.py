"""Whether Proxmox's firewall, or anything else between the nodes, keeps DRBD or OCFS2 from connecting."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.checks.o2cb import registered
from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.drbd import events2
from pvedrbdstor.drbd.endpoints import endpoints
from pvedrbdstor.pve import firewall
from pvedrbdstor.pve.firewall import Answer, Way

CLOSED = Entry(
    "firewall-closed",
    (Severity.WARNING, Severity.HINT),
    "Proxmox's firewall is on, and no rule lets DRBD or OCFS2 through; a hint where that cannot be told",
)
BLOCKED = Entry(
    "drbd-port-blocked",
    (Severity.ERROR,),
    "DRBD does not connect although the other node answers on the same network",
)
ENTRIES = (CLOSED, BLOCKED)
_WAITING = frozenset({"WFConnection", "Connecting"})
_CLUSTER_FW = "/etc/pve/firewall/cluster.fw, which is all nodes'"


@dataclass(frozen=True, slots=True)
class Path:
    """A connection that somebody has to be able to open: from where, to which address and port."""

    what: str
    own: str
    peer: str
    port: int
    peer_port: int


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        if firewall.is_on(*_files(node)):
            for storage in look.storages:
                yield from _closed(node, storage)
    for storage in look.storages:
        yield from _blocked(look, storage)


def judged(node: Node, storages: Iterable[StorageConfig]) -> dict[str, object]:
    """What the node's files say of the mirrors' connections, for who may not see the files: these have rules and addresses of anything."""
    found = [
        {
            "storage": storage.id,
            "what": path.what,
            "own": path.own,
            "peer": path.peer,
            "ports": [path.port, path.peer_port],
            **{way.value: answer.value for way, answer in answers.items()},
        }
        for storage in storages
        for path, answers in _answers(node, storage)
    ]
    return {"on": firewall.is_on(*_files(node)), "connections": found}


def _files(node: Node) -> tuple[str, str]:
    """cluster.fw and the node's host.fw."""
    texts = node.mapping("firewall")
    cluster, host = (text if isinstance(text := texts.get(name), str) else "" for name in ("cluster", "host"))
    return cluster, host


def _answers(node: Node, storage: StorageConfig) -> Iterator[tuple[Path, dict[Way, Answer]]]:
    for path in paths(node, storage):
        come = firewall.answer(*_files(node), Way.IN, path.peer, path.own, path.port)
        go = firewall.answer(*_files(node), Way.OUT, path.own, path.peer, path.peer_port)
        yield path, {Way.IN: come, Way.OUT: go}


def paths(node: Node, storage: StorageConfig) -> list[Path]:
    """Of DRBD by its settings in force, of OCFS2 by the cluster in the kernel."""
    own, peers = endpoints(node.text("show") or "", storage.resource)
    found = [Path("DRBD", *_ends(own[0], peer)) for peer in peers if own]
    cluster = registered(node)
    members = cluster[1].nodes if cluster is not None else ()
    here = next((member for member in members if member.local), None)
    if here is not None:
        found += [
            Path("OCFS2", here.address, other.address, here.port, other.port) for other in members if other is not here
        ]
    return [path for path in found if _is_address(path.own) and _is_address(path.peer)]


def _ends(own: tuple[str, int], peer: tuple[str, int]) -> tuple[str, str, int, int]:
    return own[0], peer[0], own[1], peer[1]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _closed(node: Node, storage: StorageConfig) -> Iterator[Finding]:
    for path, answers in _answers(node, storage):
        shut = {way: found for way, found in answers.items() if found is not Answer.OPEN}
        if not shut:
            continue
        sure = Answer.CLOSED in shut.values()
        both = ",".join(sorted((path.own, path.peer)))
        ports = ",".join(str(port) for port in sorted({path.port, path.peer_port}))
        rules = " and ".join(f"`{way.name} ACCEPT -source {both} -dest {both} -p tcp -dport {ports}`" for way in shut)
        place = (
            f"/etc/pve/nodes/{node.name}/host.fw, which comes first"
            if firewall.has_rules(_files(node)[1])
            else _CLUSTER_FW
        )
        yield CLOSED.found(
            f"The firewall of {node.name} {'does not let' if sure else 'may not let'} {path.what} through: TCP {ports} with {path.peer}",
            "A connection that stands goes on; the next one, after a reboot or a network failure, does not come about, and the mirror stays on one copy.",
            f"Write {rules} first in [RULES] of {place}; Proxmox takes it up within 10 s, "
            "and 'pve-firewall compile' shows what it makes of it",
            nodes=(node.name,),
            storage=storage.id,
            severity=Severity.WARNING if sure else Severity.HINT,
        )


def _blocked(look: Look, storage: StorageConfig) -> Iterator[Finding]:
    """Both wait, and this one reaches the other's address: so it is not the link, and not that one of them is down."""
    if len(look.nodes) < 2 or not all(_waits(node, storage) for node in look.nodes):
        return
    reached = look.here.mapping("answers").get(storage.resource)
    own, _ = endpoints(look.here.text("show") or "", storage.resource)
    if reached is not True or not own:
        return
    yield BLOCKED.found(
        f"DRBD of '{plain(storage.resource)}' cannot connect, though the other node answers on the replication's network",
        f"Both nodes wait for each other. Something between them, such as a firewall, lets TCP {own[0][1]} not through, or only one way.",
        f"See on both nodes what filters there: 'nft list ruleset', and what listens: 'ss -tln sport = :{own[0][1]}'. Right after an outage DRBD may only not have tried again yet: look again in "
        "half a minute. When it is mended it connects by itself; "
        f"'drbdadm status {storage.resource}' shows it",
        storage=storage.id,
    )


def _waits(node: Node, storage: StorageConfig) -> bool:
    state = events2.parse_now(node.text("events") or "")
    found = [each.state for each in state.connections if each.resource == storage.resource]
    return bool(found) and all(name in _WAITING for name in found)
