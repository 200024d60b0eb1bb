"""Making, growing and removing images."""

from __future__ import annotations

import os
from contextlib import nullcontext

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import (
    BadSize,
    BaseInUse,
    DeadlineExceeded,
    NotSupported,
    ReadOnlyVolume,
    ShrinkRefused,
    VolumeExists,
)
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import qemu_img
from pvedrbdstor.volumes.exclusive import exclusive
from pvedrbdstor.volumes.identity import new_id, set_image_id
from pvedrbdstor.volumes.listing import children_of, info_of, names_in, refuse_invalid
from pvedrbdstor.volumes.names import VolumeName, check_format, check_new_name, first_free_name
from pvedrbdstor.volumes.qcow2_changes import change_qcow2
from pvedrbdstor.volumes.steps import discard_snapshots, has_snapshot_folder, unprotect
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.tidy import remove_empty_folders
from pvedrbdstor.volumes.work import Building, building, discard, intent

_CHUNK = 4 << 20
_ATTEMPTS = 3


def alloc_image(store: Store, call: Call, vmid: int, fmt: str, name: str | None, size: int) -> VolumeName:
    """Make an image of ``size`` bytes; without a name it gets the first free one. Raises VolumeExists, StorageFull, ..."""
    if fmt == "subvol":
        raise NotSupported(
            detail="A container of size 0 wants a plain folder, which cannot be mirrored as a disk. Give the container a size"
        )
    check_format(fmt, store.config.id)
    if name is not None:
        check_new_name(name, vmid, fmt)
    check_capacity(store, size)
    with building(store, vmid) as item:
        if fmt == "raw":
            _fill_raw(store, call, item, size)
            set_image_id(item.fd, new_id())
        elif fmt == "vmdk":
            qemu_img.create_vmdk(store.work(), item.entry, size, call)
        else:
            qemu_img.create_qcow2(store.work(), item.entry, size, store.config.preallocation or "metadata", call)
        reach("alloc.filled")
        return publish_image(store, call, item, vmid, fmt, name)


def check_capacity(store: Store, size: int) -> None:
    """Refuse an image that could never be filled, however empty the storage. Raises BadSize."""
    total = store.capacity().total_bytes
    if size > total:
        raise BadSize(
            detail=f"An image of {size} bytes never fits storage '{store.config.id}', which has {total} bytes in all. Name a smaller size"
        )


def publish_image(store: Store, call: Call, item: Building, vmid: int, fmt: str, name: str | None) -> VolumeName:
    """Give a finished image its name in the guest's folder. Raises VolumeExists, LockTimeout."""
    with exclusive(store, call, vmid):
        return publish_image_locked(store, call, item, vmid, fmt, name)


def publish_image_locked(store: Store, call: Call, item: Building, vmid: int, fmt: str, name: str | None) -> VolumeName:
    """The same, with the guest's lock held already."""
    try:
        for attempt in range(_ATTEMPTS):
            try:
                return _publish(store, call, item, vmid, fmt, name)
            except FileNotFoundError:  # what knows no locks of ours removed the folder while it was empty
                if attempt == _ATTEMPTS - 1:
                    raise
    except BaseException:
        remove_empty_folders(store, vmid)
        raise
    raise AssertionError("the last attempt returns or raises")


def _publish(store: Store, call: Call, item: Building, vmid: int, fmt: str, name: str | None) -> VolumeName:
    with store.guest(vmid, create=True) as guest_fd:
        chosen = name or first_free_name(names_in(guest_fd), vmid, fmt, store.config.id)
        try:
            item.publish(call, guest_fd, chosen)
        except FileExistsError:
            raise VolumeExists(volume=f"{vmid}/{chosen}", storage=store.config.id) from None
    return VolumeName(vmid, chosen)


def _fill_raw(store: Store, call: Call, item: Building, size: int) -> None:
    mode = store.config.preallocation
    if mode in ("falloc", "full"):
        native.fallocate(item.fd, 0, size, path=item.entry)
    if mode == "full":
        _write_zeros(call, item.fd, size)
    os.ftruncate(item.fd, size)


