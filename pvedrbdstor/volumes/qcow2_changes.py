"""Changing a qcow2 image with qemu-img, all or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from pvedrbdstor.call import Call
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes.chain import refuse_foreign_chain
from pvedrbdstor.volumes.identity import image_id, set_image_id
from pvedrbdstor.volumes.locks import hold_image
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.work import keep_for_removal, reflinking


def change_qcow2(
    store: Store, call: Call, guest_fd: int, volume: VolumeName, change: Callable[[int, str], None]
) -> None:
    """Let ``change(folder_fd, name)`` work on a reflink of the image, which then takes its place in one step.

    So a qemu-img that is killed, by a deadline, a restart or a power cut, leaves the image as it was. The guest's lock
    must be held. Raises ImageInUse, BadImage for an image that reads from outside the storage, NoReflink.
    """
    with store.image(guest_fd, volume, os.O_RDWR) as fd:
        hold_image(fd, volume)
        refuse_foreign_chain(store, volume, fd)
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        with reflinking(store, call, volume.vmid, fd, str(volume), mode) as item:
            owner = image_id(fd)
            if owner is not None:
                set_image_id(item.fd, owner)
            with item.shown_in(guest_fd) as name:
                change(guest_fd, name)
            reach("qcow2.changed")
            old = keep_for_removal(store, call, volume.vmid, guest_fd, volume.name, fd)
            item.replace(store, call, guest_fd, volume.name, old)
