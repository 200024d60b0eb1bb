"""DRBD's data generation identifiers (`drbdadm get-gi`): what two copies tell of each other before they meet. No I/O here.

The comparison is that of the kernel at the reconnect handshake (drbd_uuid_compare() in drivers/block/drbd/drbd_receiver.c).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_UUID = re.compile(r"[0-9A-Fa-f]{16}")
_JUST_CREATED = 4  # UUID_JUST_CREATED, drbd_int.h
_FLAGS_8_4 = ("consistent", "up_to_date", "primary", "connected", "full_sync", "peer_outdated", "crashed_primary")
_FLAGS_9 = (
    *("consistent", "up_to_date", "primary", "crashed_primary", "al_clean", "al_disabled", "lost_quorum", "connected"),
    *("peer_outdated", "fencing", "full_sync", "device_seen"),
)
"""In the order of `drbdadm show-gi`, which explains each."""
_TOLD = ("consistent", "up_to_date", "primary", "connected", "peer_outdated", "crashed_primary")


class Relation(enum.Enum):
    """Of the own copy to the other one."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    SPLIT = "split"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class Identifiers:
    """UUIDs without their lowest bit, which tells the role alone; 0: none.

    The flags are those of the metadata, all False where they were not told. connected, primary: when this node was last
    heard of, for one that died at that moment. crashed_primary: it died as Primary and has not met the other node since.
    """

    current: int
    bitmap: int
    history: tuple[int, ...]
    consistent: bool = False
    up_to_date: bool = False
    primary: bool = False
    connected: bool = False
    peer_outdated: bool = False
    crashed_primary: bool = False


def parse(text: str) -> Identifiers | None:
    """The first line that has identifiers (8.4 has one; 9 has one for each peer); None without any."""
    for line in text.splitlines():
        words = line.strip().split(":")
        uuids = [int(word, 16) & ~1 for word in words if _UUID.fullmatch(word)]
        if len(uuids) < 4:
            continue
        flags = words[len(uuids) :]
        names = next((known for known in (_FLAGS_8_4, _FLAGS_9) if len(known) == len(flags)), ())
        set_ = {name for name, word in zip(names, flags, strict=False) if word == "1"}
        return Identifiers(uuids[0], uuids[1], tuple(uuids[2:]), **{name: name in set_ for name in _TOLD})
    return None


def same_base(own: Identifiers, other: Identifiers) -> bool:
    """Whether both bitmaps tell what changed since the same moment, so that they miss no block in which the copies differ."""
    return own.bitmap == other.bitmap != 0


def relation(own: Identifiers, other: Identifiers) -> Relation:
    """What DRBD will find when the two meet; its rules by their numbers.

    But for one: the kernel's rule 100 takes two empty places in the histories for a common past, calls that a split brain, and
    would settle it by bitmaps that need not have anything to do with one another. Here it is UNRELATED.
    """
    if own.current == other.current:  # 40: equal, or both died in the same moment
        return Relation.SAME
    if own.current in (0, _JUST_CREATED):  # 20
        return Relation.OLDER
    if other.current in (0, _JUST_CREATED):  # 30
        return Relation.NEWER
    if own.current == other.bitmap or own.current in _known(other.history):  # 50, 51, 60
        return Relation.OLDER
    if own.bitmap == other.current or other.current in _known(own.history):  # 70, 71, 80
        return Relation.NEWER
    if own.bitmap == other.bitmap != 0:  # 90
        return Relation.SPLIT
    if _known((own.bitmap, *own.history)) & _known(
        (other.bitmap, *other.history)
    ):  # 100, and what 9 finds in its longer history
        return Relation.SPLIT
    return Relation.UNRELATED


def _known(uuids: tuple[int, ...]) -> frozenset[int]:
    return frozenset(uuid for uuid in uuids if uuid not in (0, _JUST_CREATED))
