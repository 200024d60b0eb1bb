"""Is this mount the mirror that the configuration means? A decision on facts alone: no I/O in this file."""

from __future__ import annotations

from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import NotMounted, WrongMount
from pvedrbdstor.mirror.mountinfo import MountEntry
from pvedrbdstor.ocfs2 import constants
from pvedrbdstor.ocfs2.identity import fsid_of


@dataclass(frozen=True, slots=True)
class MountFacts:
    """What the kernel says of an opened folder, asked through its descriptor.

    mount: the mount it lies on, None when that is gone. opened_path: the folder's own path. device: (major, minor) of
    st_dev. fs_magic, fs_name, fsid, read_only: from fstatfs(2). resource_minor: the minor number of the configured
    resource and volume, None where this node does not have it; only asked for when `worth_asking` says so.
    """

    mount: MountEntry | None
    opened_path: str
    device: tuple[int, int]
    fs_magic: int
    fs_name: str
    fsid: tuple[int, int]
    read_only: bool
    resource_minor: int | None = None

    @property
    def worth_asking(self) -> bool:
        """Whether it is OCFS2 on some DRBD device, so that the resource's minor number decides."""
        return self.fs_magic == constants.SUPER_MAGIC and self.device[0] == devices.MAJOR


def judge(facts: MountFacts, config: StorageConfig) -> None:
    """Return when the folder is the root of the configured mirror; else raise NotMounted or WrongMount."""
    mount = _mounted(facts, config)
    if facts.fs_magic != constants.SUPER_MAGIC:
        remedy = f"Mount the OCFS2 file system of DRBD resource '{config.resource}' there, or correct the path"
        raise _wrong(config, f"a file system of type {facts.fs_name}", "OCFS2", remedy)
    if mount.root != "/":
        remedy = "Mount the whole file system there instead of binding a folder of it"
        raise _wrong(config, f"only the folder '{mount.root}' of a file system", "its root", remedy)
    _judge_device(facts, mount, config)
    _judge_locking(mount, config)
    if config.uuid is not None and facts.fsid != fsid_of(config.uuid):
        remedy = f"Compare with 'mounted.ocfs2 -d {devices.node(facts.device[1])}', and correct drbdocfs2-uuid if this file system is the right one"
        raise _wrong(config, "an OCFS2 file system with another UUID", f"UUID {config.uuid}", remedy)


def _mounted(facts: MountFacts, config: StorageConfig) -> MountEntry:
    """The mount whose root was opened. Raises NotMounted when the folder merely lies somewhere on a file system."""
    if facts.mount is None or facts.opened_path != facts.mount.mount_point:
        raise NotMounted(storage=config.id, path=config.path, resource=config.resource)
    return facts.mount


def _judge_device(facts: MountFacts, mount: MountEntry, config: StorageConfig) -> None:
    major, minor = facts.device
    expected = f"DRBD resource '{config.resource}' volume {config.volume}"
    if major != devices.MAJOR:
        found = f"an OCFS2 file system on {mount.source} ({major}:{minor}), which is not a DRBD device,"
        raise _wrong(config, found, expected, f"Unmount it, and mount the device of resource '{config.resource}'")
    if facts.resource_minor is None:
        found = f"an OCFS2 file system on {devices.node(minor)}"
        remedy = f"DRBD does not know that resource and volume here: bring it up ('drbdadm up {config.resource}'), or correct drbdocfs2-resource and drbdocfs2-volume"
        raise _wrong(config, found, expected, remedy)
    if facts.resource_minor != minor:
        found = f"an OCFS2 file system on {devices.node(minor)}"
        remedy = "Mount the right device, or correct drbdocfs2-resource and drbdocfs2-volume"
        raise _wrong(config, found, f"{expected} ({devices.node(facts.resource_minor)})", remedy)


def _judge_locking(mount: MountEntry, config: StorageConfig) -> None:
    """Refuse mounts whose locks do not reach the other node (options: ocfs2_show_options() in fs/ocfs2/super.c)."""
    if "localflocks" in mount.options:
        remedy = "Mount it again without the option 'localflocks', on every node"
        raise _wrong(config, "a mount with 'localflocks'", "locking across the nodes", remedy)
    with_stack = any(option.startswith("cluster_stack=") for option in mount.options)
    if "heartbeat=none" in mount.options and not with_stack:
        remedy = "Unmount it, and make it a cluster file system with 'tunefs.ocfs2 -M cluster'"
        raise _wrong(config, "a file system mounted for one node only", "one mounted in a cluster", remedy)


def _wrong(config: StorageConfig, found: str, expected: str, remedy: str) -> WrongMount:
    return WrongMount(storage=config.id, path=config.path, found=found, expected=expected, remedy=remedy)
