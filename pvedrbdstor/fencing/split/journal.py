"""The journal of a resolution: what was decided and which steps are done, on disk before each step, so that it can go on after
a crash at any of them. While it is there nothing of ours brings the storage up (mirror/bringup)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pvedrbdstor import files
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import SplitJournalBroken
from pvedrbdstor.fencing.split.evidence import Evidence
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.steps import PRESERVING, Preserve, Step
from pvedrbdstor.mirror.bringup import paths

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Journal:
    """Of the side to lose. keep, discard: the nodes. began: seconds since 1970.

    current, bitmap: DRBD's identifiers of this side's copy, to which everything here belongs. keeper: the current one of the copy
    to keep, None where it was not known. preserve: how. target: the snapshot's `VG/LV`, or the folder of the copies. size: of
    the snapshot, in bytes. files: paths to copy. ranges: of the device, to be compared at the end. doing: the step begun last.
    done: those that have ended. seal: of this side before it was preserved. evidence: of what it was then, for when the seal is
    lost. told: DRBD was told to discard this copy, or may have been. given_up: earlier targets, which stay where they are.
    compared: bytes that were compared on both disks in the end.
    """

    storage: str
    keep: str
    discard: str
    began: float
    current: int
    bitmap: int
    keeper: int | None
    preserve: Preserve
    target: str
    size: int = 0
    files: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    doing: Step | None = None
    done: frozenset[Step] = frozenset()
    seal: Seal | None = None
    evidence: Evidence | None = None
    told: bool = False
    given_up: tuple[str, ...] = ()
    compared: int = 0

    def begin(self, step: Step) -> Journal:
        return replace(self, doing=step, told=self.told or step is Step.DISCARD)

    def end(self, step: Step) -> Journal:
        return replace(self, doing=None, done=self.done | {step})

    def anew(self) -> Journal:
        """With nothing preserved, to be preserved under another name: what there is already is never overwritten."""
        first = self.given_up[0] if self.given_up else self.target
        return replace(
            self,
            done=self.done - PRESERVING,
            seal=None,
            evidence=None,
            told=False,
            given_up=(*self.given_up, self.target),
            target=f"{first}-{len(self.given_up) + 2}",
        )

    @property
    def preserved(self) -> bool:
        """What the side to lose has is safe: from here on it may be discarded."""
        return Step.CHECK in self.done


def write(journal: Journal) -> None:
    """Replace the journal, on the disk when this returns. Raises OSError."""
    os.makedirs(paths.RESOLUTIONS, mode=0o700, exist_ok=True)
    document = {"format": _FORMAT, **_as_json(journal)}
    files.replace(paths.resolution(journal.storage), json.dumps(document, indent=1), durable=True)


def read(storage: str) -> Journal | None:
    """The journal of a resolution that was begun and has not ended; None without one. Raises SplitJournalBroken, OSError."""
    path = paths.resolution(storage)
    try:
        with open(path, encoding="utf-8") as file:
            return _from_json(json.load(file))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SplitJournalBroken(storage=storage, path=path, detail=f"{type(error).__name__}: {error}") from error


def put_away(journal: Journal) -> str:
    """Keep the journal of what has ended, or was given up, under a name with its time, which is returned. Raises OSError."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(journal.began))
    kept = f"{paths.RESOLUTIONS}/{journal.storage}.{stamp}.done"
    move(journal.storage, kept)
    return kept


def move(storage: str, kept: str) -> None:
    """Raises OSError."""
    os.rename(paths.resolution(storage), kept)
    files.sync_folder(paths.RESOLUTIONS)


def _as_json(journal: Journal) -> dict[str, Any]:
    data = asdict(journal)
    data["preserve"] = journal.preserve.value
    data["doing"] = journal.doing.name if journal.doing else None
    data["done"] = sorted(step.name for step in journal.done)
    return data


def _from_json(data: Mapping[str, Any]) -> Journal:
    values = dict(data.items())
    if values.pop("format") != _FORMAT:
        raise ValueError("it is of another version")
    return Journal(
        **{
            **values,
            "preserve": Preserve(values["preserve"]),
            "files": tuple(values["files"]),
            "ranges": _ranges(values["ranges"]),
            "doing": Step[values["doing"]] if values["doing"] else None,
            "done": frozenset(Step[name] for name in values["done"]),
            "seal": Seal(**values["seal"]) if values["seal"] is not None else None,
            "evidence": _evidence(values["evidence"]),
            "given_up": tuple(values["given_up"]),
        }
    )


def _evidence(data: Mapping[str, Any] | None) -> Evidence | None:
    return None if data is None else Evidence(_ranges(data["ranges"]), str(data["digest"]))


def _ranges(data: Iterable[Iterable[int]]) -> tuple[Range, ...]:
    return tuple((int(start), int(length)) for start, length in data)
