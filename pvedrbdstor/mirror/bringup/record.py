"""What the last job did, or is doing: one JSON file per storage, replaced in one step, read by whoever waits for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pvedrbdstor import errors, files
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, Error, InternalError
from pvedrbdstor.mirror.bringup import paths


def boot_clock() -> float:
    """Seconds since boot, suspended or not: the same for all processes, and never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Record:
    """started, since (of the step), finished (None while it runs): seconds of the boot clock.

    error: {"kind", "message", "fields"} of how it ended, None for well. seen: gather.fingerprint() when it ended.
    """

    storage: str
    pid: int
    started: float
    step: str
    since: float
    by_hand: bool = False
    without_peer: bool = False
    finished: float | None = None
    error: Mapping[str, object] | None = None
    seen: str = ""

    @property
    def refused(self) -> bool:
        return self.error is not None and self.error.get("kind") == BringUpRefused.__name__

    def raise_error(self) -> None:
        """Raise the error the job ended with; nothing when it ended well."""
        if self.error is None:
            return
        kind, fields = self.error.get("kind"), self.error.get("fields")
        cls = getattr(errors, kind, None) if isinstance(kind, str) else None
        if isinstance(cls, type) and issubclass(cls, Error) and isinstance(fields, dict):
            raise cls(**fields)
        raise BringUpFailed(storage=self.storage, step=self.step, detail=str(self.error.get("message")))


def describe(error: BaseException, storage: str) -> Mapping[str, object]:
    """An error as the record has it."""
    if not isinstance(error, Error):
        where = f"bringing up storage '{storage}'"
        error = InternalError(where=where, detail=f"{type(error).__name__}: {error}")
    return {
        "kind": error.kind,
        "message": error.message,
        "fields": {key: str(value) for key, value in error.fields.items()},
    }


def write(record: Record) -> None:
    """Replace the file. Raises OSError."""
    write_json(paths.state(record.storage), asdict(record))


def read(storage: str) -> Record | None:
    """The last record; None where there is none that can be read."""
    data = read_json(paths.state(storage))
    try:
        return Record(**data) if data is not None else None
    except TypeError:  # written by another version of ours
        return None


def write_json(path: str, document: object) -> None:
    """Replace a file of FOLDER, which is made when it is missing. Raises OSError."""
    os.makedirs(paths.FOLDER, mode=0o700, exist_ok=True)
    files.replace(path, json.dumps(document), beside=f"{path}.{os.getpid()}")


def read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
