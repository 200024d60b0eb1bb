"""Giving an image another name, or another guest; its snapshots go with it."""

from __future__ import annotations

import os

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadImage, NotSupported, ReadOnlyVolume, VolumeExists
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import qcow2
from pvedrbdstor.volumes.exclusive import exclusive
from pvedrbdstor.volumes.images import require_present
from pvedrbdstor.volumes.listing import names_in
from pvedrbdstor.volumes.names import VolumeName, check_new_name, first_free_name
from pvedrbdstor.volumes.steps import discard_snapshots, has_snapshot_folder, move_snapshots
from pvedrbdstor.volumes.store import SNAPSHOTS, Store, make_folder
from pvedrbdstor.volumes.tidy import remove_empty_folders
from pvedrbdstor.volumes.work import intent


def rename_volume(store: Store, call: Call, volume: VolumeName, vmid: int, name: str | None) -> VolumeName:
    """Move an image to guest ``vmid``, under ``name`` or the first free one. Raises VolumeExists, VolumeMissing, ReadOnlyVolume."""
    if volume.is_base:
        raise ReadOnlyVolume(volume=volume)
    if name is not None:
        check_new_name(name, vmid, volume.format)
    with exclusive(store, call, volume.vmid, vmid):
        with store.guest_of(volume) as source_fd:
            require_present(store, source_fd, volume)
            if volume.vmid != vmid and volume.format == "qcow2":
                _refuse_chain(store, source_fd, volume)
            chosen = name or first_free_name(_names_of(store, vmid), vmid, volume.format, store.config.id)
            target = volume.renamed(vmid, chosen)
            _refuse_taken(store, target)
            _move(store, call, source_fd, volume, target)
        remove_empty_folders(store, volume.vmid)
    return target


def _refuse_chain(store: Store, source_fd: int, volume: VolumeName) -> None:
    """In another folder the bare name of a backing file would mean another file, or none. Raises NotSupported."""
    with store.image(source_fd, volume) as fd:
        try:
            backing = qcow2.read_header(fd, str(volume)).backing_file
        except BadImage:
            return  # reads from nothing; whoever renames it may want it out of the way
    if backing is not None and "/" not in backing:
        detail = f"'{volume}' is part of a chain of images in its guest's folder, which cannot go to another guest"
        raise NotSupported(detail=f"{detail}. Move the disk to make it one image ('qm disk move')")


def _names_of(store: Store, vmid: int) -> list[str]:
    try:
        with store.guest(vmid) as guest_fd:
            return names_in(guest_fd)
    except FileNotFoundError:
        return []


def _refuse_taken(store: Store, target: VolumeName) -> None:
    """rename() would silently replace; both guests' locks are held, so nothing of ours can come in between."""
    try:
        with store.guest(target.vmid) as target_fd:
            os.stat(target.name, dir_fd=target_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise VolumeExists(volume=target, storage=store.config.id)


def _move(store: Store, call: Call, source_fd: int, volume: VolumeName, target: VolumeName) -> None:
    plan: dict[str, object] = {
        "do": "rename",
        "vmid": volume.vmid,
        "name": volume.name,
        "target_vmid": target.vmid,
        "target_name": target.name,
    }
    with intent(store, volume.vmid, plan), store.guest(target.vmid, create=True) as target_fd:
        if has_snapshot_folder(store, target_fd, target.name):
            discard_snapshots(store, call, target.vmid, target_fd, target.name)
        if has_snapshot_folder(store, source_fd, volume.name):
            make_folder(target_fd, SNAPSHOTS, 0o755)  # now, while a full file system does no harm
        reach("rename.prepared")
        call.check()
        os.rename(volume.name, target.name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        try:
            reach("rename.image-moved")
            move_snapshots(store, source_fd, target_fd, volume.name, target.name)
            reach("rename.snapshots-moved")
            native.fsync(target_fd, str(target))
            native.fsync(source_fd, str(volume))
            call.check()
        except BaseException:
            move_snapshots(store, target_fd, source_fd, target.name, volume.name)
            os.rename(target.name, volume.name, src_dir_fd=target_fd, dst_dir_fd=source_fd)
            raise
