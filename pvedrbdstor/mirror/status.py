"""How large the mirror is, and which one it is."""

from __future__ import annotations

import os

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import NotMounted, NotOcfs2, SystemCallFailed
from pvedrbdstor.mirror.mount import Mirror, mirror
from pvedrbdstor.ocfs2.identity import fsid_of
from pvedrbdstor.ocfs2.superblock import READ_SIZE, Superblock, parse_superblock


def status(config: StorageConfig) -> dict[str, int | bool]:
    """The answer of the method `status`: bytes, as df(1) counts them; not active, all zero, when nothing is mounted.

    Raises what open_mirror() does, except NotMounted.
    """
    try:
        with mirror(config) as opened:
            return {**capacity(opened), "active": True}
    except NotMounted:
        return {"total": 0, "avail": 0, "used": 0, "active": False}


def capacity(opened: Mirror) -> dict[str, int]:
    """Bytes in all, bytes that are free for use, bytes in use."""
    found = native.fstatfs(opened.root_fd, opened.config.path)
    return {
        "total": found.total_bytes,
        "avail": found.available_bytes,
        "used": found.total_bytes - found.free_bytes,
    }


def identity(config: StorageConfig) -> str:
    """The OCFS2 UUID of the mounted file system, 32 upper case hex digits.

    The configured UUID, once the mount was verified against it, else the one in the device's superblock. Raises what
    open_mirror() and read_superblock() do.
    """
    with mirror(config) as opened:
        if config.uuid is not None:
            return config.uuid
        minor = opened.facts.device[1]
        uuid = read_superblock(minor).uuid
        if fsid_of(uuid) != opened.facts.fsid:
            raise NotOcfs2(device=devices.node(minor), detail=f"its UUID {uuid} is not that of the mounted file system")
        return uuid


def read_superblock(minor: int) -> Superblock:
    """The superblock on a DRBD device, read past the page cache. Raises NotOcfs2, SystemCallFailed."""
    return parse_superblock(read_head(minor)[0], devices.node(minor))


def read_head(minor: int) -> tuple[bytes, int]:
    """The first bytes of a DRBD device, up to and with the superblock, past the page cache; and the bytes that it has. Raises as read_superblock()."""
    device = devices.node(minor)
    try:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_rdev != os.makedev(devices.MAJOR, minor):
                raise NotOcfs2(device=device, detail="it is not the DRBD device of that number")
            size = native.device_size(fd, device)
            with native.AlignedBuffer(READ_SIZE) as buffer:
                return bytes(buffer.view[: buffer.pread(fd, 0, path=device)]), size
        finally:
            os.close(fd)
    except OSError as error:
        remedy = "Look at 'drbdadm status' and 'dmesg'"
        raise SystemCallFailed(operation="Reading", path=device, reason=error.strerror, remedy=remedy) from error
