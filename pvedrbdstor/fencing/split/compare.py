"""What the two sides changed, file by file, and what each would lose. The bitmaps are a hint, digests decide. No I/O here."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.fencing.split.ranges import chunks_of, total
from pvedrbdstor.fencing.split.side import FileState, Side
from pvedrbdstor.sizes import format_size

_CLOCK_SECONDS = 10
"""By which the clocks of two nodes, or of a file system and DRBD's log, may differ."""
_IMAGE = re.compile(r"images/[1-9][0-9]*/[^/]+")


class Fate(enum.Enum):
    """Of a file on the two sides. CHANGED: changed, and nobody has compared it. RENAMED: the same file under two names."""

    DIFFERS = "differs"
    SAME = "same"
    ONLY_HERE = "only here"
    ONLY_THERE = "only there"
    CHANGED = "changed"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file: for certain, and at most."""

    sure: int
    most: int

    def __str__(self) -> str:
        if self.sure == self.most:
            return format_size(self.most)
        return (
            f"{format_size(self.sure)} to {format_size(self.most)}"
            if self.sure
            else f"perhaps {format_size(self.most)}"
        )


@dataclass(frozen=True, slots=True)
class Change:
    """here, there: what the sides have written of it since the copies parted, None where one was not asked or has no such file.

    made: of a file that is on one side alone: it was made there since; else it was removed on the other side. other_path: of a
    renamed one, its name on the other side; made then says that it was renamed here.
    """

    path: str
    fate: Fate
    here: Written | None
    there: Written | None
    made: bool = True
    other_path: str | None = None

    @property
    def image(self) -> bool:
        return _IMAGE.fullmatch(self.path) is not None


Equal = Mapping[str, bool | None]
"""path -> whether all compared digests are equal; None where not all could be compared."""


def wanted(own: Side, other: Side) -> dict[str, tuple[Range, ...]]:
    """The chunks of files on both sides that either has changed: what digests are needed of."""
    theirs = {file.path: file for file in other.files}
    found = {}
    for file in own.files:
        peer = theirs.get(file.path)
        if peer is not None and peer.size == file.size and (file.changed or peer.changed):
            found[file.path] = chunks_of((*file.changed, *peer.changed))
    return found


def equal_all(mine: Mapping[str, tuple[str, ...]], theirs: Mapping[str, tuple[str, ...]]) -> dict[str, bool | None]:
    """From digests of the same chunks on both sides."""
    return {path: mine[path] == theirs[path] if path in theirs else None for path in mine}


def equal_from_file(own: Side, other: Side, mine: Mapping[str, tuple[str, ...]]) -> dict[str, bool | None]:
    """From the digests the other side made of what it has itself changed; ``mine`` are ours of the same chunks.

    Where this side changed other parts as well, equal digests say nothing of those.
    """
    theirs, states = other.digests or {}, {file.path: file for file in other.files}
    found: dict[str, bool | None] = {}
    for file in own.files:
        peer = states.get(file.path)
        if peer is None or not (file.changed or peer.changed):
            continue
        known = file.path in theirs and file.path in mine
        if known and mine[file.path] != theirs[file.path]:
            found[file.path] = False
        else:
            covered = chunks_of((*file.changed, *peer.changed)) == chunks_of(peer.changed)
            found[file.path] = True if known and covered else None
    return found


def changes(own: Side, other: Side | None, equal: Equal) -> tuple[Change, ...]:
    """Every file that may not be the same on both sides, by name."""
    mine = {file.path: file for file in own.files}
    if other is None or not other.mounted or not own.mounted:
        return tuple(Change(file.path, Fate.CHANGED, _written(file, own), None) for file in own.files if file.changed)
    theirs = {file.path: file for file in other.files}
    renamed = _renamed((mine, own), (theirs, other))
    found = []
    for path in sorted({*mine, *theirs} - set(renamed.values())):
        here, there = mine.get(path), theirs.get(path)
        if path in renamed:
            assert here is not None
            unwritten = Written(0, 0)
            change: Change | None = Change(
                path, Fate.RENAMED, unwritten, unwritten, _made(here, own), other_path=renamed[path]
            )
        elif here is not None and there is not None:
            change = _on_both((here, own), (there, other), equal.get(path))
        elif here is not None:
            change = Change(path, Fate.ONLY_HERE, _written(here, own), None, _made(here, own))
        else:
            assert there is not None
            change = Change(path, Fate.ONLY_THERE, None, _written(there, other), _made(there, other))
        if change is not None:
            found.append(change)
    return tuple(found)


def _renamed(here: tuple[Mapping[str, FileState], Side], there: tuple[Mapping[str, FileState], Side]) -> dict[str, str]:
    """Name here -> name there of files that were renamed on one side and are the same otherwise, as far as anybody can tell: a
    number of a file that was removed may come again, but not with its size and its time."""
    (mine, own), (theirs, other) = here, there
    candidates = {_same_file(file): file for path, file in theirs.items() if path not in mine and not file.sure}
    return {
        path: found.path
        for path, file in mine.items()
        if path not in theirs
        and not file.sure
        and (found := candidates.get(_same_file(file))) is not None
        and _made(file, own) is not _made(found, other)
    }


def _same_file(file: FileState) -> tuple[int, int, int]:
    return (file.inode, file.size, file.modified)


def _on_both(here: tuple[FileState, Side], there: tuple[FileState, Side], equal: bool | None) -> Change | None:
    raw = tuple(Written(file.sure, total(file.changed)) for file, _ in (here, there))
    told = (_written(*here), _written(*there))
    if not any(found.most for found in told):
        told = (raw[0], raw[1])  # somebody has set the file's time back: then the hint is all there is
    path = here[0].path
    if here[0].size != there[0].size:
        return Change(path, Fate.DIFFERS, *told)
    if not any(found.most for found in raw):
        return None
    return Change(path, {True: Fate.SAME, False: Fate.DIFFERS, None: Fate.CHANGED}[equal], *told)


def _written(file: FileState, side: Side) -> Written:
    """What only the activity log has is nothing where the file's time is older than the split."""
    untouched = side.since is not None and not file.sure and file.touched < (side.since - _CLOCK_SECONDS) * 1e9
    return Written(0, 0) if untouched else Written(file.sure, total(file.changed))


