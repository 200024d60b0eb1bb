"""Take one step of the plan: one change to this node, each with a deadline. Raises this project's errors and OSError."""

from __future__ import annotations

import os
from collections.abc import Callable

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.mirror.bringup import gather, mounting, plan_ocfs2
from pvedrbdstor.mirror.bringup.facts import Situation, Step
from pvedrbdstor.ocfs2 import o2cb

_SECONDS = 15.0
_UP_SECONDS = 30.0
PROMOTE_SECONDS = 60.0
"""With fencing DRBD waits for the fence-peer handler, which may take 27 s."""


def execute(step: Step, now: Situation, config: StorageConfig) -> None:
    """Take the step; waiting steps do nothing: whoever asks again has waited."""
    action = _ACTIONS.get(step)
    if action is not None:
        action(now, config)


def demote(resource: str) -> None:
    """Give the role back. Raises CommandFailed, CommandTimeout."""
    command.run(commands.secondary(resource), timeout=_SECONDS)


def _load_modules(now: Situation, config: StorageConfig) -> None:
    for module in now.missing_modules:
        command.run(["modprobe", module], timeout=_SECONDS)


def drbd_up(resource: str) -> None:
    """Attach and connect: by `adjust` where a part of the resource is there, which `up` would fail on.

    Raises CommandFailed, CommandTimeout.
    """
    known = any(found.name == resource for found in gather.drbd_state(resource).resources)
    command.run(commands.adjust(resource) if known else commands.up(resource), timeout=_UP_SECONDS)


def _up(now: Situation, config: StorageConfig) -> None:
    drbd_up(config.resource)


def _connect(now: Situation, config: StorageConfig) -> None:
    command.run(commands.connect(config.resource), timeout=_SECONDS)


def _promote(now: Situation, config: StorageConfig) -> None:
    command.run(commands.primary(config.resource), timeout=PROMOTE_SECONDS)


def _mount_configfs(now: Situation, config: StorageConfig) -> None:
    command.run(["mount", "-t", "configfs", "configfs", gather.CONFIGFS_MOUNT], timeout=_SECONDS)


def _choose_stack(now: Situation, config: StorageConfig) -> None:
    _write(gather.STACK_FILE, "o2cb")


def _mount_dlmfs(now: Situation, config: StorageConfig) -> None:
    """fsck.ocfs2 and tunefs.ocfs2 take the cluster's locks through it (ocfs2-tools, libo2dlm)."""
    os.makedirs(gather.DLMFS_MOUNT, exist_ok=True)
    command.run(["mount", "-t", "ocfs2_dlmfs", "ocfs2_dlmfs", gather.DLMFS_MOUNT], timeout=_SECONDS)


def _register(now: Situation, config: StorageConfig) -> None:
    command.run(o2cb.register_cluster(plan_ocfs2.cluster_name(now)), timeout=_SECONDS)


def _set_timeouts(now: Situation, config: StorageConfig) -> None:
    cluster = plan_ocfs2.cluster_name(now)
    present = gather.registered(cluster).timeouts
    for write in o2cb.timeout_writes(cluster, now.defaults.timeouts, present):
        _write(write.path, write.value)


def _mount(now: Situation, config: StorageConfig) -> None:
    assert now.minor is not None, "the plan mounts only what is up"
    mounting.mount(config, now.minor)


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


_ACTIONS: dict[Step, Callable[[Situation, StorageConfig], None]] = {
    Step.MODULES: _load_modules,
    Step.UP: _up,
    Step.CONNECT: _connect,
    Step.PROMOTE: _promote,
    Step.CONFIGFS: _mount_configfs,
    Step.STACK: _choose_stack,
    Step.DLMFS: _mount_dlmfs,
    Step.REGISTER: _register,
    Step.TIMEOUTS: _set_timeouts,
    Step.MOUNT: _mount,
}
