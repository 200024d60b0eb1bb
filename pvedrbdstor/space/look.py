"""Look at every file of a mounted storage: what it is, how long, where its blocks lie. Reads only, takes no lock of ours.

FIEMAP is asked as the files are, without FIEMAP_FLAG_SYNC: nothing of a guest on this node is written out for it. It is asked
for 256 extents at a time, so that the file system holds what it has to hold for no longer than that takes. (That OCFS2 has the
other node write out what it has changed of a file, before this one may look at it, stat(2) brings about already.)
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadImage, SystemCallFailed
from pvedrbdstor.mirror.walk import Entry, walk
from pvedrbdstor.space.places import Places
from pvedrbdstor.verify.owners import Kind, Owner, owner_of
from pvedrbdstor.volumes import qcow2
from pvedrbdstor.volumes.identity import SnapshotMark, image_id, snapshot_mark
from pvedrbdstor.volumes.store import Store

_EXTENTS_A_SIGN = 1 << 12
"""Extents after which the caller is told that work goes on: on a slow disk a few seconds."""
_RANK = {Kind.IMAGE: 0, Kind.SNAPSHOT: 1, Kind.CONTENT: 2, Kind.WORK: 3}


@dataclass(slots=True)
class File:
    """One file, whatever names it has. apparent: its length in bytes.

    id: of an image that has one. mark: of a snapshot of ours. Of a qcow2 image, backing: the file of the storage it reads
    from, by its path there; inner: the snapshots inside it.
    """

    owner: Owner
    apparent: int
    places: Places
    id: str | None = None
    mark: SnapshotMark | None = None
    backing: str | None = None
    inner: tuple[qcow2.Snapshot, ...] = ()


@dataclass(slots=True)
class Looked:
    """failed: (path, why) of what could not be looked into; it is in none of the files."""

    files: list[File] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def look(store: Store, call: Call) -> Looked:
    """Every regular file of the storage, below whatever folder, but of nothing that is mounted there. What goes meanwhile is passed over, what comes may be.

    Reports progress in files. Raises CallerGone, DeadlineExceeded, and OSError where not even the root can be read.
    """
    total = sum(len(names) for _, _, names, _ in os.fwalk(".", dir_fd=store.root_fd, follow_symlinks=False))
    found = Looked()
    linked: dict[int, File] = {}
    device = os.fstat(store.root_fd).st_dev
    for done, entry in enumerate(
        walk(store.root_fd, leave_out=(), failed=lambda error: found.failed.append(_failure(error)))
    ):
        call.advance(min(done, total), total)
        if entry.status.st_dev != device:  # of something mounted below: no place of this device
            continue
        owner = owner_of(entry.path, store.config.images_dir)
        known = linked.get(entry.status.st_ino)
        if known is not None:  # one more name: the one that says most
            if _RANK[owner.kind] < _RANK[known.owner.kind]:
                known.owner = owner
            continue
        try:
            file = _looked_into(entry, owner, store.config.path, partial(call.advance, min(done, total), total))
        except OSError as error:
            found.failed.append(_failure(OSError(error.errno, error.strerror, entry.path)))
            continue
        found.files.append(file)
        if entry.status.st_nlink > 1:
            linked[entry.status.st_ino] = file
    return found


def _failure(error: OSError) -> tuple[str, str]:
    return plain(os.fsdecode(error.filename or "?")), error.strerror or str(error)


def plain(text: str) -> str:
    """A name that anybody may have chosen, fit for a terminal and for JSON."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _looked_into(entry: Entry, owner: Owner, root: str, sign: Callable[[], None]) -> File:
    file = File(owner, entry.status.st_size, _places(entry, sign))
    if owner.kind is Kind.IMAGE:
        file.id = image_id(entry.fd)
        if owner.format == qcow2.FORMAT:
            backing, file.inner = _inside(entry)
            file.backing = None if backing is None else _in_storage(backing, entry.path, root)
    elif owner.kind is Kind.SNAPSHOT:
        file.mark = snapshot_mark(entry.fd)
    return file


def _places(entry: Entry, sign: Callable[[], None]) -> Places:
    """All extents, those reserved and never written too; bytes inside the inode take no space of their own."""
    found = Places()
    for count, extent in enumerate(native.fiemap(entry.fd, path=entry.path), 1):
        if extent.inline:
            continue
        if extent.located:
            found.add(extent.physical, extent.length)
        else:
            found.nowhere += extent.length  # it waits to be allocated, for this file alone, and is counted as used
        if count % _EXTENTS_A_SIGN == 0:
            sign()
    found.sort()
    return found


def _inside(entry: Entry) -> tuple[str | None, tuple[qcow2.Snapshot, ...]]:
    """Backing file and snapshots of a qcow2 image; nothing of one that is broken, or being changed as we look."""
    try:
        header = qcow2.read_header(entry.fd, entry.path)
        return header.backing_file, tuple(qcow2.read_snapshots(entry.fd, header, entry.path))
    except (BadImage, SystemCallFailed):
        return None, ()


def _in_storage(backing: str, path: str, root: str) -> str | None:
    """A backing file, named relative to the image or from the root of the node, by its path in the storage."""
    found = posixpath.relpath(posixpath.join(root, posixpath.dirname(path), backing), root)
    return None if found == ".." or found.startswith("../") else found
