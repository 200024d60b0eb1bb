"""Look at this node: everything the plan needs, each question with its own deadline. Changes nothing."""

from __future__ import annotations

import os
import socket

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, devices, generation, proc_drbd
from pvedrbdstor.drbd.config import ResourceConfig, parse_show
from pvedrbdstor.drbd.events2 import State, parse_now
from pvedrbdstor.errors import CommandFailed, Error, NotMounted, NotOcfs2, WrongMount
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.mirror.bringup import paths
from pvedrbdstor.mirror.bringup.facts import MountPoint, Situation
from pvedrbdstor.mirror.facts import Facts, Mount, View, drbd_facts
from pvedrbdstor.mirror.mount import open_mirror
from pvedrbdstor.mirror.status import read_superblock
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.ocfs2.superblock import Superblock

MODULES = ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs")
STACK_FILE = "/sys/fs/ocfs2/cluster_stack"
CONFIGFS_MOUNT = "/sys/kernel/config"
DLMFS_MOUNT = "/dlm"
ASK_SECONDS = 5.0
_NAMES_SHOWN = 3


def gather(config: StorageConfig) -> Situation:
    """Everything there is to know now. Raises SystemCallFailed, CommandFailed and CommandTimeout where nobody answers."""
    mounted, wrong = _mounted(config)
    if mounted or wrong is not None:
        return Situation(_down(config), MountPoint(True, True), _host(), None, _defaults(), mounted, wrong)
    missing = tuple(module for module in MODULES if not os.path.isdir(f"/sys/module/{module}"))
    point, conf = mount_point(config.path), _conf()
    held, resolving = os.path.exists(paths.hold(config.id)), os.path.exists(paths.resolution(config.id))
    if missing or resolving:
        return Situation(
            _down(config),
            point,
            _host(),
            conf,
            _defaults(),
            held_down=held,
            resolving=resolving,
            missing_modules=missing,
        )
    state = drbd_state(config.resource)
    mirror = _mirror(config, state)
    minor = state.minor_of(config.resource, config.volume)
    defined, said = _defined(config) if mirror.drbd is None else (None, "")
    primary = mirror.drbd is not None and mirror.drbd.role == "Primary" and mirror.drbd.data_reachable
    superblock, problem = _superblock(minor) if primary and minor is not None else (None, None)
    registered = _registered()
    mounts = _mount_types()
    return Situation(
        mirror=mirror,
        point=point,
        host=_host(),
        conf=conf,
        defaults=_defaults(),
        held_down=held,
        stack=_line(STACK_FILE),
        configfs=mounts.get(CONFIGFS_MOUNT) == "configfs",
        dlmfs=mounts.get(DLMFS_MOUNT) == "ocfs2_dlmfs",
        defined=defined,
        undefined=said,
        minor=minor,
        superblock=superblock,
        superblock_problem=problem,
        registered=registered,
        beating="ocfs2" in mounts.values(),
        slots_taken=_slots_taken(superblock, conf, minor),
    )


def drbd_state(resource: str) -> State:
    """What DRBD says of one resource; empty where it is down. Raises CommandFailed, CommandTimeout."""
    return parse_now(command.run(commands.events2_now(resource), timeout=ASK_SECONDS).stdout)


def mount_point(path: str) -> MountPoint:
    """The folder that would be mounted on."""
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return MountPoint(exists=os.path.lexists(path), folder=False)
    except NotADirectoryError:
        return MountPoint(exists=True, folder=False)
    shown = names[:_NAMES_SHOWN] + (["..."] if len(names) > _NAMES_SHOWN else [])
    return MountPoint(True, True, tuple(shown))


def _mounted(config: StorageConfig) -> tuple[bool, str | None]:
    """Whether the mirror is mounted, and what is there instead of it."""
    try:
        os.close(open_mirror(config).root_fd)
    except NotMounted:
        return False, None
    except WrongMount as error:
        return False, f"{config.path} holds {error.fields['found']} where {error.fields['expected']} is expected"
    return True, None


def _mirror(config: StorageConfig, state: State) -> Facts:
    proc = _text("/proc/drbd") or ""
    drbd = drbd_facts(state, config.resource, config.volume, proc=proc_drbd.parse(proc))
    alone = drbd is not None and not all(peer.connected for peer in drbd.peers)
    return Facts(
        storage=config.id,
        resource=config.resource,
        volume=config.volume,
        generation=generation.from_proc_drbd(proc),
        view=View(complete=True),
        drbd=drbd,
        config=_settings(config.resource) if alone else None,  # what is fenced matters while somebody is away
        fence_handler=None,
        mount=Mount(False),
        o2cb=None,
    )


