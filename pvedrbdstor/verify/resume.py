"""Where a comparison was when it was interrupted, on the disk: enough to go on with it, bound to the very mirror it was of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from types import NoneType

from pvedrbdstor import files
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import VerifyRefused

FOLDER = "/var/lib/pvedrbdstor/verify"
_FORMAT = 2
_AGE_MAX = 7 * 86400.0
"""Seconds since it began: what was found equal so long ago says little about now."""
_READ_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Saved:
    """began: seconds since 1970. seconds: spent so far. at: the byte up to which the plan was compared. pending: found different, without a
    verdict. The other ranges have theirs. fraction, seed, beside: of a sample (plan.sample()). generation: DRBD's of the data, the same on both
    nodes, None where it did not tell. much: something is left out for good. remarks: for the report."""

    storage: str
    size: int
    uuid: str
    mode: str
    granularity: int
    fraction: float
    seed: int
    began: float
    seconds: float
    at: int
    compared: int
    generation: str | None = None
    much: bool = False
    remarks: tuple[str, ...] = ()
    beside: tuple[int, ...] = ()
    pending: tuple[Range, ...] = ()
    diverged: tuple[Range, ...] = ()
    unreadable_here: tuple[Range, ...] = ()
    unreadable_there: tuple[Range, ...] = ()


_RANGES = frozenset({"pending", "diverged", "unreadable_here", "unreadable_there"})


def path(storage: str) -> str:
    return f"{FOLDER}/{storage}.json"


def write(saved: Saved) -> None:
    """On the disk when this returns. Raises OSError."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    files.replace(path(saved.storage), json.dumps({"format": _FORMAT, **asdict(saved)}), durable=True)


def read(storage: str) -> Saved | None:
    """None where nothing was interrupted. Raises VerifyRefused where it cannot be understood, OSError."""
    try:
        with open(path(storage), encoding="utf-8") as file:
            data = json.loads(file.read(_READ_MAX))
            _refuse_another_version(storage, data)
            return _from_json(data)
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise VerifyRefused(
            storage=storage,
            cause=f"{path(storage)}, which says where the last comparison was, cannot be understood ({type(error).__name__}: {error})",
            remedy="Run it without --resume, which begins anew and replaces that file",
        ) from error


def remove(storage: str, began: float) -> None:
    """Of the comparison that began then, and of no other that has begun since. Raises OSError."""
    with suppress(VerifyRefused, FileNotFoundError):
        found = read(storage)
        if found is not None and found.began == began:
            os.unlink(path(storage))


def misfit(saved: Saved, size: int, uuid: str, generation: str | None, now: float) -> str | None:
    """Why it is not of this mirror, or not of its data. now: seconds since 1970."""
    if saved.uuid != uuid:
        return f"it was of the file system {saved.uuid}, and this one is {uuid}"
    if saved.size != size:
        return f"the device had {saved.size} bytes then, and has {size} now"
    if saved.generation is None or generation is None:
        return "DRBD does not tell whether its data are of the same generation as then ('drbdadm get-gi')"
    if saved.generation != generation:
        return (
            f"DRBD called the data {saved.generation} then, and {generation} now: the nodes were not connected meanwhile, and a resync "
            "may have written what was compared before"
        )
    if abs(now - saved.began) > _AGE_MAX:
        return f"it began more than {_AGE_MAX / 86400:.0f} days ago, and what was equal then proves too little now"
    return None


def _refuse_another_version(storage: str, data: Mapping[str, object]) -> None:
    """Raises VerifyRefused; KeyError and others for what is none."""
    made = data["format"]
    if type(made) is int and made != _FORMAT:
        raise VerifyRefused(
            storage=storage,
            cause=f"another version of pvedrbdstor has left {path(storage)} (its format is {made}, here it is {_FORMAT}), and what it lacks "
            "cannot be guessed",
            remedy="Run it without --resume, which begins anew and replaces that file",
        )


def _from_json(data: Mapping[str, object]) -> Saved:
    """Raises ValueError and others for what is none."""
    if data["format"] != _FORMAT:
        raise ValueError("its format is no number")
    values: dict[str, object] = {}
    for field in fields(Saved):
        value = data[field.name]
        if field.name in _RANGES:
            values[field.name] = _ranges(value)
            continue
        if field.name == "beside":
            values[field.name] = _numbers(value)
            continue
        if field.name == "remarks":
            values[field.name] = _texts(value)
            continue
        values[field.name] = value
        kinds: tuple[type, ...] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}.get(
            str(field.type), (str, NoneType)
        )
        if type(value) not in kinds or (isinstance(value, int | float) and value < 0):
            raise ValueError(f"{field.name} is {value!r}")
    return Saved(**values)  # type: ignore[arg-type]  # checked above


def _ranges(data: object) -> tuple[Range, ...]:
    if not isinstance(data, Iterable):
        raise ValueError("ranges are no list")
    found = tuple((int(start), int(length)) for start, length in data)
    if any(start < 0 or length <= 0 for start, length in found):
        raise ValueError("a range is none")
    return found


def _texts(data: object) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(text, str) and text.isprintable() for text in data):
        raise ValueError("remarks are no list of lines")
    return tuple(data)


def _numbers(data: object) -> tuple[int, ...]:
    if not isinstance(data, list) or not all(type(number) is int and number >= 0 for number in data):
        raise ValueError("places are no list of numbers")
    return tuple(data)
