"""Where the snapshots of a raw image lie, and which of the files there really belong to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvedrbdstor.errors import SnapshotMissing
from pvedrbdstor.volumes.identity import SnapshotMark, snapshot_mark
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.store import SNAPSHOTS, Store, make_folder

_SUFFIX = ".raw"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of a raw image: what it says of itself, and its size in bytes when it was taken."""

    name: str
    mark: SnapshotMark
    size: int


def file_of(snap: str) -> str:
    """The file name of a snapshot inside its image's snapshot folder."""
    return snap + _SUFFIX


@contextmanager
def folder(store: Store, guest_fd: int, image: str, *, create: bool = False) -> Iterator[int]:
    """The snapshot folder of an image. Raises FileNotFoundError where it has none."""
    if create:
        make_folder(guest_fd, SNAPSHOTS, 0o755)
    parent = store.open_folder(guest_fd, SNAPSHOTS)
    try:
        if create:
            make_folder(parent, image, 0o755)
        fd = store.open_folder(parent, image)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(parent)


@contextmanager
def parent_folder(store: Store, guest_fd: int, *, create: bool = False) -> Iterator[int]:
    """The folder that holds the snapshot folders of all images of a guest. Raises FileNotFoundError."""
    if create:
        make_folder(guest_fd, SNAPSHOTS, 0o755)
    fd = store.open_folder(guest_fd, SNAPSHOTS)
    try:
        yield fd
    finally:
        os.close(fd)


def mark_in(folder_fd: int, file: str) -> tuple[SnapshotMark, int] | None:
    """Mark and size of a file in a snapshot folder; None where it is no snapshot of ours."""
    try:
        fd = os.open(file, _OPEN, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    try:
        mark = snapshot_mark(fd)
        return (mark, os.fstat(fd).st_size) if mark else None
    finally:
        os.close(fd)


def snapshots_of(store: Store, guest_fd: int, image: str, image_id: str | None) -> list[Snapshot]:
    """The snapshots that belong to the image of this name and id, oldest first."""
    if image_id is None:
        return []
    found = []
    try:
        with folder(store, guest_fd, image) as fd:
            for file in os.listdir(fd):
                marked = mark_in(fd, file) if file.endswith(_SUFFIX) else None
                if marked and marked[0].image == image_id:
                    found.append(Snapshot(file.removesuffix(_SUFFIX), marked[0], marked[1]))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda snapshot: (snapshot.mark.created, snapshot.name))


@contextmanager
def opened(store: Store, guest_fd: int, volume: VolumeName, snap: str, image_id: str | None) -> Iterator[int]:
    """A snapshot, open for reading. Raises SnapshotMissing, also where the file belongs to an image that is gone."""
    missing = SnapshotMissing(volume=volume, snapshot=snap, storage=store.config.id)
    try:
        with folder(store, guest_fd, volume.name) as folder_fd:
            fd = os.open(file_of(snap), _OPEN, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise missing from None
        raise
    try:
        mark = snapshot_mark(fd)
        if mark is None or image_id is None or mark.image != image_id:
            raise missing
        yield fd
    finally:
        os.close(fd)
