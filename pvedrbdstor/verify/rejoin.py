"""What was written while the nodes were apart, as each node has noted it when they met again (verify.note), until it has been compared.

A note is bound to its resync by the identifier of DRBD's bitmap, which both nodes have in their histories when that has ended: a note
of another rejoin has another one, and is never taken for this one's.

It is whole only when everything has succeeded: the handler's first act is a line in BEGUN, which goes when the note is written. Whoever reads a
note beside such a file knows that a resync has begun since that nobody has noted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from pvedrbdstor import files
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
BEGUN = ".begun"
"""Behind a note's path: a line for each attempt of the handler (handler/before-resync) that has not been noted."""
LOST = "a resync began of which the handler could not note what had been written"
LATE = "what was written just before the resync began is not noted"
_LOCK_SECONDS = 1.0
_LOCK_LOOK = 0.02
_BASE_BITS = 48


class Unknown(Exception):
    """A note cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """side: of the resync, SOURCE or TARGET. base: of the bitmap's identifier (metadata_08.base()), in hex. current: identifier of the data then, in hex. parted: when the
    nodes had lost each other, None where that is not known; noted, first: when they met, and met first since what was written has been compared; seconds since
    1970. size: bytes of the device, 0 where nothing could be read. gap: as in written.Written. short: why the list does not have all, None where it
    does. checked: when it was compared, None where it was not yet. late: why it lacks what was written until the resync began, None where it has that.
    counted: the whole identifier of the source's bitmap, in hex, whose high bits count resyncs. leader, verdict: of the comparison, also of one that was
    stopped when it had found a difference."""

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
    late: str | None = None
    counted: str | None = None
    leader: str | None = None
    verdict: str | None = None

    @property
    def missing(self) -> str | None:
        """Why it does not have all, None where it does."""
        return self.short or self.late


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


def resyncs_since(counted: str | None, uuid: int) -> int | None:
    """How many resyncs DRBD has begun since an identifier of the bitmap, by the high bits of a later one (drbd_gen_and_send_sync_uuid());
    None where that is not of the same bitmap."""
    if counted is None or key(int(counted, 16)) != key(uuid):
        return None
    return ((uuid >> _BASE_BITS) - (int(counted, 16) >> _BASE_BITS)) & 0xFFFF


def together(before: Kept | None, now: Kept, uuids: Sequence[int], lost: str | None = None) -> Kept:
    """A new note with what an earlier one has that nobody has compared yet: the resync was broken off, or the nodes parted anew before
    its end. uuids: the identifiers of this node's data; they must have the earlier one's. lost: why what was noted earlier is not known. What
    cannot be added is told in ``short``: some of its blocks may have been copied, and their bits cleared."""
    found = now
    if before is not None and before.note.checked is None:
        if not now.note.size and before.note.size:  # it stays, with what is missing
            kept_on = replace(before.note, noted=now.note.noted, short=now.note.short, late=before.note.late)
            return Kept(replace(kept_on, leader=None, verdict=None), before.ranges)
        if _adds(before.note, now.note, uuids):
            found = _sum(before, now)
        else:
            lost = lost or "what was noted when the nodes met before was never compared, and could not be added"
    return found if lost is None else replace(found, note=replace(found.note, short=found.note.short or lost))


def _adds(before: Note, now: Note, uuids: Sequence[int]) -> bool:
    known = {key(uuid) for uuid in uuids if metadata_08.base(uuid)}
    of_this_data = bool(known & {before.base, key(int(before.current, 16))})
    return 0 < before.size <= now.size and now.noted - before.first <= _AGE_MAX and of_this_data


def _sum(before: Kept, now: Kept) -> Kept:
    ranges, gap = coarser([*before.ranges, *now.ranges], now.note.size)
    began = resyncs_since(before.note.counted, int(now.note.counted, 16)) if now.note.counted is not None else None
    note = replace(
        now.note,
        first=before.note.first,
        gap=max(gap, before.note.gap, now.note.gap),
        parted=None if None in (before.note.parted, now.note.parted) else before.note.parted,
        short=now.note.short or before.note.missing or (LOST if began is not None and began > 1 else None),
    )
    return Kept(note, ranges)


def path(resource: str, volume: int) -> str:
    return f"{FOLDER}/{resource}.{volume}.json"


@contextmanager
def locked(resource: str, volume: int, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """To be held by whoever reads a note to write it anew. Raises TimeoutError where another one holds it so long, OSError."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    fd = os.open(f"{FOLDER}/.{resource}.{volume}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"another process has held {path(resource, volume)} for {seconds:.0f} s"
                    ) from None
            time.sleep(_LOCK_LOOK)
        yield
    finally:
        os.close(fd)


def write(resource: str, volume: int, kept: Kept, *, durable: bool = False) -> None:
    """In one step. durable: it is on the disk when this returns; not while a resync waits: what a crash leaves is checked when it is
    read. Raises OSError."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    own = path(resource, volume)
    files.replace(own, json.dumps(as_json(kept)), durable=durable, mode=0o600, beside=f"{own}.{os.getpid()}.new")


def sync(resource: str, volume: int) -> None:
    """What is written is on the disk when this returns. Raises OSError."""
    fd = os.open(path(resource, volume), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    files.sync_folder(FOLDER)


def attempts(resource: str, volume: int) -> int:
    """How often the handler has begun since it noted something, with the one that runs. Raises OSError."""
    try:
        with open(f"{path(resource, volume)}{BEGUN}", encoding="ascii", errors="replace") as file:
            return max(1, file.read(4096).count("\n"))
    except FileNotFoundError:
        return 0


def noted(resource: str, volume: int) -> None:
    """The attempts so far are in the note. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(f"{path(resource, volume)}{BEGUN}")


def as_written(resource: str, volume: int) -> Kept | None:
    """None where nothing was noted on this node. Raises Unknown."""
    try:
        with open(path(resource, volume), encoding="utf-8") as file:
            return from_json(json.loads(file.read(READ_MAX)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Unknown(f"{path(resource, volume)} cannot be read ({error})") from error


def read(resource: str, volume: int) -> Kept | None:
    """The same, and not whole where a resync began that was not noted. Raises Unknown, also where there is nothing but such a resync."""
    found = as_written(resource, volume)
    try:
        begun = attempts(resource, volume)
    except OSError as error:
        raise Unknown(f"{path(resource, volume)}{BEGUN} cannot be read ({error})") from error
    if not begun:
        return found
    if found is None:
        raise Unknown(f"{path(resource, volume)} was not written: {LOST}")
    return replace(found, note=replace(found.note, short=found.note.short or LOST))


def compared(resource: str, volume: int, noted: float, checked: float | None, leader: str, verdict: str) -> None:
    """A note that was made then has been compared; one that was made since has not. checked: None where that was stopped, but a difference
    was found. Raises OSError, Unknown."""
    with locked(resource, volume, seconds=10):
        kept = as_written(resource, volume)
        if kept is not None and kept.note.noted == noted:
            note = replace(kept.note, checked=checked or kept.note.checked, leader=leader, verdict=verdict)
            write(resource, volume, Kept(note, kept.ranges), durable=True)


def as_json(kept: Kept) -> dict[str, object]:
    return {"format": _FORMAT, **asdict(kept.note), _RANGES: [list(part) for part in kept.ranges]}


def from_json(data: object) -> Kept:
    """Raises ValueError for what is none: of another version, cut, or with ranges that are none of the device, in no order, or too many."""
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
        raise ValueError("it is of another version")
    note = values.read(Note, data)
    for word, digits in ((note.base, 12), (note.current, 16), (note.counted or "0" * 16, 16)):
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
