"""The o2cb cluster: its configuration, its values in the kernel, and what to write where. Nothing in this file does I/O.

Sources: o2cb(7), ocfs2.cluster.conf(5), o2cb.sysconfig(5) and the kernel's fs/ocfs2/cluster/{nodemanager,heartbeat,
tcp}.c. All nodes need the same four timeouts: o2net refuses to connect to a node with others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CLUSTER_CONF = "/etc/ocfs2/cluster.conf"
DEFAULTS_FILE = "/etc/default/o2cb"
CONFIGFS = "/sys/kernel/config/cluster"

_NAME = re.compile(r"[A-Za-z0-9]{1,16}")  # o2cb(7): at most 16 alphanumeric characters
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # O2NM_MAX_NAME_LEN
_NUMBER = re.compile(r"[0-9]{1,9}")
_NODES_MAX = 255  # O2NM_MAX_NODES
BEAT_SECONDS = 2  # O2HB_REGION_TIMEOUT_MS


@dataclass(frozen=True, slots=True)
class Timeouts:
    """dead_threshold: beats of the disk heartbeat. The others: milliseconds. None: not told."""

    dead_threshold: int | None = None
    idle_timeout_ms: int | None = None
    keepalive_delay_ms: int | None = None
    reconnect_delay_ms: int | None = None

    @property
    def dead_seconds(self) -> int | None:
        """After this long without a beat a node is taken for dead, and one that cannot write resets itself."""
        return None if self.dead_threshold is None else (self.dead_threshold - 1) * BEAT_SECONDS


KERNEL_DEFAULTS = Timeouts(31, 30000, 2000, 2000)

_FILES = {
    "dead_threshold": "heartbeat/dead_threshold",
    "idle_timeout_ms": "idle_timeout_ms",
    "keepalive_delay_ms": "keepalive_delay_ms",
    "reconnect_delay_ms": "reconnect_delay_ms",
}
_DEFAULT_NAMES = {
    "dead_threshold": "O2CB_HEARTBEAT_THRESHOLD",
    "idle_timeout_ms": "O2CB_IDLE_TIMEOUT_MS",
    "keepalive_delay_ms": "O2CB_KEEPALIVE_DELAY_MS",
    "reconnect_delay_ms": "O2CB_RECONNECT_DELAY_MS",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node as cluster.conf or the kernel names it; local: it is this one (the kernel alone tells)."""

    number: int
    name: str
    address: str
    port: int
    local: bool | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster of cluster.conf. node_count: as written there, None without it. nodes: in the order of numbers."""

    name: str
    heartbeat_mode: str
    node_count: int | None
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ClusterConf:
    """problems: one sentence each about what was passed over; with any, the file is not fit to register from."""

    clusters: tuple[Cluster, ...]
    problems: tuple[str, ...]

    def cluster(self, name: str) -> Cluster | None:
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


@dataclass(frozen=True, slots=True)
class Registered:
    """A cluster as the kernel has it. heartbeat_mode: None where the kernel does not tell."""

    timeouts: Timeouts
    heartbeat_mode: str | None
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Defaults:
    """/etc/default/o2cb: whether the vendor's init script starts a cluster, which, and with what timeouts."""

    enabled: bool
    boot_cluster: str | None
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one file below /sys."""

    path: str
    value: str


def parse_cluster_conf(text: str) -> ClusterConf:
    """Read /etc/ocfs2/cluster.conf."""
    problems: list[str] = []
    stanzas = _stanzas(text, problems)
    names = [values.get("name", "") for kind, values in stanzas if kind == "cluster"]
    clusters = []
    for kind, values in stanzas:
        if kind != "cluster":
            continue
        name = values.get("name", "")
        if not _NAME.fullmatch(name):
            problems.append(f"the cluster name {name!r} is not 1 to 16 letters and digits")
        elif names.count(name) > 1:
            problems.append(f"cluster '{name}' is there more than once")
        else:
            clusters.append(_cluster(name, values, stanzas, problems))
    for kind, values in stanzas:
        if kind == "node" and values.get("cluster") not in names:
            problems.append(f"node {values.get('name')!r} belongs to no cluster of the file")
    return ClusterConf(tuple(clusters), tuple(problems))


def parse_registered(values: Mapping[str, str]) -> Registered:
    """From the files below CONFIGFS/NAME: path relative to it -> content. What is missing or no number is None."""
    timeouts = Timeouts(**{field: _number(values.get(path, "").strip()) for field, path in _FILES.items()})
    names = sorted({path.split("/")[1] for path in values if path.startswith("node/") and path.count("/") == 2})
    nodes = []
    for name in names:
        number, port = (_number(values.get(f"node/{name}/{file}", "").strip()) for file in ("num", "ipv4_port"))
        if number is not None and port is not None:
            address = values.get(f"node/{name}/ipv4_address", "").strip()
            nodes.append(Node(number, name, address, port, values.get(f"node/{name}/local", "").strip() == "1"))
    mode = values.get("heartbeat/mode", "").strip()
    return Registered(timeouts, mode or None, tuple(sorted(nodes, key=lambda node: node.number)))


def parse_defaults(text: str) -> Defaults:
    """Read /etc/default/o2cb: NAME=value lines of the shell, the last of each name counts."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            values[name] = value.partition(" #")[0].strip().strip("\"'")
    return Defaults(
        enabled=values.get("O2CB_ENABLED") == "true",
        boot_cluster=values.get("O2CB_BOOTCLUSTER") or None,
        timeouts=Timeouts(**{field: _number(values.get(name, "")) for field, name in _DEFAULT_NAMES.items()}),
    )