def _write_zeros(call: Call, fd: int, size: int) -> None:
    """Write every byte. Raises NotSupported when that takes longer than the caller can wait."""
    zeros = memoryview(bytes(_CHUNK))
    done = 0
    try:
        while done < size:
            done += os.pwrite(fd, zeros[: min(_CHUNK, size - done)], done)
            call.advance(done, size)
    except DeadlineExceeded:
        written = done >> 20
        detail = (
            f"Writing out {size >> 20} MiB takes too long: {written} MiB were written in {round(call.timeout)} s. "
            "Set the storage's preallocation to 'falloc', which reserves the same space at once"
        )
        raise NotSupported(detail=detail) from None


def free_image(store: Store, call: Call, volume: VolumeName) -> None:
    """Remove an image and its snapshots. It is gone when this returns; its blocks are given back afterwards.

    Raises VolumeMissing, BaseInUse.
    """
    with exclusive(store, call, volume.vmid, freeing=volume):
        with store.guest_of(volume) as guest_fd:
            require_present(store, guest_fd, volume)
            if volume.is_base:
                _refuse_while_used(store, call, volume)
            snapshots = has_snapshot_folder(store, guest_fd, volume.name)
            plan: dict[str, object] = {"do": "free", "vmid": volume.vmid, "name": volume.name}
            # A full file system must not keep anything from being freed: then a crash in between may leave snapshots
            # that are nobody's, or a template that is not immutable.
            many = snapshots or volume.is_base
            with intent(store, volume.vmid, plan, even_if_full=True) if many else nullcontext():
                call.check()
                if volume.is_base:
                    unprotect(store, guest_fd, volume)
                    reach("free.unprotected")
                discard(store, call, volume.vmid, guest_fd, volume.name)
                reach("free.image-gone")
                if snapshots:
                    discard_snapshots(store, call, volume.vmid, guest_fd, volume.name)
                    reach("free.snapshots-gone")
                native.fsync(guest_fd, str(volume))
        remove_empty_folders(store, volume.vmid)


def _refuse_while_used(store: Store, call: Call, volume: VolumeName) -> None:
    users = children_of(store, call, volume)
    if users:
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        raise BaseInUse(volume=volume, users=shown)


def require_present(store: Store, guest_fd: int, volume: VolumeName) -> None:
    """Raises VolumeMissing where nothing has the volume's name."""
    try:
        os.stat(volume.name, dir_fd=guest_fd, follow_symlinks=False)
    except FileNotFoundError:
        raise store.missing(volume) from None


def resize_image(store: Store, call: Call, volume: VolumeName, size: int) -> None:
    """Grow an image to ``size`` bytes. Raises ShrinkRefused, ReadOnlyVolume, VolumeMissing, BadSize."""
    if volume.is_base:
        raise ReadOnlyVolume(volume=volume)
    if volume.format not in ("raw", "qcow2"):
        raise NotSupported(
            detail=f"A {volume.format} image cannot be resized. Convert it to raw first ('qm disk move')"
        )
    check_capacity(store, size)
    with exclusive(store, call, volume.vmid), store.guest_of(volume) as guest_fd:
        info = info_of(store, volume)
        refuse_invalid(info)
        current = info.size
        if size < current:
            raise ShrinkRefused(volume=volume, current=current, wanted=size)
        if size == current:
            return
        if volume.format == "qcow2":
            mode = store.config.preallocation or "metadata"
            change_qcow2(
                store,
                call,
                guest_fd,
                volume,
                lambda folder, name: qemu_img.resize_qcow2(folder, name, size, mode, call),
            )
            return
        with store.image(guest_fd, volume, os.O_RDWR) as fd:
            _grow_raw(store, call, fd, current, size)
            reach("resize.grown")
            native.fsync(fd, str(volume))


def _grow_raw(store: Store, call: Call, fd: int, current: int, size: int) -> None:
    if store.config.preallocation in ("falloc", "full"):
        try:
            native.fallocate(fd, current, size - current, keep_size=True)
        except OSError:
            native.punch_hole(fd, current, size - current)  # what was reserved before the file system was full
            raise
        reach("resize.reserved")
    call.check()
    os.ftruncate(fd, size)