def _down(config: StorageConfig) -> Facts:
    """Where DRBD need not, or cannot, be asked."""
    name, volume = config.resource, config.volume
    return Facts(config.id, name, volume, None, View(complete=True), None, None, None, Mount(False), None)


def _settings(resource: str) -> ResourceConfig | None:
    """The settings in force; None while the resource is down (exit status 10 of 8.4's drbdsetup)."""
    answer = command.run(commands.show(resource), timeout=ASK_SECONDS, check=False)
    return parse_show(answer.stdout).get(resource)


def _defined(config: StorageConfig) -> tuple[bool | None, str]:
    """Whether drbdadm knows the resource on this node, and what it says when not."""
    try:
        answer = command.run(commands.dump(config.resource), timeout=ASK_SECONDS, check=False)
    except CommandFailed as error:
        return False, error.message.rstrip(".")
    said = " ".join(answer.stderr.split()).rstrip(".")
    return answer.status == 0, said


def _superblock(minor: int) -> tuple[Superblock | None, str | None]:
    try:
        return read_superblock(minor), None
    except NotOcfs2 as error:
        return None, f"{error.fields['device']} holds no usable OCFS2 file system: {error.fields['detail']}"


def _slots_taken(found: Superblock | None, conf: o2cb.ClusterConf | None, minor: int | None) -> frozenset[int] | None:
    """The o2cb nodes in the slot map ('debugfs.ocfs2 -R slotmap'); only asked where slots can be too few."""
    if found is None or conf is None or minor is None:
        return None
    if all(found.slots >= len(cluster.nodes) for cluster in conf.clusters):
        return None
    answer = command.run(["debugfs.ocfs2", "-R", "slotmap", devices.node(minor)], timeout=ASK_SECONDS, check=False)
    rows = (line.split() for line in answer.stdout.splitlines())
    return frozenset(int(row[1]) for row in rows if len(row) == 2 and row[0].isdecimal() and row[1].isdecimal())


# --- o2cb --------------------------------------------------------------------------------------------------------


def _conf() -> o2cb.ClusterConf | None:
    text = _text(o2cb.CLUSTER_CONF)
    return None if text is None else o2cb.parse_cluster_conf(text)


def _defaults() -> o2cb.Defaults:
    return o2cb.parse_defaults(_text(o2cb.DEFAULTS_FILE) or "")


def _registered() -> dict[str, o2cb.Registered]:
    """The clusters in the kernel. A folder that goes away meanwhile is no cluster."""
    return {name: registered(name) for name in registered_names()}


def registered(cluster: str) -> o2cb.Registered:
    """One cluster as the kernel has it now."""
    return o2cb.parse_registered(registered_texts(cluster))


def registered_texts(cluster: str) -> dict[str, str]:
    """Its files below configfs that o2cb.parse_registered() reads."""
    base = f"{o2cb.CONFIGFS}/{cluster}"
    nodes = _names(f"{base}/node")
    values = {path: _text(f"{base}/{path}") for path in o2cb.registered_files(nodes)}
    return {path: text for path, text in values.items() if text is not None}


def registered_names() -> list[str]:
    """Of the clusters in the kernel, of which there is one at most."""
    return _names(o2cb.CONFIGFS)


# --- small ones --------------------------------------------------------------------------------------------------


def _mount_types() -> dict[str, str]:
    """Mount point -> type of what is mounted there last."""
    with open("/proc/self/mountinfo", "rb") as file:
        entries = (mountinfo.parse_line(line.rstrip(b"\n")) for line in file)
        return {entry.mount_point: entry.fs_type for entry in entries if entry is not None}


def _host() -> str:
    return socket.gethostname()


def _line(path: str) -> str | None:
    text = _text(path)
    return None if text is None else text.strip()


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _names(folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def fingerprint(config: StorageConfig) -> str:
    """Text that changes when DRBD's state does, or what an administrator would correct after a refusal."""
    try:
        state = command.run(commands.events2_now(config.resource), timeout=2, check=False).stdout
    except Error:
        state = ""
    files = (o2cb.CLUSTER_CONF, o2cb.DEFAULTS_FILE, "/etc/drbd.d", f"/etc/drbd.d/{config.resource}.res", config.path)
    return f"{state}{config}{[_changed(path) for path in files]}"


def _changed(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
