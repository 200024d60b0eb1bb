"""What was written while the nodes were apart, as each node has noted it when they met again (verify.note), until it has been compared.

A note is bound to its resync by the identifier of DRBD's bitmap, which both nodes have in their histories when that has ended: a note
of another rejoin has another one, and is never taken for this one's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pvedrbdstor.drbd import metadata_08
from pvedrbdstor.drbd.metadata import BLOCK, Range, merged
from pvedrbdstor.verify import values
from pvedrbdstor.verify.written import RANGES_MAX, coarser

FOLDER = "/var/lib/pvedrbdstor/verify/rejoin"
SOURCE, TARGET = "source", "target"
READ_MAX = 8 << 20
_FORMAT = 1
_AGE_MAX = 7 * 86400.0
_RANGES = "ranges"


class Unknown(Exception):
    """A note cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """side: of the resync, SOURCE or TARGET. base: of the bitmap's identifier (metadata_08.base()), in hex. current: identifier of the data then, in hex. parted: when the
    nodes had lost each other, None where that is not known; noted, first: when they met, and met first since what was written has been compared; seconds since
    1970. size: bytes of the device. gap: as in written.Written. short: why the list does not have all, None where it does. checked: when it was
    compared, None where it was not yet."""

    side: str
    node: str
    base: str
    current: str
    noted: float
    first: float
    size: int
    gap: int = BLOCK
    parted: float | None = None
    short: str | None = None
    checked: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A note with its ranges: bytes of the device, in order."""

    note: Note
    ranges: tuple[Range, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.ranges)


def key(uuid: int) -> str:
    """Of an identifier, as notes have it."""
    return f"{metadata_08.base(uuid):012X}"


def is_of(note: Note, history: Sequence[int]) -> bool:
    """Whether it is of the last resync: by the identifiers of the history when that has ended, the newest first."""
    return bool(history) and metadata_08.base(history[0]) != 0 and key(history[0]) == note.base


def together(before: Kept | None, now: Kept, uuids: Sequence[int]) -> Kept:
    """A new note with what an earlier one has that nobody has compared yet: the resync was broken off, or the nodes parted anew before
    its end. uuids: the identifiers of this node's data; they must have the earlier one's."""
    if before is None or before.note.checked is not None or now.note.noted - before.note.first > _AGE_MAX:
        return now
    known = {key(uuid) for uuid in uuids if metadata_08.base(uuid)}
    if before.note.size != now.note.size or not known & {before.note.base, key(int(before.note.current, 16))}:
        return now
    ranges, gap = coarser([*before.ranges, *now.ranges], now.note.size)
    parted = None if None in (before.note.parted, now.note.parted) else before.note.parted
    note = replace(
        now.note,
        first=before.note.first,
        gap=max(gap, before.note.gap, now.note.gap),
        parted=parted,
        short=now.note.short or before.note.short,
    )
    return Kept(note, ranges)


def path(resource: str, volume: int) -> str:
    return f"{FOLDER}/{resource}.{volume}.json"


def write(resource: str, volume: int, kept: Kept) -> None:
    """In one step, but not forced to the disk: a resync waits for it, and what a crash leaves is checked when it is read. Raises OSError."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    new = f"{path(resource, volume)}.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(as_json(kept), file)
    os.rename(new, path(resource, volume))


def read(resource: str, volume: int) -> Kept | None:
    """None where nothing was noted on this node. Raises Unknown."""
    try:
        with open(path(resource, volume), encoding="utf-8") as file:
            return from_json(json.loads(file.read(READ_MAX)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Unknown(f"{path(resource, volume)} cannot be read ({error})") from error


def compared(resource: str, volume: int, noted: float, now: float) -> None:
    """A note that was made then has been compared; one that was made since has not. Raises OSError, Unknown."""
    kept = read(resource, volume)
    if kept is not None and kept.note.noted == noted:
        write(resource, volume, Kept(replace(kept.note, checked=now), kept.ranges))


def as_json(kept: Kept) -> dict[str, object]:
    return {"format": _FORMAT, **asdict(kept.note), _RANGES: [list(part) for part in kept.ranges]}


def from_json(data: object) -> Kept:
    """Raises ValueError for what is none: of another version, cut, or with ranges that are none of the device, in no order, or too many."""
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
        raise ValueError("it is of another version")
    note = values.read(Note, data)
    for word, digits in ((note.base, 12), (note.current, 16)):
        if len(word) != digits or not all(letter in "0123456789ABCDEF" for letter in word):
            raise ValueError(f"'{word[:32]}' is no identifier")
    if note.side not in (SOURCE, TARGET):
        raise ValueError(f"'{note.side[:32]}' is no side of a resync")
    return Kept(note, _ranges(data.get(_RANGES), note.size))


def _ranges(data: object, size: int) -> tuple[Range, ...]:
    if not isinstance(data, list) or len(data) > RANGES_MAX:
        raise ValueError("its ranges are no list, or too many")
    found: list[Range] = []
    end = 0
    for part in data:
        if not isinstance(part, list) or len(part) != 2 or not all(type(number) is int for number in part):
            raise ValueError("a range is none")
        start, length = part
        if start < end or length <= 0 or start + length > size:
            raise ValueError("a range does not lie within the device, or not behind the one before it")
        end = start + length
        found.append((start, length))
    return merged(found)