def _made(file: FileState, side: Side) -> bool:
    """Whether a file that the other side lacks came into being on this one since the copies parted."""
    return file.touched >= side.since * 1e9 if side.since is not None else bool(file.changed)


def lost_here(found: tuple[Change, ...]) -> tuple[str, ...]:
    """What this side would lose if it were thrown away, a sentence each."""
    return tuple(text for change in found if (text := _loss(change, change.here, Fate.ONLY_HERE, Fate.ONLY_THERE)))


def lost_there(found: tuple[Change, ...]) -> tuple[str, ...]:
    """The same of the other side."""
    return tuple(text for change in found if (text := _loss(change, change.there, Fate.ONLY_THERE, Fate.ONLY_HERE)))


def _loss(change: Change, written: Written | None, only: Fate, only_other: Fate) -> str | None:
    if change.fate is only:
        return f"{change.path}, which the other side does not have" if change.made else None
    if change.fate is only_other:
        return None if change.made else f"the removal of {change.path}, which comes back"
    if change.fate is Fate.RENAMED:
        here = only is Fate.ONLY_HERE
        old, new = (change.other_path, change.path) if here else (change.path, change.other_path)
        return f"the renaming of {old} to {new}" if change.made is here else None
    if change.fate is Fate.SAME or written is None or not written.most:
        return None
    compared = "" if change.fate is Fate.DIFFERS else ", not compared"
    if not written.sure:
        return f"perhaps something written to {change.path} (its place was in use lately{compared})"
    return f"what was written to {change.path} ({written}{compared})"
