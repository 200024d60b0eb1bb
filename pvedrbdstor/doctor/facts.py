"""What was seen of one node, and of all: JSON values as they were told, read without trust. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.nodes import KNOWN_HOSTS, Way

FORMAT = 1
UNKNOWN_NODE = "the other node"
"""In the place of its name, where that is not known."""
_NAME_MAX = 64
_REASON_MAX = 300
_AT_MAX = 1 << 40


class BadFacts(Exception):
    """What a node has told is no look of a doctor that this one understands; the text says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node. values: source -> what it told; unread: source -> why it told nothing. Both by the names of `sources.NAMES`, with
    `:STORAGE` behind it for one of a storage. at: seconds since 1970 by its own clock, when it had looked. asked, heard: this node's clock around
    that, None for this node itself."""

    name: str
    version: str
    at: float
    values: Mapping[str, object]
    unread: Mapping[str, str] = field(default_factory=dict)
    asked: float | None = None
    heard: float | None = None

    def text(self, source: str) -> str | None:
        """A source that is text; None where it is not there, or of another kind."""
        value = self.values.get(source)
        return value if isinstance(value, str) else None

    def mapping(self, source: str) -> Mapping[str, object]:
        """A source that is an object; empty where it is not there, or of another kind."""
        value = self.values.get(source)
        return value if isinstance(value, dict) else {}

    def items(self, source: str) -> list[Mapping[str, object]]:
        """A source that is a list of objects, without what is none."""
        value = self.values.get(source)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Look:
    """Everything. here: the node that looks. others: those that answered. silent: node -> why it did not. storages: that are looked at. unusable: storage
    -> what is wrong with its section of storage.cfg, for which it is not looked at. ways: node -> how it is reached."""

    here: Node
    others: tuple[Node, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    storages: tuple[StorageConfig, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    ways: Mapping[str, Way] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.here, *self.others)

    def way(self, node: str) -> Way:
        """How a node is reached: where that was not told, as this one is."""
        own = self.ways.get(self.here.name)
        known = None if own is None or own.known_hosts is None else KNOWN_HOSTS.format(node=node)
        return self.ways.get(node, Way(node, known_hosts=known))

    @property
    def pairs(self) -> tuple[tuple[Node, Node], ...]:
        """This node and each other one."""
        return tuple((self.here, other) for other in self.others)


def as_json(node: Node) -> dict[str, object]:
    return {
        "format": FORMAT,
        "node": node.name,
        "version": node.version,
        "at": node.at,
        "values": dict(node.values),
        "unread": dict(node.unread),
    }


def from_json(document: object, *, asked: float | None = None, heard: float | None = None) -> Node:
    """Raises BadFacts."""
    if not isinstance(document, dict):
        raise BadFacts("it printed no JSON object")
    if document.get("format") != FORMAT:
        raise BadFacts(f"it runs another version of pvedrbdstor ({_plain(document.get('version'), _NAME_MAX) or '?'})")
    name, version = _plain(document.get("node"), _NAME_MAX), _plain(document.get("version"), _NAME_MAX)
    at, values, unread = document.get("at"), document.get("values"), document.get("unread")
    if (
        not isinstance(at, int | float)
        or not 0 <= at < _AT_MAX
        or not isinstance(values, dict)
        or not (name and version)
    ):
        raise BadFacts("it did not tell who it is, when, or what it saw")
    reasons = unread.items() if isinstance(unread, dict) else ()
    return Node(
        name=name,
        version=version,
        at=float(at),
        values={str(key): value for key, value in values.items()},
        unread={str(key)[:_NAME_MAX]: _plain(reason, _REASON_MAX) or "it does not say why" for key, reason in reasons},
        asked=asked,
        heard=heard,
    )


def _plain(value: object, limit: int) -> str:
    """One printable line; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value).strip()[:limit]


def number(value: object) -> int | None:
    """A whole number that is none below zero."""
    return value if type(value) is int and value >= 0 else None


def counted(count: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def plain(value: object, limit: int = 200) -> str:
    """One printable line of what a node, a file or a guest has told; empty for what is no text."""
    return _plain(value, limit)
