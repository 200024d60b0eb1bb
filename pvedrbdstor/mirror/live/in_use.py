"""Which images guests of this node have open, without touching the mount: from the kernel's tables of locks and loops, and
from what Proxmox runs."""

from __future__ import annotations

import glob
import os
import re

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.live.view import InUse

_LOCK = re.compile(
    r"^\d+: (?:OFDLCK|POSIX) +\S+ +\S+ +-?\d+ ([0-9a-f]+):([0-9a-f]+):(\d+) (\d+) (\d+|EOF)$", re.MULTILINE
)
_QEMU_FIRST, _QEMU_LAST = 100, 299
"""The bytes QEMU locks of an image (block/file-posix.c, RAW_LOCK_PERM_BASE and _SHARED_BASE)."""


PID_FILES = "/run/qemu-server/*.pid"  # VMID.pid (PVE::QemuServer::Helpers::pidfile_name)


def look(config: StorageConfig, device: tuple[int, int]) -> InUse:
    """What is open now on the file system of this device (major, minor). Raises OSError."""
    with open("/proc/locks", encoding="ascii", errors="replace") as file:
        inodes = locked_inodes(file.read(), device)
    return InUse(inodes, frozenset(_looped(config)), frozenset(_running()))


def locked_inodes(locks: str, device: tuple[int, int]) -> frozenset[int]:
    """The inodes on which QEMU holds locks, from /proc/locks (proc_locks(5)); a lock that is waited for has no match."""
    return frozenset(
        int(inode)
        for major, minor, inode, first, last in _LOCK.findall(locks)
        if (int(major, 16), int(minor, 16)) == device
        and int(first) >= _QEMU_FIRST
        and last != "EOF"
        and int(last) <= _QEMU_LAST
    )


def _running() -> list[int]:
    """The virtual machines whose QEMU runs here. Not all that one uses is locked by it: swtpm opens a TPM's state."""
    found = []
    for path in glob.glob(PID_FILES):
        vmid = path.rsplit("/", 1)[-1].removesuffix(".pid")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                pid = int(file.read(32))
        except (OSError, ValueError):  # just starting, or gone meanwhile
            continue
        if vmid.isascii() and vmid.isdigit() and os.path.exists(f"/proc/{pid}"):
            found.append(int(vmid))
    return found


def _looped(config: StorageConfig) -> list[str]:
    """The `VMID/NAME` of images behind loop devices."""
    images = f"{config.path}/{config.images_dir}/"
    found = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                backing = file.read().rstrip("\n")
        except OSError:  # detached meanwhile
            continue
        if backing.startswith(images):
            found.append(backing.removeprefix(images))
    return found
