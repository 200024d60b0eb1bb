"""Take a storage down on this node: unmount it, give the Primary role back, and keep it down until told otherwise."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import CannotTakeDown, CommandFailed, CommandTimeout, NotMounted, WrongMount
from pvedrbdstor.mirror import readers
from pvedrbdstor.mirror.bringup import gather, holders, lock, mounting, paths
from pvedrbdstor.mirror.mount import mirror

_LOCK_SECONDS = 30.0
_BUSY_SECONDS = 3.0
"""A call that Proxmox makes just now has the mount open for a moment."""
_DEMOTE_SECONDS = 15.0
_DOWN_SECONDS = 30.0
_PAUSE = 0.5
_VERIFY_STATES = ("VerifyS", "VerifyT")


def take_down(config: StorageConfig, *, stop: bool, report: Callable[[str], None] = lambda _: None) -> None:
    """Unmount and demote; with ``stop`` also take the DRBD resource down, which leaves the other node without a peer.

    Nothing is done to a storage that is in use. A comparison that reads DRBD's device on this node, for itself or for the other node, is asked
    to end; a verify of DRBD's own goes on while the nodes are connected. Raises CannotTakeDown, CommandFailed, CommandTimeout, NotMounted, WrongMount.
    """
    held = lock.take(config.id, _LOCK_SECONDS)
    if held is None:
        remedy = f"Wait, or look at it with 'pvedrbdstor mirror status {config.id}'"
        raise CannotTakeDown(storage=config.id, cause="it is just being brought up", remedy=remedy)
    try:
        hold(config.id)
        try:
            _unmount(config, report)
        except BaseException:
            release(config.id)  # it is still up
            raise
        unwilling = readers.let_go(config.id, report)
        verifying = _demote(config, report, unwilling)
        if verifying:
            end = (
                "ends with the connection: what it has marked is copied when they connect again" if stop else "goes on"
            )
            report(f"DRBD's own verify, which runs, {end}")
        if stop:
            report("taking DRBD down")
            command.run(commands.down(config.resource), timeout=_DOWN_SECONDS)
    finally:
        os.close(held)


def hold(storage: str) -> None:
    """Keep Proxmox, which activates every storage every few seconds, from bringing it up again. Raises OSError."""
    os.makedirs(paths.FOLDER, mode=0o700, exist_ok=True)
    with open(paths.hold(storage), "w", encoding="utf-8"):
        pass


def release(storage: str) -> None:
    """Let it be brought up again."""
    with suppress(FileNotFoundError):
        os.unlink(paths.hold(storage))


def _unmount(config: StorageConfig, report: Callable[[str], None]) -> None:
    if not _is_mounted(config):
        return
    report("unmounting")
    deadline, asked = time.monotonic() + _BUSY_SECONDS, False
    while (error := _refused_unmount(config)) is not None:
        if time.monotonic() < deadline:
            time.sleep(_PAUSE)
            continue
        ours = readers.processes(config.id)
        users = holders.holders(config.path, ours)
        if not users and ours and not asked:  # it looks up what lies where the copies differ
            asked = True
            readers.let_go(config.id, report)
            deadline = time.monotonic() + _BUSY_SECONDS
            continue
        users = users or holders.holders(config.path)
        if not users:
            raise error
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        remedy = "Stop or move them (guests: 'qm shutdown', 'qm migrate'), then try again"
        raise CannotTakeDown(storage=config.id, cause=f"it is in use by {shown}", remedy=remedy) from error


def _refused_unmount(config: StorageConfig) -> CommandFailed | None:
    try:
        mounting.unmount(config)
    except CommandFailed as error:
        return error
    return None


def _is_mounted(config: StorageConfig) -> bool:
    """Raises CannotTakeDown where something else is mounted."""
    try:
        with mirror(config):
            return True
    except NotMounted:
        return False
    except WrongMount as error:
        remedy = f"Unmount that yourself if it is in the way ('umount {config.path}')"
        cause = f"{config.path} holds {error.fields['found']}, which is not this storage"
        raise CannotTakeDown(storage=config.id, cause=cause, remedy=remedy) from error


def _demote(config: StorageConfig, report: Callable[[str], None], unwilling: Sequence[int]) -> bool:
    """Whether a verify of DRBD's own runs. unwilling: processes that were asked to let go of its device and have not. The kernel may close it a
    moment after the unmount."""
    state = gather.drbd_state(config.resource)
    verifying = any(found.replication in _VERIFY_STATES for found in state.peer_devices)
    if not any(found.name == config.resource and found.role == "Primary" for found in state.resources):
        return verifying
    report("becoming Secondary")
    deadline = time.monotonic() + _DEMOTE_SECONDS
    while True:
        try:
            command.run(commands.secondary(config.resource), timeout=_DEMOTE_SECONDS)
            return verifying
        except (CommandFailed, CommandTimeout) as error:
            if time.monotonic() >= deadline or isinstance(error, CommandTimeout):
                raise _stays_primary(config, error, unwilling) from error
        time.sleep(_PAUSE)


def _stays_primary(
    config: StorageConfig, error: CommandFailed | CommandTimeout, unwilling: Sequence[int]
) -> CannotTakeDown:
    said = str(error.fields.get("output") or error.message).rstrip(".")
    cause = f"it is unmounted, but DRBD stays Primary ({said})"
    remedy = "Look for what has the device open: 'lsblk', 'fuser -v /dev/drbd*', 'losetup -a'"
    if unwilling:
        cause += f": a comparison that was asked to end still reads it (process {', '.join(map(str, unwilling))})"
        remedy = "Its disk may hang: look at 'dmesg'. Then try again"
    return CannotTakeDown(storage=config.id, cause=cause, remedy=remedy)
