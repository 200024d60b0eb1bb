"""A snapshot of the lower device, where that is a logical volume: command lines and answers of LVM as values. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range, merged

_NUMBER = re.compile(r"[0-9]{1,20}")
_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]+)?")
_FIELDS = "vg_name,lv_name,lv_size,vg_free,segtype,pool_lv"
_POOL_FIELDS = "lv_size,data_percent,metadata_percent,lv_health_status,chunk_size"
_SNAPSHOT_FIELDS = "lv_attr,origin,data_percent,lv_health_status"
MIB, GIB = 1 << 20, 1 << 30
CHUNK = 4096
"""Bytes that a plain snapshot keeps for each place overwritten (lvcreate(8), --chunksize); a thin pool has its own, larger ones."""
_THREATENED_FREE, _THREATENED_METADATA = GIB // 2, 90.0
_METADATA_MAX = 45.0
"""Per cent of a pool's metadata. What a snapshot shares has one mapping for both; in the end every one may be there twice."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A thin pool. size, chunk: bytes. data, metadata: per cent in use. health: LVM's word, empty where nothing is wrong (lvs(8))."""

    size: int
    data: float
    metadata: float
    health: str
    chunk: int

    @property
    def free(self) -> int:
        return int(self.size * max(0.0, 100 - self.data) / 100)

    @property
    def threat(self) -> str | None:
        """What is to be done something about at once: a pool that is full stops all its volumes, also guests' of other storages."""
        if self.health:
            return f"is not healthy ({self.health})"
        if self.free < _THREATENED_FREE:
            return f"has {self.free / GIB:.1f} GiB left"
        if self.metadata > _THREATENED_METADATA:
            return f"has {self.metadata:.0f} % of its metadata in use"
        return None

    def unfit(self, change: int) -> str | None:
        """Why it cannot hold a snapshot of a volume of which so many bytes will be overwritten; None where it can."""
        if self.health:
            return f"it is not healthy ({self.health})"
        if self.free < change + GIB:
            return f"it has {self.free / GIB:.1f} GiB free, and up to {change / GIB:.1f} GiB will be overwritten, with 1 GiB to spare"
        if self.metadata > _METADATA_MAX:
            return f"{self.metadata:.0f} % of its metadata are in use, which a snapshot may double"
        return None


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume; sizes in bytes. pool: the thin pool it lies in, empty where it is a plain one. thin: that pool, None where
    LVM does not tell of it."""

    group: str
    name: str
    size: int
    group_free: int
    pool: str
    thin: Pool | None = None

    @property
    def full_snapshot(self) -> int:
        """Bytes of a plain snapshot that never overflows."""
        return full_snapshot(self.size)


def full_snapshot(size: int) -> int:
    """Bytes of a plain snapshot that never overflows, whatever is written to its origin of so many bytes. Whole MiB: LVM wants
    sectors."""
    return (-(-(size + size // 100) // MIB) + 64) * MIB


def ask(device: str) -> list[str]:
    """Exit status 5 for what is no logical volume (lvs(8))."""
    return ["lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", ";", "-o", _FIELDS, device]


def parse(text: str) -> Volume | None:
    words = text.strip().split(";")
    if len(words) != 6 or not _NUMBER.fullmatch(words[2]) or not _NUMBER.fullmatch(words[3]):
        return None
    group, name, size, free, kind, pool = words
    return Volume(group, name, int(size), int(free), pool if kind == "thin" else "")


def ask_pool(volume: Volume) -> list[str]:
    pool = f"{volume.group}/{volume.pool}"
    return ["lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", ";", "-o", _POOL_FIELDS, pool]


def parse_pool(text: str) -> Pool | None:
    words = text.strip().split(";")
    if len(words) != 5 or not _NUMBER.fullmatch(words[0]):
        return None
    try:
        pool = Pool(int(words[0]), float(words[1]), float(words[2]), words[3], int(words[4]))
        return pool if pool.chunk > 0 else None
    except ValueError:
        return None


def snapshot_size(volume: Volume, changed: int, *, hints: bool) -> int | None:
    """Bytes for a plain snapshot that must hold what a resync overwrites and what is written after it; None where the group has
    too little room. A snapshot that overflows is lost.

    hints: what both sides have changed is known, and is ``changed`` bytes; else anything may be overwritten.
    """
    if volume.group_free >= volume.full_snapshot:
        return volume.full_snapshot
    room = volume.group_free * 9 // 10 // MIB * MIB
    return room if hints and room >= 4 * changed + 4 * GIB else None


def thin_unfit(volume: Volume, marked: Sequence[Range], *, hints: bool) -> str | None:
    """Why the volume's thin pool cannot hold a snapshot of it; None where it can. A pool that runs full stops its volumes, too.

    marked: what will be overwritten of it, if hints: it is known whole.
    """
    if volume.thin is None:
        return "LVM does not tell how full it is"
    changed = in_chunks(marked, volume.thin.chunk)
    return volume.thin.unfit(min(changed, volume.size) if hints else volume.size)


def in_chunks(ranges: Sequence[Range], chunk: int) -> int:
    """Bytes of all the chunks that the ranges touch: a snapshot keeps nothing smaller."""
    touched = [
        (start // chunk * chunk, (-(-(start + length) // chunk) - start // chunk) * chunk) for start, length in ranges
    ]
    return sum(length for _, length in merged(touched))


def create(volume: Volume, name: str, size: int) -> list[str]:
    sized = ["--size", f"{size}b"] if size else []
    return ["lvcreate", "--yes", "--snapshot", *sized, "--name", name, f"{volume.group}/{volume.name}"]


def activate(target: str) -> list[str]:
    """A thin snapshot is not activated by itself after a reboot, unless -K is said (lvmthin(7), activation skip)."""
    return ["lvchange", "--activate", "y", "--ignoreactivationskip", target]


def ask_snapshot(target: str) -> list[str]:
    return ["lvs", "--noheadings", "--separator", ";", "-o", _SNAPSHOT_FIELDS, target]


def is_sound(text: str) -> bool:
    """Whether the answer is of a snapshot that has all it ever had (lvs(8), lv_attr: 1st `s` plain, `V` thin; 5th of a lost one).

    A plain one that is full has overflowed; one whose filling is not told is not active, and nothing says that it has not.
    """
    words = text.strip().split(";")
    if len(words) != 4:
        return False
    attributes, origin, filled, health = words
    if len(attributes) < 5 or attributes[4] in "ISmMX" or not origin or health:
        return False
    if attributes[0] == "s":
        return _PERCENT.fullmatch(filled) is not None and float(filled) < 100
    return attributes[0] == "V"


def filled(text: str) -> float | None:
    """Per cent of a plain snapshot's own room that is used, of the same answer; None of a thin one, which has none."""
    words = text.strip().split(";")
    return float(words[2]) if words[0][:1] == "s" and _PERCENT.fullmatch(words[2]) else None
