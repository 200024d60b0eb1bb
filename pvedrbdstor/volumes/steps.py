"""Steps that operations and recovery share: each can be taken again where it was already done."""

from __future__ import annotations

import errno
import os
import stat

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import snapshot_files
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.work import IMAGE_MODE, discard

_TEMPLATE_MODE = 0o444


def protect(store: Store, guest_fd: int, base: VolumeName) -> None:
    """Make a template's image read-only and immutable (FS_IOC_SETFLAGS), where the file system can."""
    with store.image(guest_fd, base) as fd:
        if native.inode_flags(fd, str(base)) & native.FS_IMMUTABLE_FL:
            return
        os.fchmod(fd, _TEMPLATE_MODE)
        reach("template.read-only")
        try:
            native.set_immutable(fd, True, str(base))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
                raise
        native.fsync(fd, str(base))


def unprotect(store: Store, guest_fd: int, volume: VolumeName) -> None:
    """Make a template's image an ordinary one again; a link or folder of that name has no protection of ours."""
    if stat.S_ISREG(os.stat(volume.name, dir_fd=guest_fd, follow_symlinks=False).st_mode):
        with store.image(guest_fd, volume) as fd:
            if native.inode_flags(fd, str(volume)) & native.FS_IMMUTABLE_FL:
                native.set_immutable(fd, False, str(volume))
            os.fchmod(fd, IMAGE_MODE)


def has_snapshot_folder(store: Store, guest_fd: int, name: str) -> bool:
    try:
        with snapshot_files.folder(store, guest_fd, name):
            return True
    except FileNotFoundError:
        return False


def discard_snapshots(store: Store, call: Call, vmid: int, guest_fd: int, name: str) -> None:
    """Take the whole snapshot folder of an image out of sight."""
    with snapshot_files.parent_folder(store, guest_fd) as parent:
        discard(store, call, vmid, parent, name)
        reach("snapshots.discarded")
        native.fsync(parent, name)


def move_snapshots(store: Store, source_fd: int, target_fd: int, name: str, target_name: str) -> None:
    """Move the snapshot folder of an image; nothing happens when it is no longer there."""
    if not has_snapshot_folder(store, source_fd, name):
        return
    with (
        snapshot_files.parent_folder(store, source_fd) as source_parent,
        snapshot_files.parent_folder(store, target_fd, create=True) as target_parent,
    ):
        os.rename(name, target_name, src_dir_fd=source_parent, dst_dir_fd=target_parent)
        reach("snapshots.moved")
        native.fsync(target_parent, target_name)
        native.fsync(source_parent, name)
