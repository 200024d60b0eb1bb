"""Snapshots: of raw images by reflink, any order, independent of each other; of qcow2 images inside the image."""

from __future__ import annotations

import os

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import ForeignFile, NotSupported, ReadOnlyVolume, SnapshotExists, SnapshotMissing
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import qcow2, qemu_img, snapshot_files
from pvedrbdstor.volumes.exclusive import exclusive
from pvedrbdstor.volumes.identity import ensure_image_id, image_id, mark_snapshot, set_image_id
from pvedrbdstor.volumes.locks import hold_image
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.qcow2_changes import change_qcow2
from pvedrbdstor.volumes.store import SNAPSHOTS, Store
from pvedrbdstor.volumes.tidy import remove_empty_folders
from pvedrbdstor.volumes.work import discard, keep_for_removal, reflinking

_SNAPSHOT_MODE = 0o440


def create_snapshot(store: Store, call: Call, volume: VolumeName, snap: str) -> None:
    """Take a snapshot. Raises SnapshotExists, VolumeMissing, ReadOnlyVolume, LockTimeout.

    A guest may be paused meanwhile (PVE stops a virtual machine around it), so nothing here is done that can wait.
    """
    _require_snapshots(volume)
    if volume.is_base:
        raise ReadOnlyVolume(volume=volume)
    with exclusive(store, call, volume.vmid), store.guest_of(volume) as guest_fd:
        _require_snapshot(store, guest_fd, volume, snap, wanted=False)
        if volume.format == "qcow2":
            _snapshot_qcow2(store, call, guest_fd, volume, "-c", snap)
            return
        with store.image(guest_fd, volume) as image_fd:
            _snapshot_raw(store, call, guest_fd, image_fd, volume, snap)


def _snapshot_raw(store: Store, call: Call, guest_fd: int, image_fd: int, volume: VolumeName, snap: str) -> None:
    owner = ensure_image_id(image_fd)
    reach("snapshot.image-has-id")
    try:
        with reflinking(store, call, volume.vmid, image_fd, str(volume), _SNAPSHOT_MODE) as item:
            mark_snapshot(item.fd, owner)
            reach("snapshot.marked")
            with snapshot_files.folder(store, guest_fd, volume.name, create=True) as folder_fd:
                _make_way(store, call, volume, folder_fd, snap, owner)
                item.publish(call, folder_fd, snapshot_files.file_of(snap))
        native.fsync(guest_fd, str(volume))
    except BaseException:
        remove_empty_folders(store, volume.vmid)
        raise


