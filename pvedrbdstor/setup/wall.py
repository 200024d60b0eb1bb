"""Whether Proxmox's firewall will let DRBD and OCFS2 through once cluster.fw is as planned: a node's own host.fw comes before it. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.pve import firewall
from pvedrbdstor.pve.firewall import Answer, Way
from pvedrbdstor.setup import templates
from pvedrbdstor.setup.build import Choice, cluster_firewall
from pvedrbdstor.setup.paths import FIREWALL, HOST_FIREWALL
from pvedrbdstor.setup.steps import Refusal


@dataclass(frozen=True, slots=True)
class _Shut:
    """A connection that a node's firewall does not, or may not, let through. rules: that would. place: where they belong, first."""

    node: str
    what: str
    peer: str
    port: int
    sure: bool
    rules: str
    place: str


def refusals(choice: Choice) -> Iterator[Refusal]:
    for shut in _shut(choice):
        if shut.sure:
            yield Refusal(
                f"the firewall of {shut.node} would not let {shut.what} through (TCP {shut.port} with {shut.peer}), also with the rules of this plan",
                f"Write {shut.rules} first in [RULES] of {shut.place}, then plan again",
            )


def notes(choice: Choice) -> Iterator[str]:
    for shut in _shut(choice):
        if not shut.sure:
            yield (
                f"Whether the firewall of {shut.node} lets {shut.what} through (TCP {shut.port} with {shut.peer}) cannot be told from its rules; if not, 'setup apply' "
                f"stops after the disks were written to. To be sure, write {shut.rules} first in [RULES] of {shut.place}."
            )


def _shut(choice: Choice) -> Iterator[_Shut]:
    cluster = cluster_firewall(choice)
    for what, ends in _ends(choice):
        for node, facts in choice.nodes.items():
            (own, port), *others = (end for name, end in sorted(ends.items(), key=lambda end: end[0] != facts.host))
            host = facts.files.get(HOST_FIREWALL, "")
            for peer, peer_port in others:
                answers = {
                    Way.IN: firewall.answer(cluster, host, Way.IN, peer, own, port),
                    Way.OUT: firewall.answer(cluster, host, Way.OUT, own, peer, peer_port),
                }
                shut = [way for way, answer in answers.items() if answer is not Answer.OPEN]
                if shut:
                    ports = {Way.IN: port, Way.OUT: peer_port}
                    rules = (templates.firewall_rule([own, peer], ports[way], what, way.name) for way in shut)
                    yield _Shut(
                        node=node,
                        what=what,
                        peer=peer,
                        port=ports[shut[0]],
                        sure=Answer.CLOSED in answers.values(),
                        rules=" and ".join(f"`{rule}`" for rule in rules),
                        place=f"/etc/pve/nodes/{node}/host.fw" if firewall.has_rules(host) else FIREWALL,
                    )


def _ends(choice: Choice) -> Iterator[tuple[str, dict[str, tuple[str, int]]]]:
    """Of each kind of connection: host -> its address and port, of the two nodes alone."""
    hosts = choice.mirror.hosts
    yield f"DRBD {choice.mirror.resource}", {host.name: (host.address, choice.mirror.port) for host in hosts}
    if choice.shared is None:
        yield "OCFS2", {host.name: (host.address, templates.O2NET_PORT) for host in hosts}
    else:
        two = {host.name for host in hosts}
        yield "OCFS2", {node.name: (node.address, node.port) for node in choice.shared.nodes if node.name in two}
