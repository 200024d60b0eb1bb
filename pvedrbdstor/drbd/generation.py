"""Which DRBD the kernel runs: 8.4 and 9 differ in where options live and what their tools tell. No I/O here."""

from __future__ import annotations

import enum
import re

_PROC = re.compile(r"version: ([0-9]{1,3})\.([0-9]{1,3})\.[0-9]")
_KERNEL_CODE = re.compile(r"^DRBD_KERNEL_VERSION_CODE=0x([0-9a-fA-F]{6})$", re.MULTILINE)


class Generation(enum.Enum):
    """DRBD's two generations that this storage works with."""

    V8_4 = "8.4"
    V9 = "9"


def from_proc_drbd(text: str) -> Generation | None:
    """From the first line of /proc/drbd; None for any other version, or none."""
    found = _PROC.match(text)
    return _generation(int(found[1]), int(found[2])) if found else None


def from_version(text: str) -> Generation | None:
    """From `drbdadm --version`, whose kernel version is 0 while the module is not loaded."""
    found = _KERNEL_CODE.search(text)
    if found is None:
        return None
    code = int(found[1], 16)
    return _generation(code >> 16, code >> 8 & 0xFF)


def _generation(major: int, minor: int) -> Generation | None:
    if major == 9:
        return Generation.V9
    return Generation.V8_4 if (major, minor) == (8, 4) else None
