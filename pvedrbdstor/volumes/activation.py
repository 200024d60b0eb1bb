"""What must be true before Proxmox uses the storage or a volume: content folders there, leftovers gone, the file there."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from pvedrbdstor.call import Call
from pvedrbdstor.volumes.chain import refuse_foreign_chain
from pvedrbdstor.volumes.listing import info_of, refuse_invalid
from pvedrbdstor.volumes.locks import prepare_spare
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.recovery import recover
from pvedrbdstor.volumes.snapshots import require_snapshot
from pvedrbdstor.volumes.store import Store


def activate_storage(store: Store, call: Call, content_dirs: Sequence[str]) -> None:
    """Clean up after a crash, and make missing folders; a read-only or full file system is usable without."""
    try:
        recover(store, call)
        prepare_spare(store)
        store.work()
        for relative in content_dirs:
            store.folder(relative, create=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise


def activate_volume(store: Store, call: Call, volume: VolumeName, snap: str | None) -> None:
    """Raises VolumeMissing, SnapshotMissing, or BadImage for a qcow2 image that reads from outside the storage."""
    info = info_of(store, volume)
    if snap is not None:
        require_snapshot(store, volume, snap)
    if volume.format != "qcow2":
        return
    refuse_invalid(info)
    with store.guest_of(volume) as guest_fd, store.image(guest_fd, volume, os.O_RDONLY) as fd:
        refuse_foreign_chain(store, volume, fd)
