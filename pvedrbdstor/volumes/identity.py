"""The id of an image and the bond between it and its snapshots, as extended attributes."""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass

_ID = "user.drbdocfs2.id"
_SNAPSHOT = "user.drbdocfs2.snapshot"
_HEX = re.compile(rb"[0-9a-f]{32}")
_MARK = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{32}) ([0-9]{1,12})")


@dataclass(frozen=True)
class SnapshotMark:
    """What a snapshot file says of itself: its own id, its image's id, seconds since 1970 of its making."""

    id: str
    image: str
    created: int


def new_id() -> str:
    """A fresh id: 32 hex digits."""
    return os.urandom(16).hex()  # as `secrets` does, which loads OpenSSL for it


def image_id(fd: int) -> str | None:
    """The id of an image, or None where it has none (yet)."""
    value = _get(fd, _ID)
    return value.decode() if value is not None and _HEX.fullmatch(value) else None


def set_image_id(fd: int, value: str) -> None:
    os.setxattr(fd, _ID, value.encode())


def ensure_image_id(fd: int) -> str:
    """The id of an image, given to it now if a `dir` storage made it. The guest's lock must be held."""
    value = image_id(fd)
    if value is None:
        value = new_id()
        set_image_id(fd, value)
    return value


def mark_snapshot(fd: int, image: str) -> None:
    """Make the file behind ``fd`` a snapshot of the image with this id, taken now.

    One attribute holds all of it, since a guest is paused for as long as this takes.
    """
    os.setxattr(fd, _SNAPSHOT, f"{new_id()} {image} {int(time.time())}".encode())


def snapshot_mark(fd: int) -> SnapshotMark | None:
    """What a snapshot file says of itself, or None where it is not one of ours."""
    match = _MARK.fullmatch(_get(fd, _SNAPSHOT) or b"")
    return SnapshotMark(match[1].decode(), match[2].decode(), int(match[3])) if match else None


def _get(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
