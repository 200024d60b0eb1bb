"""The plan and its journal on disk: what was shown, which steps have begun and ended, written before and after each."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from typing import TypeVar

from pvedrbdstor import __version__
from pvedrbdstor.errors import SetupFileBroken, SetupRefused
from pvedrbdstor.files import sync_folder
from pvedrbdstor.setup import paths, values
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import FORMAT, digest, printable

_MODE = 0o600
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Journal:
    """plan: the digest of the plan that it belongs to. doing: the step begun last, None when it has ended. done: those that have."""

    plan: str
    doing: str | None = None
    done: tuple[str, ...] = ()
    finished: bool = False

    @property
    def begun(self) -> bool:
        return self.doing is not None or bool(self.done)

    def begin(self, step: str) -> Journal:
        return replace(self, doing=step)

    def end(self, step: str) -> Journal:
        return replace(self, doing=None, done=(*(each for each in self.done if each != step), step))


def of(plan: Plan) -> Journal:
    """Of a plan that nothing was done of."""
    return Journal(digest(_text(plan)))


def write_plan(plan: Plan) -> str:
    """Where it lies. Raises OSError."""
    path = paths.plan(plan.answers.storage)
    _write(path, _text(plan))
    return path


def write(storage: str, journal: Journal) -> None:
    """On the disk when it returns. Raises OSError."""
    _write(paths.journal(storage), json.dumps(values.encode(journal), indent=1))


def read_plan(storage: str) -> Plan | None:
    """None where there is none. Raises SetupRefused for one of another version, SetupFileBroken, and OSError."""
    path = paths.plan(storage)
    data = _data(path)
    if (
        isinstance(data, dict)
        and "version" in data
        and (data.get("format"), data.get("version")) != (FORMAT, __version__)
    ):
        raise _of_another(storage, str(data.get("version"))[:20])
    return _read(path, Plan)


def _of_another(storage: str, version: str) -> SetupRefused:
    """What its steps mean, this version does not know."""
    journal = read(storage)
    if journal is None or not journal.begun:
        remedy = f"Nothing was done of it: plan again with 'pvedrbdstor setup plan {storage}'"
    elif journal.finished:
        remedy = f"It has come to its end: look at 'pvedrbdstor mirror status {storage}'"
    else:
        remedy = (
            f"It was begun: install pvedrbdstor {printable(version)} on both nodes and go on, or take back by hand what its steps in "
            f"{paths.plan(storage)} have made, then plan again with '--anew'"
        )
    return SetupRefused(
        storage=storage,
        cause=f"its plan is of pvedrbdstor {printable(version)}, and this is another version",
        remedy=remedy,
    )


def read(storage: str) -> Journal | None:
    """None where nothing was begun. Raises SetupFileBroken, OSError."""
    return _read(paths.journal(storage), Journal)


def put_away(storage: str) -> list[str]:
    """Keep the plan and its journal under names with the time, which are returned. Raises OSError."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = []
    for path in (paths.journal(storage), paths.plan(storage)):
        if os.path.exists(path):
            os.rename(path, f"{path}.{stamp}")
            kept.append(f"{path}.{stamp}")
    return kept


def _text(plan: Plan) -> str:
    return json.dumps(values.encode(plan), indent=1)


def _write(path: str, text: str) -> None:
    os.makedirs(paths.FOLDER, mode=0o700, exist_ok=True)
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    sync_folder(paths.FOLDER)


def _read(path: str, kind: type[_T]) -> _T | None:
    data = _data(path)
    try:
        return None if data is None else values.decode(kind, data)
    except values.Malformed as error:
        raise SetupFileBroken(path=path, detail=str(error).rstrip(".")) from error


def _data(path: str) -> object:
    """None where there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file) or {}
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SetupFileBroken(path=path, detail=str(error).rstrip(".")) from error


def finish(journal: Journal) -> Journal:
    return replace(journal, finished=True)