def register_cluster(name: str) -> list[str]:
    """The command that makes the kernel know a cluster and its nodes, as cluster.conf has them; configfs is mounted."""
    return ["o2cb", "register-cluster", name]


def timeout_writes(cluster: str, wanted: Timeouts, present: Timeouts) -> tuple[Write, ...]:
    """What must be written, in this order, so that a registered cluster gets the wanted timeouts.

    Only before the first mount, and read back afterwards: a dead_threshold written while a region beats is ignored in
    silence (o2hb_dead_threshold_set()), an idle timeout while a node is connected is refused. The kernel refuses an
    idle timeout that is not above the keepalive delay at each moment, hence the order.
    """
    fields = ["dead_threshold", "idle_timeout_ms", "keepalive_delay_ms", "reconnect_delay_ms"]
    idle, keepalive = wanted.idle_timeout_ms, present.keepalive_delay_ms
    if idle is not None and keepalive is not None and idle <= keepalive:
        fields[1:3] = ["keepalive_delay_ms", "idle_timeout_ms"]
    return tuple(
        Write(f"{CONFIGFS}/{cluster}/{_FILES[field]}", str(getattr(wanted, field)))
        for field in fields
        if getattr(wanted, field) not in (None, getattr(present, field))
    )


def registered_files(node_names: Iterable[str] = ()) -> tuple[str, ...]:
    """The files below CONFIGFS/NAME that parse_registered() wants, with those of the given nodes."""
    of_nodes = (f"node/{name}/{file}" for name in node_names for file in ("num", "ipv4_port", "ipv4_address", "local"))
    return (*_FILES.values(), "heartbeat/mode", *of_nodes)


def _stanzas(text: str, problems: list[str]) -> list[tuple[str, dict[str, str]]]:
    """`kind:` at the start of a line, then indented `key = value` lines."""
    stanzas: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        key, equals, value = content.partition("=")
        if not equals and content.endswith(":"):
            stanzas.append((content[:-1].strip(), {}))
        elif equals and stanzas and key.strip():
            stanzas[-1][1][key.strip()] = value.strip()
        else:
            problems.append(f"line {number} is neither 'kind:' nor 'key = value' below one")
    return stanzas


def _cluster(
    name: str, values: Mapping[str, str], stanzas: list[tuple[str, dict[str, str]]], problems: list[str]
) -> Cluster:
    nodes: list[Node] = []
    for kind, node_values in stanzas:
        if kind == "node" and node_values.get("cluster") == name:
            node = _node(node_values)
            if node is None:
                problems.append(f"node {node_values.get('name')!r} lacks a good number, name, ip_address or ip_port")
            elif any(node.number == other.number or node.name == other.name for other in nodes):
                problems.append(f"node '{node.name}' or its number {node.number} is there more than once")
            else:
                nodes.append(node)
    count = _number(values.get("node_count", ""))
    if count != len(nodes):
        problems.append(f"cluster '{name}' says node_count = {values.get('node_count')} and has {len(nodes)} nodes")
    ordered = tuple(sorted(nodes, key=lambda node: node.number))
    return Cluster(name, values.get("heartbeat_mode") or "local", count, ordered)


def _node(values: Mapping[str, str]) -> Node | None:
    number, port = _number(values.get("number", "")), _number(values.get("ip_port", ""))
    name, address = values.get("name", ""), values.get("ip_address", "")
    if number is None or number >= _NODES_MAX or port is None or not 0 < port < 65536:
        return None
    if not _NODE_NAME.fullmatch(name) or not address:
        return None
    return Node(number, name, address, port)


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None
