"""The o2cb cluster: cluster.conf and the time-outs, the same on both nodes, and those that the kernel has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.nodes import copying
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.ocfs2.o2cb import Cluster, Registered, Timeouts

DIFFERS = Entry("o2cb-conf-differs", (Severity.ERROR,), "cluster.conf is not the same on both nodes")
BROKEN = Entry("o2cb-conf-broken", (Severity.ERROR,), "cluster.conf has lines that o2cb passes over or refuses")
NOT_IN_FORCE = Entry("o2cb-conf-not-in-force", (Severity.WARNING,), "the kernel has other o2cb nodes than cluster.conf")
TIMEOUTS_DIFFER = Entry("o2cb-timeouts-differ", (Severity.ERROR,), "the nodes' kernels have different o2cb time-outs")
TIMEOUTS_WAIT = Entry(
    "o2cb-timeouts-not-in-force", (Severity.WARNING,), "the kernel has other o2cb time-outs than /etc/default/o2cb"
)
ENTRIES = (DIFFERS, BROKEN, NOT_IN_FORCE, TIMEOUTS_DIFFER, TIMEOUTS_WAIT)
_WORDS = {
    "dead_threshold": "O2CB_HEARTBEAT_THRESHOLD",
    "idle_timeout_ms": "O2CB_IDLE_TIMEOUT_MS",
    "keepalive_delay_ms": "O2CB_KEEPALIVE_DELAY_MS",
    "reconnect_delay_ms": "O2CB_RECONNECT_DELAY_MS",
}


def check(look: Look) -> Iterator[Finding]:
    if not look.storages:
        return
    ids = [storage.id for storage in look.storages]
    for node in look.nodes:
        other = next((other for other in look.nodes if other is not node), None)
        yield from _broken(look, node, other)
        yield from _in_force(look, node, other, ids)
        yield from _timeouts_in_force(node, ids)
    for here, other in look.pairs:
        yield from _differ(look, here, other)
        yield from _timeouts_differ(here, other, ids)


def _conf(node: Node) -> o2cb.ClusterConf | None:
    text = node.text("cluster_conf")
    return o2cb.parse_cluster_conf(text) if text is not None else None


def registered(node: Node) -> tuple[str, Registered] | None:
    """The cluster in the kernel, of which there is one at most, by its name."""
    for name, values in node.mapping("o2cb_kernel").items():
        if isinstance(values, dict):
            texts = {path: text for path, text in values.items() if isinstance(text, str)}
            return name, o2cb.parse_registered(texts)
    return None


def _broken(look: Look, node: Node, other: Node | None) -> Iterator[Finding]:
    conf = _conf(node)
    if conf is not None and conf.problems:
        right = _conf(other) if other is not None else None
        good = other is not None and right is not None and right.clusters and not right.problems
        copy = (
            f", or copy it from {other.name}: {_copy(look, node.name, other.name)}"
            if good and other is not None
            else ""
        )
        yield BROKEN.found(
            f"{o2cb.CLUSTER_CONF} on {node.name} is not right: {plain(conf.problems[0])}",
            "The storage does not come up there after the next boot.",
            f"Correct it, the same on all nodes (see 'man ocfs2.cluster.conf'){copy}",
            nodes=(node.name,),
        )


def _copy(look: Look, to: str, source: str) -> str:
    return f"on {to} '{copying(look.way(source), o2cb.CLUSTER_CONF, o2cb.CLUSTER_CONF)}'"


def _differ(look: Look, here: Node, other: Node) -> Iterator[Finding]:
    """One that lacks the file differs from one that has it."""
    if any("cluster_conf" not in node.values for node in (here, other)):
        return
    one, two = (_conf(node) or o2cb.ClusterConf((), ()) for node in (here, other))
    if _essence(one.clusters) == _essence(two.clusters):
        return
    source, to = (other, here) if _agrees(other) and not _agrees(here) else (here, other)
    which = (
        f"That of {source.name} is the one in force" if _agrees(source) and not _agrees(to) else "See which is right"
    )
    yield DIFFERS.found(
        f"{o2cb.CLUSTER_CONF} is not the same on {here.name} and {other.name}",
        f"It says {_told(one.clusters)} on {here.name} and {_told(two.clusters)} on {other.name}. Nodes that disagree on numbers or addresses "
        "cannot mount together.",
        f"{which}, and make the other one the same; to take that of {source.name}, run {_copy(look, to.name, source.name)}",
        nodes=(here.name, other.name),
    )


def _agrees(node: Node) -> bool:
    """Whether the kernel has the nodes of the file."""
    conf, kernel = _conf(node), registered(node)
    cluster = conf.cluster(kernel[0]) if conf is not None and kernel is not None else None
    return cluster is not None and kernel is not None and _named(cluster) == _named(kernel[1])


def _named(cluster: Cluster | Registered) -> set[tuple[int, str, str, int]]:
    return {(each.number, each.name, each.address, each.port) for each in cluster.nodes}


def _essence(clusters: tuple[Cluster, ...]) -> frozenset[object]:
    return frozenset((cluster.name, cluster.heartbeat_mode, cluster.nodes) for cluster in clusters)


def _told(clusters: tuple[Cluster, ...]) -> str:
    return "; ".join(f"{cluster.name}: {_nodes(cluster)}" for cluster in clusters) or "nothing"


def _nodes(cluster: Cluster | Registered) -> str:
    return plain(", ".join(f"{node.number} {node.name} {node.address}:{node.port}" for node in cluster.nodes[:8]), 300)


def _in_force(look: Look, node: Node, other: Node | None, ids: list[str]) -> Iterator[Finding]:
    """Names, numbers, addresses and ports of the nodes of one cluster."""
    conf, kernel = _conf(node), registered(node)
    cluster = conf.cluster(kernel[0]) if conf is not None and kernel is not None else None
    if cluster is None or kernel is None:
        return
    if kernel[1].nodes and _named(cluster) != _named(kernel[1]):
        copy = _copy(look, node.name, other.name if other is not None else "OTHER-NODE")
        between = unregister(cluster.name)
        yield NOT_IN_FORCE.found(
            f"The kernel on {node.name} has other o2cb nodes than {o2cb.CLUSTER_CONF}",
            f"It has {_nodes(kernel[1])}; the file says {_nodes(cluster)}. The file counts from the next boot on, and the nodes must agree then.",
            f"If the file is wrong, copy it from the other node: {copy}. If it is right, make it so on the other node, too, shut all guests on the storage "
            f"down, and {anew(ids, between)}: nodes of which one has the old list and one the new cannot mount together",
            nodes=(node.name,),
        )


def _timeouts_differ(here: Node, other: Node, ids: list[str]) -> Iterator[Finding]:
    one, two = registered(here), registered(other)
    names = (here.name, other.name)
    told = _differing(one[1].timeouts, two[1].timeouts, *names) if one is not None and two is not None else ""
    if told:
        yield TIMEOUTS_DIFFER.found(
            f"o2cb's time-outs are not the same on {here.name} and {other.name}",
            f"{told}. o2net refuses to connect nodes with other time-outs, and one gives the other up first.",
            f"Make {o2cb.DEFAULTS_FILE} the same on both, shut all guests on the storage down, and {anew(ids)}",
            nodes=names,
        )


def _timeouts_in_force(node: Node, ids: list[str]) -> Iterator[Finding]:
    text, kernel = node.text("o2cb_defaults"), registered(node)
    if text is None or kernel is None:
        return
    told = _differing(o2cb.parse_defaults(text).timeouts, kernel[1].timeouts, "the file", "the kernel")
    if told:
        yield TIMEOUTS_WAIT.found(
            f"The kernel on {node.name} has other o2cb time-outs than {o2cb.DEFAULTS_FILE}",
            f"{told}. They are taken up when nothing is mounted, and must be the same on all nodes then.",
            f"If {o2cb.DEFAULTS_FILE} is wrong, write into it what the kernel has. If it is right, make it the same on both nodes, shut all guests on the "
            f"storage down, and {anew(ids)}",
            nodes=(node.name,),
        )


def unregister(cluster: str) -> str:
    """Without it the kernel keeps the nodes and addresses that it has."""
    return f"'o2cb unregister-cluster {plain(cluster, 16)}' on all, which is refused while any other OCFS2 is mounted"


def anew(ids: Sequence[str], between: str = "") -> str:
    """How all that is mounted is taken down everywhere and brought up again."""
    downs = ", ".join(f"'pvedrbdstor mirror down {id_}'" for id_ in ids)
    ups = ", ".join(f"'pvedrbdstor mirror up {id_}'" for id_ in ids)
    return f"run {downs} on all nodes, {f'then {between}, ' if between else ''}and only then {ups} on all"


def _differing(one: Timeouts, two: Timeouts, first: str, second: str) -> str:
    """Those that are known of both, and not the same; empty without any."""
    found = [(_WORDS[field.name], getattr(one, field.name), getattr(two, field.name)) for field in fields(Timeouts)]
    differing = [each for each in found if None not in each and each[1] != each[2]]
    return "; ".join(f"{word} is {mine} ({first}) and {theirs} ({second})" for word, mine, theirs in differing)
