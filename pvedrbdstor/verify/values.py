"""Flat values (text, numbers, truths) from the JSON of another node or of a file, checked one by one. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

_T = TypeVar("_T")
_TEXT_MAX = 256
_NUMBER_MAX = 1 << 63


def read(kind: type[_T], data: Mapping[str, object]) -> _T:
    """A dataclass whose fields are `str`, `int`, `float` or `bool`, each perhaps with `| None`.

    What is not known here is passed over. Raises ValueError for what is missing, of another kind or too large.
    """
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass, by the caller's word
        value = data.get(field.name)
        word, _, optional = str(field.type).partition(" | ")
        if not (value is None and optional == "None") and not _fits(value, word):
            raise ValueError(f"'{field.name}' is {str(value)[:64]!r}")
        values[field.name] = value
    return kind(**values)


def _fits(value: object, word: str) -> bool:
    match word:
        case "str":
            return isinstance(value, str) and len(value) <= _TEXT_MAX and value.isprintable()
        case "bool":
            return isinstance(value, bool)
        case "int":
            return type(value) is int and 0 <= value < _NUMBER_MAX
        case "float":
            return type(value) in (int, float) and math.isfinite(value) and 0 <= value < _NUMBER_MAX  # type: ignore[arg-type,operator]
    raise AssertionError(f"no value of ours is a {word}")
