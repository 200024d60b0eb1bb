"""See both nodes at the same time: this one by itself, each other by `pvedrbdstor doctor --facts` through ssh."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.answers import reason_of, text_of
from pvedrbdstor.doctor.facts import UNKNOWN_NODE, BadFacts, Look, Node, from_json
from pvedrbdstor.drbd import commands, config
from pvedrbdstor.errors import Error
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.ocfs2 import o2cb

PEER_SECONDS = 15.0
_GRACE = 1.0
_DUMP_SECONDS = 3.0
_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom to ask. unknown: UNKNOWN_NODE with the reason, where it could not be told."""

    names: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


def look(
    node: str, configs: Sequence[StorageConfig], nodes_path: str, aliases: Mapping[str, Sequence[str]], peers: Peers
) -> Look:
    """Everything, in PEER_SECONDS at most."""
    asked = {other: Helper(_ask) for other in peers.names}
    reached = Helper(_ways)
    try:
        reached.ask([node, *peers.names])
        for other, helper in asked.items():
            helper.ask({"node": other, "storages": [each.id for each in configs]})
        deadline = time.monotonic() + PEER_SECONDS + _GRACE
        # While the others log in: what is only needed from here on takes its time to be loaded, the checks too.
        sources = import_module("pvedrbdstor.doctor.sources")
        here = sources.gather(node, configs, nodes_path, aliases)
        import_module("pvedrbdstor.doctor.checks")
        answers = {
            other: _told(helper.wait(max(_GRACE, deadline - time.monotonic()))) for other, helper in asked.items()
        }
        ways = _told_ways(reached.wait(max(_GRACE, deadline - time.monotonic())))
    finally:
        for helper in (*asked.values(), reached):
            helper.close()
    found = tuple(answer for answer in answers.values() if isinstance(answer, Node))
    silent = {**peers.unknown, **{other: answer for other, answer in answers.items() if isinstance(answer, str)}}
    return Look(here, found, silent, tuple(configs), ways=ways)


def peers_of(node: str, configs: Sequence[StorageConfig]) -> Peers:
    """The other nodes of the storages, by DRBD's configuration."""
    if not configs:
        return Peers()
    try:
        dump = command.run(commands.dump(), timeout=_DUMP_SECONDS).stdout
    except Error as error:
        return Peers(unknown={UNKNOWN_NODE: f"which it is could not be read: {reason_of(error)}"})
    found = [other for each in configs for other in nodes.other_nodes(dump, each.resource, each.volume, node)]
    return Peers(nodes.beside(node, found))


def peers_of_any_storage(node: str) -> Peers:
    """Where storage.cfg does not tell which storages there are: the other nodes of all that DRBD has, else those of cluster.conf, which is there
    for the mirrors' nodes alone, else those of corosync.conf."""
    return Peers(_of_drbd(node) or _of_o2cb(node) or _of_corosync(node))


def _of_drbd(node: str) -> tuple[str, ...]:
    try:
        dump = command.run(commands.dump(), timeout=_DUMP_SECONDS).stdout
    except Error:
        return ()
    return nodes.beside(
        node, [host for resource in config.resources(dump) for host in config.hosts_with_disk(dump, resource, 0)]
    )


def _of_o2cb(node: str) -> tuple[str, ...]:
    try:
        clusters = o2cb.parse_cluster_conf(text_of(o2cb.CLUSTER_CONF) or "").clusters
    except OSError:
        return ()
    return nodes.beside(node, [each.name for cluster in clusters for each in cluster.nodes])


def _of_corosync(node: str) -> tuple[str, ...]:
    conf = corosync_conf.read(corosync_conf.PATH)
    return nodes.beside(node, [each.name for each in conf.nodes if each.name]) if conf is not None else ()


def _ask(question: Mapping[str, object]) -> dict[str, object]:
    """As work of a Helper: what a node prints, with this node's clock around it, or why it printed nothing."""
    node, storages = str(question["node"]), question["storages"]
    assert isinstance(storages, list)
    words = ["doctor", "--facts", *map(str, storages)]
    asked = time.time()
    try:
        text = command.run(nodes.line(node, words, alive=9), timeout=PEER_SECONDS, limit=_LIMIT).stdout
    except Error as error:
        return {"why": nodes.why_not(error)}
    return {"text": text, "asked": asked, "heard": time.time()}


def _ways(names: Sequence[str]) -> dict[str, object]:
    """As work of a Helper: how each node is reached, for remedies."""
    return {"ways": [asdict(nodes.way(name)) for name in names]}


def _told_ways(answer: object) -> dict[str, nodes.Way]:
    """None where it was not told in time."""
    found = answer.get("ways", []) if isinstance(answer, dict) else []
    ways = [nodes.Way(**each) for each in found]
    return {way.node: way for way in ways}


def _told(answer: object) -> Node | str:
    """What a node has told, or why it told nothing, one clause."""
    found = answer if isinstance(answer, dict) else {}
    text, asked, heard = found.get("text"), found.get("asked"), found.get("heard")
    if not (isinstance(text, str) and isinstance(asked, float) and isinstance(heard, float)):
        return str(found.get("why") or found.get("error") or "it did not answer in time")
    try:
        return from_json(json.loads(text), asked=asked, heard=heard)
    except (ValueError, RecursionError):
        return "it printed no JSON: is pvedrbdstor of the same version there?"
    except BadFacts as error:
        return str(error)
