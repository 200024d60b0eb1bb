"""Nodes to plan for: a situation in which everything is ready to mount, and how others differ from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.config import NetConfig, ResourceConfig
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.mirror.bringup.facts import MountPoint, Situation
from pvedrbdstor.mirror.facts import Drbd, Facts, Mount, Peer, View
from pvedrbdstor.ocfs2.o2cb import Cluster, ClusterConf, Defaults, Node, Registered, Timeouts
from pvedrbdstor.ocfs2.superblock import Superblock

UUID = "0123456789ABCDEF0123456789ABCDEF"
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
TIMEOUTS = Timeouts(31, 30000, 2000, 2000)
NODES = (Node(0, "nodea", "10.0.0.1", 7777), Node(1, "nodeb", "10.0.0.2", 7777))
CLUSTER = Cluster("pve", "local", 2, NODES)
CONF = ClusterConf((CLUSTER,), ())
DEFAULTS = Defaults(True, "pve", TIMEOUTS)
SUPERBLOCK = Superblock(
    "ha", UUID, 4096, 1 << 20, 1 << 40, 2, frozenset({"refcount", "xattr", "clusterinfo"}), "o2cb", "pve"
)
REGISTERED = Registered(TIMEOUTS, "local", (replace(NODES[0], local=True), replace(NODES[1], local=False)))
CONNECTED = Peer(0, "peer", "Connected", "Primary", "Established", "UpToDate")
AWAY = Peer(0, "peer", "Connecting", "Unknown", "Off", "DUnknown")
STANDALONE = replace(AWAY, connection="StandAlone")
DRBD = Drbd("Primary", "UpToDate", frozenset(), False, None, False, (CONNECTED,))


def settings(fencing: str = "dont-care") -> ResourceConfig:
    """Of 8.4, with both nodes allowed to be Primary."""
    policies = ("disconnect", "disconnect", "disconnect", "disconnect")
    net = NetConfig(None, None, "C", True, *policies, 10, 0.5, 10, 6, None)
    return ResourceConfig("r0", (net,), {0: fencing}, "off", "suspend-io")


def facts(drbd: Drbd | None, fencing: str = "dont-care") -> Facts:
    return Facts("ha", "r0", 0, Generation.V8_4, View(True), drbd, settings(fencing), None, Mount(False), None)


READY = Situation(
    mirror=facts(DRBD),
    point=MountPoint(True, True),
    host="nodea",
    conf=CONF,
    defaults=DEFAULTS,
    stack="o2cb",
    configfs=True,
    dlmfs=True,
    minor=0,
    superblock=SUPERBLOCK,
    registered={"pve": REGISTERED},
)
"""All is done but the mount."""


def with_drbd(fencing: str = "dont-care", **changes: Any) -> Situation:
    """READY with another state of DRBD."""
    return replace(READY, mirror=facts(replace(DRBD, **changes), fencing))


def with_superblock(**changes: Any) -> Situation:
    return replace(READY, superblock=replace(SUPERBLOCK, **changes))
