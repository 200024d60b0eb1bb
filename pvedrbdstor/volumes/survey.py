"""What a storage holds that another storage type would not know: looked for before a storage changes its type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pvedrbdstor.call import Call
from pvedrbdstor.volumes import snapshot_files
from pvedrbdstor.volumes.identity import image_id
from pvedrbdstor.volumes.listing import files_of
from pvedrbdstor.volumes.names import format_of, is_image_file
from pvedrbdstor.volumes.store import INTERNAL, Store
from pvedrbdstor.volumes.work import INTENT, parse_entry

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHAIN = re.compile(r"snap-.+\.qcow2")  # PVE::Storage::Plugin get_snap_name (storage API 12)
_SUBVOLUME = re.compile(r"subvol-[0-9]+-.+\.subvol")


def survey(store: Store, call: Call) -> dict[str, object]:
    """Look through the folders of all guests; writes nothing and takes no locks.

    snapshots: of raw images, which only our type knows (`VMID/IMAGE: SNAPSHOT`). chains: files of snapshots that are
    volumes, and subvolumes: folders of containers, which it does not know. interrupted: operations that a crash cut off.
    """
    found: dict[str, list[str]] = {"snapshots": [], "chains": [], "subvolumes": []}
    try:
        images = store.images()
    except FileNotFoundError:
        return {**found, "interrupted": _interrupted(store)}
    for vmid in sorted(store.guest_numbers()):
        call.check()
        for guest_fd, name in files_of(store, images, vmid):
            if _CHAIN.fullmatch(name):
                found["chains"].append(f"{vmid}/{name}")
            elif _SUBVOLUME.fullmatch(name):
                found["subvolumes"].append(f"{vmid}/{name}")
            elif is_image_file(name) and format_of(name) == "raw":
                found["snapshots"] += [f"{vmid}/{name}: {snap}" for snap in _snapshots(store, guest_fd, name)]
    return {**found, "interrupted": _interrupted(store)}


def _snapshots(store: Store, guest_fd: int, name: str) -> Iterator[str]:
    """The snapshots of one raw image; none where it vanishes meanwhile or is no file."""
    try:
        fd = os.open(name, _OPEN, dir_fd=guest_fd)
    except OSError:
        return
    try:
        for snapshot in snapshot_files.snapshots_of(store, guest_fd, name, image_id(fd)):
            yield snapshot.name
    finally:
        os.close(fd)


def _interrupted(store: Store) -> int:
    try:
        entries = os.listdir(store.folder(f"{INTERNAL}/work"))
    except FileNotFoundError:
        return 0
    return sum((parse_entry(entry) or ("", 0))[0] == INTENT for entry in entries)
