"""Sizes as people write and read them; pure. Units are binary: 1K is 1024 bytes."""

from __future__ import annotations

import re
from fractions import Fraction

from pvedrbdstor.errors import BadSize

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([KMGTP]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_SHIFT = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
KIB = 1024


def parse_size(text: str) -> int:
    """The size in bytes of `32G`, `1.5T`, `512MiB` or `33554432`; a bare number counts KiB, as `pvesm alloc` does.

    Raises BadSize when it is not a size, is zero, or is not a whole number of KiB (PVE's smallest step).
    """
    found = _SIZE.fullmatch(text)
    if not found or (not found[2] and not text.isdecimal()):
        raise BadSize(detail=f"'{text}' is not a size. Write for example 32G, 512M, 1.5T, or a number of KiB")
    size = Fraction(found[1]) * (1 << _SHIFT[(found[2] or "K").upper()])
    if size == 0:
        raise BadSize(detail=f"A size of '{text}' is nothing: it must be more than zero")
    if size.denominator != 1 or size.numerator % KIB:
        raise BadSize(detail=f"'{text}' is not a whole number of KiB. Round it")
    return size.numerator


def parse_new_size(text: str, current: int) -> int:
    """The size in bytes that `+10G` (more than ``current`` bytes) or `42G` asks for. Raises BadSize."""
    if text.startswith("-"):
        raise BadSize(detail=f"'{text}' would shrink the volume; volumes only grow. Write the new size, or +SIZE")
    return current + parse_size(text[1:]) if text.startswith("+") else parse_size(text)


def format_size(size: int) -> str:
    """``size`` bytes for people, with three digits that count: `32 GiB`, `1.46 TiB`, `200 MiB`."""
    exponent = 0
    while exponent < len(_UNITS) - 1 and size >= KIB ** (exponent + 1):
        exponent += 1
    value = size / KIB**exponent
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    number = f"{value:.{digits}f}"
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {_UNITS[exponent]}"
