"""Which DRBD volume lies under a mount that was made by hand."""

from __future__ import annotations

from collections.abc import Iterable

from pvedrbdstor import command
from pvedrbdstor.drbd import commands, devices
from pvedrbdstor.drbd.events2 import Device, parse_now
from pvedrbdstor.errors import TypeStays
from pvedrbdstor.mirror.gather import mounted_at
from pvedrbdstor.mirror.mountinfo import MountEntry
from pvedrbdstor.pve.storage_cfg import FOLDER_TYPE

_ASK_DRBD_SECONDS = 5


def volume_under(path: str, storage: str) -> tuple[str, int]:
    """The resource and the number of the volume that is mounted on ``path``; asks no file system anything.

    ``storage`` is for messages. Raises TypeStays, and CommandFailed or CommandTimeout when DRBD's tools do not answer.
    """
    minor = minor_of(mounted_at(path), path, storage)
    answer = command.run(commands.events2_now(), timeout=_ASK_DRBD_SECONDS)
    return owner_of(minor, parse_now(answer.stdout).devices, storage)


def minor_of(mount: MountEntry | None, path: str, storage: str) -> int:
    """The minor number of the DRBD device that is mounted. Raises TypeStays where it is not OCFS2 on DRBD."""
    if mount is None:
        raise _stays(
            storage, f"nothing is mounted on {path}", "Mount the OCFS2 file system there as before, then adopt it"
        )
    if mount.fs_type != "ocfs2":
        raise _stays(
            storage,
            f"the file system on {path} is {mount.fs_type} on {mount.source}",
            "Only OCFS2 on a DRBD device can become such a storage. To get there, see 'man drbdocfs2'",
        )
    if mount.device[0] != devices.MAJOR:
        raise _stays(
            storage,
            f"the OCFS2 on {path} lies on {mount.source}, which is not a DRBD device",
            "Check that it is mounted from /dev/drbdN on both nodes, not from the disk below it",
        )
    return mount.device[1]


def owner_of(minor: int, found: Iterable[Device], storage: str) -> tuple[str, int]:
    """The resource and volume of a minor number. Raises TypeStays."""
    for device in found:
        if device.minor == minor:
            return device.resource, device.volume
    node = devices.node(minor)
    raise _stays(storage, f"DRBD does not say which resource {node} is", "Look at 'drbdsetup events2 --now'")


def _stays(storage: str, cause: str, remedy: str) -> TypeStays:
    return TypeStays(storage=storage, type=FOLDER_TYPE, cause=cause, remedy=remedy)
