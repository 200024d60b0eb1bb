"""Empty folders go: an image's snapshot folder without snapshots, a guest's folder without images."""

from __future__ import annotations

import os

from pvedrbdstor.volumes.store import SNAPSHOTS, Store, remove_folder_if_empty


def remove_empty_folders(store: Store, vmid: int) -> None:
    """Remove what is empty in and above the snapshot folders of a guest. The guest's lock must be held."""
    try:
        images = store.images()
        guest_fd = store.open_folder(images, str(vmid))
    except FileNotFoundError:
        return
    try:
        _remove_empty_snapshot_folders(store, guest_fd)
    finally:
        os.close(guest_fd)
    remove_folder_if_empty(images, str(vmid))


def _remove_empty_snapshot_folders(store: Store, guest_fd: int) -> None:
    try:
        fd = store.open_folder(guest_fd, SNAPSHOTS)
    except FileNotFoundError:
        return
    try:
        for image in os.listdir(fd):
            remove_folder_if_empty(fd, image)
    finally:
        os.close(fd)
    remove_folder_if_empty(guest_fd, SNAPSHOTS)
