"""Mount the mirror, and unmount it: through PID 1 where that is systemd, so that every process sees it.

A service of systemd's may have a mount namespace of its own, from which a mount of its own would be seen by nobody else.
The unit lies in /run: no upgrade, restart or removal of ours touches what is mounted.
"""

from __future__ import annotations

import errno
import os

from pvedrbdstor import command, files, native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import CommandFailed, SystemCallFailed

OPTIONS = "noatime,data=ordered,errors=remount-ro"
MOUNT_SECONDS = 150.0
"""The disk heartbeat needs 8 s to become steady; while a dead node is recovered, which takes up to 75 s, a mount waits."""
UMOUNT_SECONDS = 60.0
SYSTEMD = "/run/systemd/system"
"""Exists where systemd is PID 1 (sd_booted(3)), and is where units that a reboot forgets belong."""
_USERS = (
    "pve-storage.target pvestatd.service pvedaemon.service pvescheduler.service pve-guests.service pve-ha-lrm.service"
)
"""What uses storages: systemd, which unmounts everything at shutdown, waits until these have stopped. What it cannot unmount
is unmounted by pvedrbdstor-mirrors.service, whose turn comes after it."""
_UNCHANGEABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


def mount(config: StorageConfig, minor: int) -> None:
    """Mount DRBD device ``minor`` on the storage's path. Raises SystemCallFailed, CommandFailed, CommandTimeout."""
    _prepare(config.path)
    if not os.path.isdir(SYSTEMD):
        line = ["mount", "-t", "ocfs2", "-o", OPTIONS, devices.node(minor), config.path]
        command.run(line, timeout=MOUNT_SECONDS)
        return
    name = unit_name(config.path)
    path = f"{SYSTEMD}/{name}"
    files.replace(path, unit_text(config, minor))
    command.run(["systemctl", "daemon-reload"], timeout=60)
    _systemctl("start", name, MOUNT_SECONDS)


def unmount(config: StorageConfig) -> None:
    """Unmount the storage's path, and leave the folder immutable. Raises CommandFailed (busy), CommandTimeout."""
    name = unit_name(config.path) if os.path.isdir(SYSTEMD) else ""
    if name and command.run(["systemctl", "is-active", name], timeout=10, check=False).status == 0:
        _systemctl("stop", name, UMOUNT_SECONDS)
    else:
        command.run(["umount", config.path], timeout=UMOUNT_SECONDS)


def unit_name(path: str) -> str:
    """The name systemd wants for the unit of a mount point."""
    return command.run(["systemd-escape", "--path", "--suffix=mount", path], timeout=5).stdout.strip()


def unit_text(config: StorageConfig, minor: int) -> str:
    """The mount unit (systemd.mount(5)). _netdev: unmounted before the network goes down."""
    return f"""# Written by pvedrbdstor for the storage '{config.id}'; gone after a reboot.
[Unit]
Description=OCFS2 of storage {config.id} (DRBD resource {config.resource})
Documentation=man:pvedrbdstor(8)
After=pvedrbdstor-mirrors.service
Before={_USERS}

[Mount]
What={devices.node(minor)}
Where={config.path}
Type=ocfs2
Options={OPTIONS},_netdev
TimeoutSec={MOUNT_SECONDS:.0f}
"""


def _systemctl(verb: str, unit: str, seconds: float) -> None:
    """Start or stop a unit; when it fails, with the last words of its log."""
    try:
        command.run(["systemctl", verb, unit], timeout=seconds + 10)
    except CommandFailed as error:
        log = command.run(["journalctl", "-u", unit, "-n", "4", "-o", "cat", "--no-pager"], timeout=10, check=False)
        said = " ".join(log.stdout.split()) or error.fields["output"]
        raise CommandFailed(command=f"systemctl {verb} {unit}", status=error.fields["status"], output=said) from error


def _prepare(path: str) -> None:
    """Make the folder, see that it is empty, and make it immutable: nothing is written there while nothing is mounted."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.listdir(fd):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            _make_immutable(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        remedy = f"Look at 'ls -la {path}' and 'lsattr -d {path}'"
        raise SystemCallFailed(operation="Preparing", path=path, reason=error.strerror, remedy=remedy) from error


def _make_immutable(fd: int, path: str) -> None:
    """chattr +i; file systems that do not know it (a tmpfs before Linux 6.6) are left as they are."""
    try:
        native.set_immutable(fd, True, path)
    except OSError as error:
        if error.errno not in _UNCHANGEABLE:
            raise
