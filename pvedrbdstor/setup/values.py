"""Values to JSON and back: dataclasses of text, numbers, switches, tuples and mappings, as facts and plans are made of. No I/O here."""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


class Malformed(ValueError):
    """What was read is not what was written by this version; the text says where."""


def encode(value: Any) -> dict[str, Any]:
    """A dataclass as what json.dumps() takes."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(value), default=lambda word: word.value))
    return found


def decode(kind: type[_T], data: object) -> _T:
    """The dataclass ``kind`` from what json.loads() gave. Raises Malformed: nothing is guessed, nothing is passed over."""
    found: _T = _decode(kind, data, kind.__name__)
    return found


def _decode(kind: Any, data: object, where: str) -> Any:
    origin = typing.get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise Malformed(f"{where} is no list")
        (item, _) = typing.get_args(kind)
        return tuple(_decode(item, each, f"{where}[{at}]") for at, each in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, dict):
            raise Malformed(f"{where} is no object")
        (_, item) = typing.get_args(kind)
        return {str(key): _decode(item, each, f"{where}.{key}") for key, each in data.items()}
    if origin in (typing.Union, types.UnionType):
        wanted = [each for each in typing.get_args(kind) if each is not type(None)]
        return None if data is None else _decode(wanted[0], data, where)
    return _plain(kind, data, where)


def _plain(kind: Any, data: object, where: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise Malformed(f"{where} is {data!r}") from None
    if type(data) is not kind:  # True is no number
        raise Malformed(f"{where} is no {kind.__name__}")
    return data


def _dataclass(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise Malformed(f"{where} is no object")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    if names != set(data):
        raise Malformed(f"{where} has other fields than it should: {', '.join(sorted(names ^ set(data)))}")
    return kind(**{name: _decode(hints[name], data[name], f"{where}.{name}") for name in names})
