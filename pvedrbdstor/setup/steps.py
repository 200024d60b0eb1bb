"""The steps of a setup, as values: everything a step writes and runs is in it, and nothing else is written or run. No I/O here."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

FORMAT = 2


class Kind(enum.Enum):
    """What a step is, which says when it is done already and what must be true before it (hands.py)."""

    MODULES = "modules"
    WIPE = "wipe"
    PHYSICAL_VOLUME = "physical-volume"
    VOLUME_GROUP = "volume-group"
    LOGICAL_VOLUME = "logical-volume"
    FILE = "file"
    METADATA = "metadata"
    UP = "up"
    CONNECT = "connect"
    FIRST_COPY = "first-copy"
    PRIMARY = "primary"
    FILE_SYSTEM = "file-system"
    ENTRY = "entry"
    MOUNT = "mount"
    STATUS = "status"


ONCE = frozenset(
    {
        Kind.WIPE,
        Kind.PHYSICAL_VOLUME,
        Kind.VOLUME_GROUP,
        Kind.LOGICAL_VOLUME,
        Kind.METADATA,
        Kind.FIRST_COPY,
        Kind.FILE_SYSTEM,
        Kind.ENTRY,
    }
)
"""Never taken again when it has ended. The others are looked at each time, and taken where a reboot has undone them."""


TOUCHING = frozenset({Kind.WIPE, Kind.PHYSICAL_VOLUME, Kind.VOLUME_GROUP, Kind.METADATA})
"""Those that touch the lower disk. METADATA lie on the logical volume where there is one."""

DESTROYING = frozenset({Kind.WIPE, Kind.PHYSICAL_VOLUME, Kind.METADATA, Kind.FIRST_COPY, Kind.FILE_SYSTEM})
"""Those that overwrite what a device holds: nobody takes one without being asked."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to write. mode: permission bits. before: the digest of what it replaces, None where nothing may be there."""

    path: str
    content: str
    mode: int = 0o644
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """id: unique in a plan. title: what is done, why: what for, in words. commands: in their order, after the files are written.
    about: what the kind has to know, such as the device."""

    id: str
    node: str
    kind: Kind
    title: str
    why: str
    commands: tuple[tuple[str, ...], ...] = ()
    files: tuple[File, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """A lower disk as it was when the plan was made. claimed: the plan allows its signatures to be destroyed."""

    node: str
    path: str
    size: int
    identity: str | None
    wiped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is planned: one clause, and what to do, one sentence; both without the full stop."""

    cause: str
    remedy: str


class NotNow(Exception):
    """The step cannot be taken, or has not come to what it should: a sentence that says why, and what to do."""


def digest(text: str) -> str:
    """Of a file's content, in which bytes that are no UTF-8 stand as surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def printable(text: str) -> str:
    """One line in which a device's label cannot move a terminal's cursor: what is not printable stands as its number."""
    return "".join(each if each.isprintable() else f"<{ord(each):02x}>" for each in text)
