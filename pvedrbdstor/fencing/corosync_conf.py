"""What corosync.conf says of the nodes, their votes and how long corosync waits, with corosync's own defaults.

Sources: corosync.conf(5), votequorum(5), corosync-qdevice(8) of corosync 3.1, and its parser (exec/coroparse.c), which
works by lines: one with a brace opens a section, else one with a colon is a value, else one with a closing brace ends one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pvedrbdstor.fencing import paths

PATH = paths.COROSYNC_CONF
"""The local copy, which corosync itself reads; Proxmox keeps it in step with /etc/pve/corosync.conf."""
PROVIDER = "corosync_votequorum"

_FILE_MAX = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,9}")
_ADDRESS = re.compile(r"ring[0-9]+_addr")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the nodelist. addresses: of its links, in their order. node_id, name: None where not written."""

    node_id: int | None
    name: str | None
    addresses: tuple[str, ...]
    votes: int = 1


@dataclass(frozen=True, slots=True)
class Totem:
    """Milliseconds as written, or the default. consensus_ms: None where it is left to corosync."""

    token_ms: int = 3000
    token_coefficient_ms: int = 650
    consensus_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. token: until a silent node is missed. consensus: from there until the others are a membership without it."""

    token: float
    consensus: float

    @property
    def leave(self) -> float:
        """Until a node that is gone has left the membership."""
        return self.token + self.consensus

    def __str__(self) -> str:
        return f"token {self.token:g} s and consensus {self.consensus:g} s"

    def like(self, other: Timing) -> bool:
        """The same but for a millisecond: corosync counts in whole ones."""
        return abs(self.token - other.token) < 0.0015 and abs(self.consensus - other.consensus) < 0.0015


@dataclass(frozen=True, slots=True)
class Device:
    """quorum.device. votes: None where it is left to corosync. timeout_ms: without an answer, outside of a membership
    change; sync_timeout_ms: during one. host: None where not written, which corosync-qdevice refuses."""

    model: str
    votes: int | None = None
    timeout_ms: int = 10000
    sync_timeout_ms: int = 30000
    algorithm: str = "ffsplit"
    host: str | None = None
    tls: str = "on"


@dataclass(frozen=True, slots=True)
class Quorum:
    """The section of that name. provider, expected_votes: None where not written. A switch with any value but 0 is on."""

    provider: str | None = None
    expected_votes: int | None = None
    two_node: bool = False
    wait_for_all: bool = False
    auto_tie_breaker: bool = False
    last_man_standing: bool = False
    allow_downscale: bool = False
    device: Device | None = None


_TOTEM, _DEVICE = Totem(), Device("")
"""For their defaults."""


@dataclass(frozen=True, slots=True)
class CorosyncConf:
    """problems: what corosync would refuse, one clause each; with any, what is here may not be what is in force."""

    nodes: tuple[Node, ...] = ()
    totem: Totem = Totem()
    quorum: Quorum = Quorum()
    problems: tuple[str, ...] = ()

    @property
    def timing(self) -> Timing:
        """The token's coefficient counts from the third node on; the consensus is 1.2 times the token unless written."""
        beyond_two = max(0, len(self.nodes) - 2)
        token_ms = self.totem.token_ms + beyond_two * self.totem.token_coefficient_ms
        consensus_ms = token_ms * 1.2 if self.totem.consensus_ms is None else self.totem.consensus_ms
        return Timing(token_ms / 1000, consensus_ms / 1000)

    @property
    def device_votes(self) -> int:
        """The QDevice's, 0 without one; by default one less than the nodes have."""
        device = self.quorum.device
        if device is None:
            return 0
        return max(0, self.node_votes - 1) if device.votes is None else device.votes

    @property
    def node_votes(self) -> int:
        return sum(node.votes for node in self.nodes)

    @property
    def all_votes(self) -> int:
        """Of the nodes and the QDevice: what must be expected for a majority to be one."""
        return self.node_votes + self.device_votes


