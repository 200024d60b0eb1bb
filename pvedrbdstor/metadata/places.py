"""The map of a set: where on the device each file of the storage lies, a line of JSON for each file, packed with gzip."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pvedrbdstor import native
from pvedrbdstor.errors import MetadataNotSaved
from pvedrbdstor.metadata.sets import Broken
from pvedrbdstor.mirror.walk import Entry, walk
from pvedrbdstor.native import Extent

NAME = "map.jsonl.gz"
MAP_MAX = 128 << 20
"""Bytes of a map as it is packed."""
_LINE_MAX = 1 << 30
_SIGN = 1 << 12
"""Extents after which the caller is told that work goes on."""
_LAST = 1 << 63


class Run(NamedTuple):
    """Bytes in the file, bytes on the device, how many. unwritten: they read as zeroes when the map was made."""

    logical: int
    physical: int
    length: int
    unwritten: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """One file. path: below the storage's root. size: bytes. whole: all of what it has is in runs (not inside its inode, or nowhere yet)."""

    path: str
    size: int
    runs: tuple[Run, ...]
    whole: bool = True


@dataclass(slots=True)
class Written:
    """failed: (path, why) of what is not in the map."""

    files: int = 0
    runs: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def merged(extents: Iterable[Extent]) -> tuple[tuple[Run, ...], bool]:
    """Extents as runs, those that follow each other in both places as one; and whether all of them lie somewhere."""
    runs: list[Run] = []
    whole = True
    for extent in extents:
        if extent.inline or not extent.located:
            whole = False
            continue
        run = Run(extent.logical, extent.physical, extent.length, extent.unwritten)
        if runs and _follows(runs[-1], run):
            runs[-1] = runs[-1]._replace(length=runs[-1].length + run.length)
        else:
            runs.append(run)
    return tuple(runs), whole


def _follows(before: Run, run: Run) -> bool:
    ends = (before.logical + before.length, before.physical + before.length)
    return ends == (run.logical, run.physical) and before.unwritten == run.unwritten


def write(root_fd: int, path: str, storage: str, advance: Callable[[int, int], None]) -> Written:
    """The map of every regular file below the root, into the new file ``path``. Reads only; asks FIEMAP as the files are, without
    FIEMAP_FLAG_SYNC (see space.look for what OCFS2 does all the same). advance: called with the number of files done and of all, as long as work goes on.

    Raises MetadataNotSaved where it would be larger than MAP_MAX, what ``advance`` raises, and OSError.
    """
    total = sum(len(names) for _, _, names, _ in os.fwalk(".", dir_fd=root_fd, follow_symlinks=False))
    device, written = os.fstat(root_fd).st_dev, Written()

    def failed(error: OSError) -> None:
        written.failed.append((_plain(os.fsdecode(error.filename or "?")), error.strerror or str(error)))

    with open(path, "xb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        for entry in walk(root_fd, leave_out=(), failed=failed):
            advance(min(written.files, total), total)
            if entry.status.st_dev != device:  # of something mounted below
                continue
            try:
                placed = _placed(entry, lambda: advance(min(written.files, total), total))
            except OSError as error:
                failed(OSError(error.errno, error.strerror, entry.path))
                continue
            packed.write(_line(placed))
            written.files, written.runs = written.files + 1, written.runs + len(placed.runs)
            if raw.tell() > MAP_MAX:
                raise MetadataNotSaved(
                    storage=storage,
                    cause=f"the map of its files is larger than {MAP_MAX >> 20} MiB, as they lie in very many pieces",
                    remedy="See 'pvedrbdstor doctor' for images that are fragmented, and move or copy these",
                )
    return written


def find(path: str, names: Collection[str]) -> Placed | None:
    """The first file of the map in the file ``path`` that has one of the names; None where none has. Raises Broken."""
    return next((placed for placed in read(path) if placed.path in names), None)


def read(path: str) -> Iterator[Placed]:
    """Every file of the map. Raises Broken."""
    try:
        with gzip.open(path) as packed:
            while line := packed.readline(_LINE_MAX):
                yield _parsed(line)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise Broken(f"{path} cannot be read ({error})") from error


def _placed(entry: Entry, sign: Callable[[], None]) -> Placed:
    runs, whole = merged(_signed(native.fiemap(entry.fd, path=entry.path), sign))
    return Placed(entry.path, entry.status.st_size, runs, whole)


def _signed(extents: Iterable[Extent], sign: Callable[[], None]) -> Iterator[Extent]:
    for count, extent in enumerate(extents, 1):
        if count % _SIGN == 0:
            sign()
        yield extent


def _line(placed: Placed) -> bytes:
    runs = [[*run[:3], int(run.unwritten)] for run in placed.runs]
    document = {"path": placed.path, "size": placed.size, "whole": placed.whole, "runs": runs}
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def _parsed(line: bytes) -> Placed:
    """Raises ValueError."""
    document = json.loads(line)
    if not isinstance(document, dict) or not isinstance(document.get("path"), str):
        raise ValueError("a line is no file")
    runs = document.get("runs")
    if not _is_number(document.get("size")) or not isinstance(runs, list):
        raise ValueError("a file has no size or no places")
    return Placed(document["path"], document["size"], tuple(_run(run) for run in runs), document.get("whole") is True)


def _run(fields: object) -> Run:
    if not isinstance(fields, list) or len(fields) != 4 or not all(_is_number(value) for value in fields):
        raise ValueError("a place is not four numbers")
    return Run(fields[0], fields[1], fields[2], bool(fields[3]))


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _LAST


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
