"""Whose a file of the storage is: the guest's that it goes with, or a word for what is no guest's. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Container

from pvedrbdstor.verify.owners import Kind, Owner
from pvedrbdstor.volumes.names import is_image_file
from pvedrbdstor.volumes.store import INTERNAL
from pvedrbdstor.volumes.work import TRASH, parse_entry

Top = int | str
"""Whose a file is at the top: a guest's number, or a word for what is no guest's."""
LONE_SNAPSHOT = "snapshots without their image"
NO_VOLUME = "files in guests' folders that are no volumes"


def is_image(owner: Owner) -> bool:
    return owner.kind is Kind.IMAGE and is_image_file(posixpath.basename(owner.path))


def whose(owner: Owner, images: Container[str]) -> Top:
    """images: the paths of those there are. A snapshot goes when the image of its name is freed, whosever it is."""
    if owner.vmid is not None and (is_image(owner) or (owner.kind is Kind.SNAPSHOT and owner.image in images)):
        return owner.vmid
    if owner.kind is Kind.SNAPSHOT:
        return LONE_SNAPSHOT
    if owner.kind is Kind.IMAGE:
        return NO_VOLUME
    if owner.kind is Kind.WORK:
        if owner.path.startswith(f"{INTERNAL}/lock/"):
            return "lock files"
        entries = (parse_entry(part) for part in owner.path.split("/"))
        removed = any(entry is not None and entry[0] == TRASH for entry in entries)
        return "removed, not given back yet" if removed else "work in progress"
    return owner.what