@dataclass
class _Section:
    """sections: in the order of their names' first lines."""

    options: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[str, _Section]] = field(default_factory=list)

    def named(self, *path: str) -> Iterator[_Section]:
        """All sections at a path: corosync lets one be written in parts."""
        if not path:
            yield self
            return
        for name, section in self.sections:
            if name == path[0]:
                yield from section.named(*path[1:])

    def merged(self, *path: str) -> dict[str, str]:
        """The values of all sections at a path; of one that is written twice the last counts."""
        return {key: value for section in self.named(*path) for key, value in section.options.items()}


def read(path: str) -> CorosyncConf | None:
    """The file as it is now, None where it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return parse(file.read(_FILE_MAX))
    except OSError:
        return None


def parse(text: str) -> CorosyncConf:
    """Read corosync.conf, whole or not."""
    problems: list[str] = []
    top = _sections(text, problems)
    totem = top.merged("totem")
    consensus = totem.get("consensus")
    return CorosyncConf(
        nodes=tuple(_node(section.options, problems) for section in top.named("nodelist", "node")),
        totem=Totem(
            token_ms=_number(totem, "token", _TOTEM.token_ms, problems),
            token_coefficient_ms=_number(totem, "token_coefficient", _TOTEM.token_coefficient_ms, problems),
            consensus_ms=None if consensus is None else _number(totem, "consensus", 0, problems),
        ),
        quorum=_quorum(top, problems),
        problems=tuple(problems),
    )


def _quorum(top: _Section, problems: list[str]) -> Quorum:
    values = top.merged("quorum")
    two_node = _switch(values, "two_node")
    expected = _number(values, "expected_votes", 0, problems)
    return Quorum(
        provider=values.get("provider"),
        expected_votes=expected if "expected_votes" in values else None,
        two_node=two_node,
        wait_for_all=_switch(values, "wait_for_all", two_node),
        auto_tie_breaker=_switch(values, "auto_tie_breaker"),
        last_man_standing=_switch(values, "last_man_standing"),
        allow_downscale=_switch(values, "allow_downscale"),
        device=_device(top, problems),
    )


def _device(top: _Section, problems: list[str]) -> Device | None:
    """Votequorum takes a device for configured by its model alone."""
    values, net = top.merged("quorum", "device"), top.merged("quorum", "device", "net")
    if "model" not in values:
        return None
    votes = _number(values, "votes", 0, problems)
    return Device(
        model=values["model"],
        votes=votes if "votes" in values else None,
        timeout_ms=_number(values, "timeout", _DEVICE.timeout_ms, problems),
        sync_timeout_ms=_number(values, "sync_timeout", _DEVICE.sync_timeout_ms, problems),
        algorithm=net.get("algorithm", _DEVICE.algorithm),
        host=net.get("host"),
        tls=net.get("tls", _DEVICE.tls),
    )


def _node(values: dict[str, str], problems: list[str]) -> Node:
    node_id = _number(values, "nodeid", 0, problems)
    addresses = sorted(key for key in values if _ADDRESS.fullmatch(key))
    return Node(
        node_id=node_id if "nodeid" in values else None,
        name=values.get("name"),
        addresses=tuple(values[key] for key in addresses),
        votes=_number(values, "quorum_votes", 1, problems),
    )


def _sections(text: str, problems: list[str]) -> _Section:
    top = _Section()
    opened = [top]
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        key, colon, value = content.partition(":")
        if "{" in content:
            section = _Section()
            opened[-1].sections.append((content.partition("{")[0].strip(), section))
            opened.append(section)
        elif colon:
            opened[-1].options[key.strip()] = value.strip()
        elif "}" in content:
            if len(opened) == 1:
                problems.append(f"line {number} closes a section that was never opened")
            else:
                opened.pop()
        else:
            problems.append(f"line {number} is neither a section nor 'key: value'")
    if len(opened) > 1:
        problems.append("it ends within a section")
    return top


def _number(values: dict[str, str], key: str, default: int, problems: list[str]) -> int:
    """The default also for what is no number, of which a problem tells."""
    text = values.get(key)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None:
        problems.append(f"{key} is {text[:40]!r}, which is no number")
        return default
    return int(text)


def _switch(values: dict[str, str], key: str, default: bool = False) -> bool:
    return values[key] != "0" if key in values else default
