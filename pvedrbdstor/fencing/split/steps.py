"""The steps of a resolution on the side to lose, and the ways to preserve it. Words alone."""

from __future__ import annotations

import enum


class Preserve(enum.Enum):
    """SNAPSHOT: of the lower device, by LVM. FILES: copies of what this side has changed. DEVICE: a copy of the lower device."""

    SNAPSHOT = "snapshot"
    FILES = "files"
    DEVICE = "device"


class Step(enum.Enum):
    """In the order in which they are taken; the words are what people are told."""

    DRBD_UP = "bringing DRBD up"
    DISCONNECT = "disconnecting DRBD here"
    QUIESCE = "making the file system read-only here"
    COPY = "copying the changed files aside"
    DOWN = "unmounting the storage here"
    SEAL = "noting what DRBD has written here so far"
    SNAPSHOT = "taking a snapshot of the lower device"
    IMAGE = "copying the lower device aside"
    CHECK = "checking what was preserved"
    RECHECK = "comparing what was preserved with this node's copy, which may have been written since"
    ANEW = "beginning to preserve anew, as this node's copy may have been written since"
    DISCARD = "telling DRBD to take over the other node's data"
    CONNECT = "connecting DRBD again"
    KEEPER = "waiting for the node to keep"
    RESYNC = "waiting for the resync"
    COMPARE = "comparing the changed blocks on both disks"


CONNECTING = frozenset({Step.DISCARD, Step.CONNECT})
"""After these DRBD meets the other node: the first has it overwrite this side, the second goes on with that."""

PRESERVING = frozenset({Step.COPY, Step.SNAPSHOT, Step.IMAGE, Step.CHECK})
"""What is to be done again where this side was written meanwhile."""