def _make_way(store: Store, call: Call, volume: VolumeName, folder_fd: int, snap: str, owner: str) -> None:
    """Remove a snapshot of this name that an earlier image of the same name left behind, and is nobody's.

    Raises SnapshotExists, and ForeignFile for what this project did not make, such as a snapshot restored from a backup
    without its extended attributes: it may be somebody's last copy.
    """
    file = snapshot_files.file_of(snap)
    try:
        os.stat(file, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    marked = snapshot_files.mark_in(folder_fd, file)
    if marked is None:
        path = f"{store.config.images_dir}/{volume.vmid}/{SNAPSHOTS}/{volume.name}/{file}"
        raise ForeignFile(file=path, storage=store.config.id)
    if marked[0].image == owner:
        raise SnapshotExists(volume=volume, snapshot=snap, storage=store.config.id)
    discard(store, call, volume.vmid, folder_fd, file)


def delete_snapshot(store: Store, call: Call, volume: VolumeName, snap: str) -> None:
    """Remove a snapshot; any one, in any order. Raises SnapshotMissing, VolumeMissing."""
    _require_snapshots(volume)
    with exclusive(store, call, volume.vmid), store.guest_of(volume) as guest_fd:
        _require_snapshot(store, guest_fd, volume, snap, wanted=True)
        if volume.format == "qcow2":
            _snapshot_qcow2(store, call, guest_fd, volume, "-d", snap)
            return
        with snapshot_files.folder(store, guest_fd, volume.name) as folder_fd:
            call.check()
            discard(store, call, volume.vmid, folder_fd, snapshot_files.file_of(snap))
            reach("snapshot-delete.gone")
            native.fsync(folder_fd, str(volume))
        remove_empty_folders(store, volume.vmid)


def rollback(store: Store, call: Call, volume: VolumeName, snap: str) -> None:
    """Make the image what it was when the snapshot was taken, its size too; the snapshot stays.

    The guest is stopped (PVE sees to that). Raises SnapshotMissing, VolumeMissing, ImageInUse.
    """
    _require_snapshots(volume)
    with exclusive(store, call, volume.vmid), store.guest_of(volume) as guest_fd:
        _require_snapshot(store, guest_fd, volume, snap, wanted=True)
        if volume.format == "qcow2":
            _snapshot_qcow2(store, call, guest_fd, volume, "-a", snap)
            return
        with store.image(guest_fd, volume, os.O_RDWR) as image_fd:
            hold_image(image_fd, volume)
            owner = ensure_image_id(image_fd)
            with snapshot_files.opened(store, guest_fd, volume, snap, owner) as source_fd:
                _replace_by(store, call, guest_fd, image_fd, source_fd, volume, owner)


def _replace_by(
    store: Store, call: Call, guest_fd: int, image_fd: int, source_fd: int, volume: VolumeName, owner: str
) -> None:
    with reflinking(store, call, volume.vmid, source_fd, str(volume)) as item:
        set_image_id(item.fd, owner)
        reach("rollback.copied")
        old = keep_for_removal(store, call, volume.vmid, guest_fd, volume.name, image_fd)
        reach("rollback.old-kept")
        item.replace(store, call, guest_fd, volume.name, old)


def _snapshot_qcow2(store: Store, call: Call, guest_fd: int, volume: VolumeName, action: str, snap: str) -> None:
    change_qcow2(
        store, call, guest_fd, volume, lambda folder, name: qemu_img.snapshot_qcow2(folder, name, action, snap, call)
    )


def snapshot_info(store: Store, call: Call, volume: VolumeName) -> dict[str, dict[str, object]]:
    """Every snapshot: its id, the second it was taken, the size in bytes it had. Raises VolumeMissing."""
    _require_snapshots(volume)
    with store.guest_of(volume) as guest_fd:
        if volume.format == "qcow2":
            found = _inside_qcow2(store, guest_fd, volume)
            return {s.name: {"id": s.id, "timestamp": s.timestamp, "virtual-size": s.virtual_size} for s in found}
        with store.image(guest_fd, volume) as fd:
            owner = image_id(fd)
        return {
            s.name: {"id": s.mark.id, "timestamp": s.mark.created, "virtual-size": s.size}
            for s in snapshot_files.snapshots_of(store, guest_fd, volume.name, owner)
        }


def require_snapshot(store: Store, volume: VolumeName, snap: str) -> None:
    """Raises SnapshotMissing, VolumeMissing, NotSupported."""
    _require_snapshots(volume)
    with store.guest_of(volume) as guest_fd:
        _require_snapshot(store, guest_fd, volume, snap, wanted=True)


def _require_snapshots(volume: VolumeName) -> None:
    if volume.format not in ("raw", "qcow2"):
        raise NotSupported(
            detail=f"A {volume.format} image cannot have snapshots. Convert it to raw first ('qm disk move')"
        )


def _require_snapshot(store: Store, guest_fd: int, volume: VolumeName, snap: str, *, wanted: bool) -> None:
    """Raises SnapshotMissing where one is wanted and there is none, SnapshotExists the other way round."""
    if volume.format == "qcow2":
        present = any(s.name == snap for s in _inside_qcow2(store, guest_fd, volume))
    else:
        present = _has_raw_snapshot(store, guest_fd, volume, snap)
    if wanted and not present:
        raise SnapshotMissing(volume=volume, snapshot=snap, storage=store.config.id)
    if present and not wanted:
        raise SnapshotExists(volume=volume, snapshot=snap, storage=store.config.id)


def _has_raw_snapshot(store: Store, guest_fd: int, volume: VolumeName, snap: str) -> bool:
    with store.image(guest_fd, volume) as fd:
        owner = image_id(fd)
    try:
        with snapshot_files.opened(store, guest_fd, volume, snap, owner):
            return True
    except SnapshotMissing:
        return False


def _inside_qcow2(store: Store, guest_fd: int, volume: VolumeName) -> list[qcow2.Snapshot]:
    with store.image(guest_fd, volume) as fd:
        return qcow2.read_snapshots(fd, qcow2.read_header(fd, str(volume)), str(volume))
