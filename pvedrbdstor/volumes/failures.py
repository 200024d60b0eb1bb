"""What an error number of the kernel means for a storage, said so that an administrator knows what to do."""

from __future__ import annotations

import errno
import os

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadSize, Error, NoReflink, ReadOnlyStorage, StorageFull, SystemCallFailed

_REMEDIES = {
    errno.EIO: "The disk or the mirror failed: look at 'dmesg' and 'drbdadm status'",
    errno.EPERM: "Is the file immutable ('lsattr')? Is this run as root?",
    errno.EACCES: "Is this run as root?",
    errno.ESTALE: "The file was removed on the other node meanwhile; try again",
    errno.ETXTBSY: "The file is in use; stop what uses it",
    errno.EMFILE: "Too many open files; look at what the service is doing ('systemctl status pvedrbdstor')",
}
_GENERAL = "Look at 'dmesg' and 'systemctl status pvedrbdstor'"


def explain(error: OSError, config: StorageConfig, operation: str) -> Error:
    """The error of this project that stands for a failed system call."""
    number = error.errno or 0
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(storage=config.id, detail=f"no space left for {operation}")
    if number == errno.EROFS:
        return ReadOnlyStorage(storage=config.id, path=config.path)
    if number == errno.EFBIG:
        return BadSize(detail=f"The size is beyond what the file system of storage '{config.id}' can hold in one file")
    if number in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV) and operation in REFLINKING:
        return NoReflink(storage=config.id, path=config.path)
    path = f"'{name}' on storage '{config.id}'" if name else f"storage '{config.id}'"
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    remedy = _REMEDIES.get(number, _GENERAL)
    return SystemCallFailed(operation=operation, path=path, reason=reason, remedy=remedy)


REFLINKING = frozenset(
    {"volume_snapshot", "volume_snapshot_rollback", "volume_snapshot_delete", "volume_resize", "clone_image"}
)
