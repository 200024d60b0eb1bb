"""The record of the last check of one kind, in a file of its own: the last try, the last one that came to a verdict, and the one that stands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from pvedrbdstor import files
from pvedrbdstor.verify import values

COULD_NOT = "could not check"
_FORMAT = 1
_READ_MAX = 64 << 10
_REASON_MAX = 250
_AGES = ((86400, "day"), (3600, "hour"), (60, "minute"))

C = TypeVar("C")
"""A flat dataclass with the fields `verdict` and `reason` (str | None) among others."""


@dataclass(frozen=True)  # with slots a Record[Check] could not be called (Python 3.11)
class Record(Generic[C]):
    """last: the last try. judged: the last one that came to a verdict, perhaps the same; a try that failed does not hide it. standing: the last one
    whose verdict is not taken back by what came later."""

    last: C
    judged: C | None
    standing: C | None = None


class Unknown(Exception):
    """The record cannot be read; the text says why."""


def keep(path: str, check: Any, before: Callable[[], Record[Any] | None], *, stands: bool = True) -> None:
    """On the disk when this returns. before: reads what was kept. stands: its verdict takes the place of the one that stood. Raises OSError."""
    try:
        old = before()
    except Unknown:
        old = None
    came = check.verdict != COULD_NOT
    judged = check if came else old.judged if old is not None else None
    standing = check if came and stands else old.standing if old is not None else None
    document = {"format": _FORMAT, "last": asdict(check), "judged": _dict(judged), "standing": _dict(standing)}
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    files.replace(path, json.dumps(document), durable=True)


def _dict(check: Any) -> dict[str, object] | None:
    return None if check is None else asdict(check)


def read(path: str, kind: type[C], verdicts: Collection[str]) -> Record[C] | None:
    """None where nothing was kept on this node. Raises Unknown."""
    try:
        with open(path, encoding="utf-8") as file:
            return _record(json.loads(file.read(_READ_MAX)), kind, verdicts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Unknown(f"{path} cannot be read ({error})") from error


def check_of(text: str, kind: type[C], verdicts: Collection[str]) -> C:
    """One check alone, as JSON. Raises ValueError."""
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(data, Mapping):
        raise ValueError("a check is no object")
    return _check(data, kind, verdicts)


def as_json(record: Record[Any] | None) -> dict[str, object] | None:
    """The last try, and as `judged` the last one that came to a verdict."""
    if record is None:
        return None
    return {**asdict(record.last), "judged": _dict(record.judged)}


def age(seconds: float) -> str:
    """In the largest unit that fits: `3 days`."""
    for unit, name in _AGES:
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "moments"


def plain(text: str | None) -> str | None:
    """One printable line."""
    return None if text is None else "".join(c if c.isprintable() else " " for c in text).strip()[:_REASON_MAX]


def _record(data: object, kind: type[C], verdicts: Collection[str]) -> Record[C]:
    """Raises ValueError."""
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT or not isinstance(data.get("last"), Mapping):
        raise ValueError("it is of another version")
    judged = data.get("judged")
    standing = data.get("standing", judged)  # of a version that did not tell them apart
    return Record(
        _check(data["last"], kind, verdicts), *(_optional(each, kind, verdicts) for each in (judged, standing))
    )


def _optional(data: object, kind: type[C], verdicts: Collection[str]) -> C | None:
    if data is not None and not isinstance(data, Mapping):
        raise ValueError("a check is no object")
    return None if data is None else _check(data, kind, verdicts)


def _check(data: Mapping[str, object], kind: type[C], verdicts: Collection[str]) -> C:
    found: Any = values.read(kind, data)
    if found.verdict not in verdicts:
        raise ValueError(f"'{found.verdict[:64]}' is no verdict")
    checked: C = replace(found, reason=plain(found.reason))
    return checked
