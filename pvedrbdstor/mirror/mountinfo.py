"""Lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)) as values. Nothing in this file does I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MNT_ID = re.compile(r"^mnt_id:\s*([0-9]{1,18})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount. device: (major, minor). root: the folder of the file system that was mounted, '/' for all of it.

    Names are the kernel's bytes, decoded with surrogateescape. options: of the file system, not of the mount.
    """

    mnt_id: int
    device: tuple[int, int]
    root: str
    mount_point: str
    fs_type: str
    source: str
    options: tuple[str, ...]


def find(mountinfo: bytes, mnt_id: int) -> MountEntry | None:
    """The mount with this id, None where there is none or its line is not whole."""
    start = mountinfo.find(b"\n%d " % mnt_id) + 1
    if start == 0 and not mountinfo.startswith(b"%d " % mnt_id):
        return None
    end = mountinfo.find(b"\n", start)
    return None if end < 0 else parse_line(mountinfo[start:end])


def parse_line(line: bytes) -> MountEntry | None:
    """One line without its newline; None where it is not one."""
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        fs_type, source, options = fields[dash + 1 : dash + 4]
        return MountEntry(
            mnt_id=int(fields[0]),
            device=(int(major), int(minor)),
            root=_unescape(fields[3]),
            mount_point=_unescape(fields[4]),
            fs_type=_unescape(fs_type),
            source=_unescape(source),
            options=tuple(_unescape(option) for option in options.split(b",") if option),
        )
    except ValueError:
        return None


def mnt_id_of(fdinfo: str) -> int | None:
    """The mount an open file lies on, from its /proc/PID/fdinfo/N."""
    found = _MNT_ID.search(fdinfo)
    return int(found[1]) if found else None


def _unescape(raw: bytes) -> str:
    """Undo the octal escapes of space, tab, newline and backslash (mangle() in the kernel's fs/seq_file.c)."""
    if b"\\" in raw:
        raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), raw)
    return raw.decode("utf-8", "surrogateescape")
