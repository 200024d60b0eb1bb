"""What lies in guests' folders and nothing lists or frees: files that are no volumes, and snapshots without their image.

By names alone, some calls a guest, so that it costs little beside a listing. Reads only, and takes no locks of ours: what an operation that runs, or
was cut off, has made so is left out, as that or recovery ends it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pvedrbdstor.call import Call
from pvedrbdstor.errors import WrongMount
from pvedrbdstor.space.whose import LONE_SNAPSHOT, NO_VOLUME, Top, is_image, whose
from pvedrbdstor.verify.owners import Owner, owner_of
from pvedrbdstor.volumes import snapshot_files
from pvedrbdstor.volumes.store import INTERNAL, SNAPSHOTS, Store
from pvedrbdstor.volumes.work import INTENT, NEW, parse_entry


@dataclass(frozen=True, slots=True)
class Foreign:
    """Paths relative to the storage, by guest and name."""

    files: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()


def foreign(store: Store, call: Call) -> Foreign:
    """Raises OSError, CallerGone, DeadlineExceeded."""
    first = _look(store, call, sorted(store.guest_numbers()))
    if not first:
        return Foreign()
    # An operation that was in the middle of it is in work/ still, or has ended, and the second look finds it so.
    work = [(entry, parsed) for entry in _work(store) if (parsed := parse_entry(entry))]
    busy = {vmid for _, (kind, vmid) in work if kind == INTENT}
    hidden = {f".{entry}" for entry, (kind, _) in work if kind == NEW}  # work.Building.shown_in
    again = _look(store, call, sorted({owner.vmid for owner in first if owner.vmid} - busy))
    kept = {
        owner.path: what
        for owner, what in again.items()
        if owner in first and posixpath.basename(owner.path) not in hidden
    }
    return Foreign(
        files=tuple(path for path, what in kept.items() if what == NO_VOLUME),
        snapshots=tuple(path for path, what in kept.items() if what == LONE_SNAPSHOT),
    )


def _look(store: Store, call: Call, vmids: Iterable[int]) -> dict[Owner, Top]:
    found: dict[Owner, Top] = {}
    for vmid in vmids:
        call.check()
        try:
            guest_fd = store.open_folder(store.images(), str(vmid))
        except (FileNotFoundError, WrongMount):  # gone meanwhile, or no folder
            continue
        try:
            owners = list(_owners(store, guest_fd, vmid))
        except FileNotFoundError:  # removed after it was opened
            continue
        finally:
            os.close(guest_fd)
        images = {owner.path for owner in owners if is_image(owner)}
        others = sorted((owner for owner in owners if owner.path not in images), key=lambda owner: owner.path)
        found |= {owner: what for owner in others if isinstance(what := whose(owner, images), str)}
    return found


def _owners(store: Store, guest_fd: int, vmid: int) -> Iterator[Owner]:
    """Of the files in a guest's folder, and of those in the snapshot folders of images that are not there."""
    images_dir = store.config.images_dir
    files, folders = _names(guest_fd)
    for name in files:
        yield owner_of(f"{images_dir}/{vmid}/{name}", images_dir)
    if SNAPSHOTS not in folders:
        return
    with suppress(FileNotFoundError, WrongMount), snapshot_files.parent_folder(store, guest_fd) as parent:
        for image in set(_names(parent)[1]).difference(files):
            with suppress(FileNotFoundError, WrongMount), snapshot_files.folder(store, guest_fd, image) as fd:
                for name in _names(fd)[0]:
                    yield owner_of(f"{images_dir}/{vmid}/{SNAPSHOTS}/{image}/{name}", images_dir)


def _names(folder_fd: int) -> tuple[list[str], list[str]]:
    """The regular files and the folders in it, as the folder itself tells them apart."""
    with os.scandir(folder_fd) as entries:
        found = list(entries)
    files = [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
    return files, [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]


def _work(store: Store) -> list[str]:
    try:
        return os.listdir(store.folder(f"{INTERNAL}/work"))
    except FileNotFoundError:
        return []
