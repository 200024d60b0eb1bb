"""Templates and clones: a clone is a reflink, independent from its birth; its base stays deletable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadName, HasSnapshots, NotSupported, VolumeExists
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import qcow2, snapshot_files
from pvedrbdstor.volumes.chain import refuse_foreign_chain
from pvedrbdstor.volumes.exclusive import exclusive
from pvedrbdstor.volumes.identity import image_id, new_id, set_image_id
from pvedrbdstor.volumes.images import publish_image_locked, require_present
from pvedrbdstor.volumes.listing import info_of
from pvedrbdstor.volumes.names import VolumeName, parent_image
from pvedrbdstor.volumes.references import refuse_foreign_references
from pvedrbdstor.volumes.steps import protect, unprotect
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.work import intent, reflinking


def create_base(store: Store, call: Call, volume: VolumeName) -> VolumeName:
    """Turn `vm-...` into `base-...`, read-only and immutable. Raises HasSnapshots, VolumeExists, VolumeMissing."""
    if not volume.name.startswith("vm-"):
        raise BadName(name=str(volume), what="image for a template", detail="its name must begin with 'vm-'")
    base = volume.renamed(volume.vmid, "base-" + volume.name.removeprefix("vm-"))
    plan: dict[str, object] = {"do": "template", "vmid": volume.vmid, "name": base.name}
    with exclusive(store, call, volume.vmid), store.guest_of(volume) as guest_fd:
        require_present(store, guest_fd, volume)
        _refuse_snapshots(store, guest_fd, volume)
        _refuse_existing(store, guest_fd, base)
        _refuse_foreign(store, guest_fd, volume)
        with intent(store, volume.vmid, plan):
            call.check()
            os.rename(volume.name, base.name, src_dir_fd=guest_fd, dst_dir_fd=guest_fd)
            try:
                reach("template.renamed")
                protect(store, guest_fd, base)
                native.fsync(guest_fd, str(base))
                call.check()
            except BaseException:
                unprotect(store, guest_fd, base)
                os.rename(base.name, volume.name, src_dir_fd=guest_fd, dst_dir_fd=guest_fd)
                raise
    return base


def _refuse_foreign(store: Store, guest_fd: int, volume: VolumeName) -> None:
    """All clones of a template would read from wherever it reads from. Raises BadImage."""
    if volume.format == "qcow2":
        with store.image(guest_fd, volume) as fd:
            refuse_foreign_chain(store, volume, fd)


def _refuse_snapshots(store: Store, guest_fd: int, volume: VolumeName) -> None:
    names: list[str] = []
    with store.image(guest_fd, volume) as fd:
        if volume.format == "raw":
            names = [s.name for s in snapshot_files.snapshots_of(store, guest_fd, volume.name, image_id(fd))]
        elif volume.format == "qcow2":
            names = [s.name for s in qcow2.read_snapshots(fd, qcow2.read_header(fd, str(volume)), str(volume))]
    if names:
        remedy = "A template has none: delete them first"
        raise HasSnapshots(volume=volume, snapshots=", ".join(names[:5]), remedy=remedy)


def _refuse_existing(store: Store, guest_fd: int, volume: VolumeName) -> None:
    try:
        os.stat(volume.name, dir_fd=guest_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise VolumeExists(volume=volume, storage=store.config.id)


def clone_image(store: Store, call: Call, volume: VolumeName, vmid: int, snap: str | None) -> VolumeName:
    """A new image for guest ``vmid`` with the contents of a template, a stopped image, or a snapshot of a raw one.

    A clone of a qcow2 image is backed by what its source is backed by. Raises VolumeMissing, SnapshotMissing, NoReflink.
    """
    if volume.format not in ("raw", "qcow2"):
        raise NotSupported(detail=f"A {volume.format} image cannot be cloned in place. Make a full clone")
    if snap is not None and volume.format == "qcow2":
        raise NotSupported(
            detail="A snapshot inside a qcow2 image cannot be cloned in place. Make a full clone, or use raw images"
        )
    with (
        exclusive(store, call, volume.vmid, vmid, *_bases_of(store, volume)),
        _source(store, volume, snap) as source_fd,
        reflinking(store, call, vmid, source_fd, str(volume)) as item,
    ):
        if volume.format == "raw":
            set_image_id(item.fd, new_id())
        reach("clone.copied")
        clone = publish_image_locked(store, call, item, vmid, volume.format, None)
    return info_of(store, clone).volume


def _bases_of(store: Store, volume: VolumeName) -> list[int]:
    """The guest whose template the clone will depend on, as its source does: that must not be freed meanwhile."""
    base = info_of(store, volume).volume.base
    return [base.vmid] if base else []


@contextmanager
def _source(store: Store, volume: VolumeName, snap: str | None) -> Iterator[int]:
    """The file whose contents the clone gets, open for reading."""
    with store.guest_of(volume) as guest_fd, store.image(guest_fd, volume) as image_fd:
        if snap is not None:
            with snapshot_files.opened(store, guest_fd, volume, snap, image_id(image_fd)) as fd:
                yield fd
            return
        if volume.format == "qcow2":
            _refuse_uncloneable(store, volume, qcow2.read_header(image_fd, str(volume)))
        yield image_fd


def _refuse_uncloneable(store: Store, volume: VolumeName, header: qcow2.Header) -> None:
    """A clone may depend on a template of this storage, as its source does, and on nothing else."""
    refuse_foreign_references(header, volume, store.config.path)
    if header.backing_file is not None and parent_image(header.backing_file) is None:
        raise NotSupported(detail=f"'{volume}' is part of a chain of images. Make a full clone")
    if header.snapshot_count:
        raise NotSupported(
            detail=f"'{volume}' has snapshots inside, which a clone would carry along. Make a full clone"
        )
