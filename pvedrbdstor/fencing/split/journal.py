"""The journal of a resolution: what was decided and which steps are done, on disk before each step, so that it can go on after
a crash at any of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import SplitJournalBroken
from pvedrbdstor.fencing.split.steps import Preserve, Step

FOLDER = "/var/lib/pvedrbdstor/split-brain"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Journal:
    """Of the side to lose. keep, discard: the nodes. began: seconds since 1970.

    preserve: how. target: the snapshot's `VG/LV`, or the folder of the copies. size: of the snapshot, in bytes. files: paths to
    copy. ranges: of the device, to be compared at the end. doing: the step begun last. done: those that have ended.
    discarded_boot: the boot in which DRBD was last told to discard, which it forgets with the kernel.
    """

    storage: str
    keep: str
    discard: str
    began: float
    preserve: Preserve
    target: str
    size: int = 0
    files: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    doing: Step | None = None
    done: frozenset[Step] = frozenset()
    discarded_boot: str | None = None

    def begin(self, step: Step) -> Journal:
        return replace(self, doing=step)

    def end(self, step: Step) -> Journal:
        return replace(self, doing=None, done=self.done | {step})

    @property
    def preserved(self) -> bool:
        """What the side to lose has is safe: from here on it may be discarded."""
        return Step.CHECK in self.done


def path_of(storage: str, folder: str = FOLDER) -> str:
    return f"{folder}/{storage}.json"


def write(journal: Journal, folder: str = FOLDER) -> None:
    """Replace the journal, on the disk when this returns. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = path_of(journal.storage, folder)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, **_as_json(journal)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    _sync_folder(folder)


def read(storage: str, folder: str = FOLDER) -> Journal | None:
    """The journal of a resolution that was begun and has not ended; None without one. Raises SplitJournalBroken, OSError."""
    path = path_of(storage, folder)
    try:
        with open(path, encoding="utf-8") as file:
            return _from_json(json.load(file))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SplitJournalBroken(storage=storage, path=path, detail=f"{type(error).__name__}: {error}") from error


def put_away(journal: Journal, folder: str = FOLDER) -> str:
    """Keep the journal of what has ended, or was given up, under a name with its time, which is returned. Raises OSError."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(journal.began))
    kept = f"{folder}/{journal.storage}.{stamp}.done"
    os.rename(path_of(journal.storage, folder), kept)
    _sync_folder(folder)
    return kept


def _as_json(journal: Journal) -> dict[str, Any]:
    data = asdict(journal)
    data["preserve"] = journal.preserve.value
    data["doing"] = journal.doing.name if journal.doing else None
    data["done"] = sorted(step.name for step in journal.done)
    return data


def _from_json(data: Mapping[str, Any]) -> Journal:
    if data.pop("format") != _FORMAT:  # type: ignore[attr-defined]
        raise ValueError("it is of another version")
    return Journal(
        **{
            **data,
            "preserve": Preserve(data["preserve"]),
            "files": tuple(data["files"]),
            "ranges": tuple((int(start), int(length)) for start, length in data["ranges"]),
            "doing": Step[data["doing"]] if data["doing"] else None,
            "done": frozenset(Step[name] for name in data["done"]),
        }
    )


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
