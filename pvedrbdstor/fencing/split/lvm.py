"""A snapshot of the lower device, where that is a logical volume: command lines and answers of LVM as values. No I/O here."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"[0-9]{1,20}")
_FIELDS = "vg_name,lv_name,lv_size,vg_free,segtype,pool_lv"
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume; sizes in bytes. pool: the thin pool it lies in, empty where it is a plain one."""

    group: str
    name: str
    size: int
    group_free: int
    pool: str

    @property
    def full_snapshot(self) -> int:
        """A plain snapshot of this size never overflows, whatever is written to its origin. Whole MiB: LVM wants sectors."""
        return (-(-(self.size + self.size // 100) // MIB) + 64) * MIB


def ask(device: str) -> list[str]:
    """Exit status 5 for what is no logical volume (lvs(8))."""
    return ["lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", ";", "-o", _FIELDS, device]


def parse(text: str) -> Volume | None:
    words = text.strip().split(";")
    if len(words) != 6 or not _NUMBER.fullmatch(words[2]) or not _NUMBER.fullmatch(words[3]):
        return None
    group, name, size, free, kind, pool = words
    return Volume(group, name, int(size), int(free), pool if kind == "thin" else "")


def snapshot_size(volume: Volume, changed: int) -> int | None:
    """Bytes for a snapshot that must hold what a resync overwrites (``changed`` bytes) and what is written after it; 0 in a thin
    pool, which has no size for each; None where the group has too little room. A snapshot that overflows is lost."""
    if volume.pool:
        return 0
    if volume.group_free >= volume.full_snapshot:
        return volume.full_snapshot
    room = volume.group_free * 9 // 10 // MIB * MIB
    return room if room >= 4 * changed + 4 * GIB else None


def create(volume: Volume, name: str, size: int) -> list[str]:
    sized = ["--size", f"{size}b"] if size else []
    return ["lvcreate", "--yes", "--snapshot", *sized, "--name", name, f"{volume.group}/{volume.name}"]


def ask_snapshot(target: str) -> list[str]:
    return ["lvs", "--noheadings", "--separator", ";", "-o", "lv_attr,origin", target]


def is_sound(text: str) -> bool:
    """Whether the answer is of a snapshot that has not overflowed (lvs(8), lv_attr: 1st `S`, 5th `I` are invalid ones)."""
    attributes, _, origin = text.strip().partition(";")
    return len(attributes) >= 5 and attributes[0] in "sV" and attributes[4] not in "IX" and bool(origin)
