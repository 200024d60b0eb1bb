"""What bringing a storage up is decided from: this node at one moment, what was asked for, what was tried. No I/O here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pvedrbdstor.mirror.facts import Facts
from pvedrbdstor.ocfs2.o2cb import ClusterConf, Defaults, Registered
from pvedrbdstor.ocfs2.superblock import Superblock

WAIT_PEER_SECONDS = 20.0
"""DRBD tries to connect every 10 s (connect-int): two tries."""


class Step(enum.Enum):
    """In the order in which they are taken; the words are what people are told."""

    MODULES = "loading the kernel modules"
    UP = "bringing DRBD up"
    CONNECT = "connecting to the other node"
    WAIT_PEER = "waiting for the other node"
    WAIT_COPIES = "waiting for DRBD to compare the two copies"
    PROMOTE = "becoming Primary"
    CONFIGFS = "mounting configfs"
    STACK = "choosing the o2cb cluster stack"
    DLMFS = "mounting the lock manager's file system"
    REGISTER = "registering the o2cb cluster"
    TIMEOUTS = "setting the o2cb cluster's timeouts"
    MOUNT = "mounting the file system"


@dataclass(frozen=True, slots=True)
class Options:
    """by_hand: an administrator asked, who wants a resource that is StandAlone connected once more.

    without_peer: go on although nothing says that the other node does not write. wait_peer: seconds to wait for it.
    """

    by_hand: bool = False
    without_peer: bool = False
    wait_peer: float = WAIT_PEER_SECONDS

    def __or__(self, other: Options) -> Options:
        """What satisfies both who asked."""
        return Options(
            self.by_hand or other.by_hand,
            self.without_peer or other.without_peer,
            max(self.wait_peer, other.wait_peer),
        )


@dataclass(frozen=True, slots=True)
class MountPoint:
    """The folder to mount on. exists: something is there. folder: it is one. content: the first few names in it."""

    exists: bool
    folder: bool
    content: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """This node at one moment.

    mounted: the configured mirror is mounted and was verified. wrong_mount: what is mounted there instead, in words.
    held_down: an administrator took the storage down. resolving: a split brain's resolution discards this node's copy. missing_modules: not in the kernel. stack: the cluster stack
    OCFS2 uses, None without OCFS2. defined: the resource is configured on this node (None: not asked, it is up);
    undefined: DRBD's words when it is not. minor: None while the resource is down. superblock: None while this node is
    not Primary, or with `superblock_problem` where there is none. conf: None without cluster.conf. registered: the
    clusters in the kernel, by name. beating: some OCFS2 is mounted, so the kernel takes no timeouts. slots_taken: by
    nodes' numbers, None where it did not need to be asked.
    """

    mirror: Facts
    point: MountPoint
    host: str
    conf: ClusterConf | None
    defaults: Defaults
    mounted: bool = False
    wrong_mount: str | None = None
    held_down: bool = False
    resolving: bool = False
    missing_modules: tuple[str, ...] = ()
    stack: str | None = None
    configfs: bool = False
    dlmfs: bool = False
    defined: bool | None = None
    undefined: str = ""
    minor: int | None = None
    superblock: Superblock | None = None
    superblock_problem: str | None = None
    registered: Mapping[str, Registered] = field(default_factory=dict)
    beating: bool = False
    slots_taken: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What this run has done. since: seconds since a step was first taken. said: how it failed, where it is retried."""

    since: Mapping[Step, float] = field(default_factory=dict)
    said: Mapping[Step, str] = field(default_factory=dict)
