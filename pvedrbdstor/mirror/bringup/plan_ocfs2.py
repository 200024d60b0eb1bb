"""OCFS2's part of the plan: the right file system, its o2cb cluster with its timeouts, the mount. No I/O here."""

from __future__ import annotations

from dataclasses import fields

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.mirror.bringup.decision import Action, Done, Refusal
from pvedrbdstor.mirror.bringup.facts import Memory, Situation, Step
from pvedrbdstor.ocfs2.o2cb import CLUSTER_CONF, DEFAULTS_FILE, Cluster, ClusterConf, Timeouts, timeout_writes
from pvedrbdstor.ocfs2.superblock import Superblock

STACK = "o2cb"


def unconfigured(now: Situation, config: StorageConfig) -> Refusal | None:
    """What is wrong with cluster.conf, whichever of its clusters will be needed."""
    if now.conf is None:
        return Refusal(
            f"{CLUSTER_CONF} is missing, so this node belongs to no o2cb cluster",
            f"Copy it from the other node, or make it on both with 'o2cb add-cluster' and 'o2cb add-node' (see 'man o2cb'); then run "
            f"'pvedrbdstor mirror up {config.id}'",
        )
    if now.conf.problems:
        return Refusal(
            f"{CLUSTER_CONF} is not right: {now.conf.problems[0]}",
            "Correct it, the same on all nodes (see 'man ocfs2.cluster.conf')",
        )
    return None


def next_step(now: Situation, config: StorageConfig, memory: Memory) -> Action | Done | Refusal:
    """For a node that is Primary on good data."""
    device = devices.node(now.minor) if now.minor is not None else f"the device of resource '{config.resource}'"
    if now.superblock is None:
        problem = now.superblock_problem or f"the superblock on {device} could not be read"
        return Refusal(
            problem.rstrip("."),
            f"Make a file system only on a device that holds no data you need: 'man mkfs.ocfs2', on {device}",
        )
    assert now.conf is not None, "unconfigured() comes first"
    refusal = _wrong_file_system(now.superblock, config, device)
    if refusal is not None:
        return refusal
    cluster = _cluster_of(now, now.conf)
    if isinstance(cluster, Refusal):
        return cluster
    return _slots(now, cluster, config, device) or _o2cb(now, cluster, config, memory) or _mount(config, memory)


def cluster_name(now: Situation) -> str:
    """The cluster in the superblock; without one there, the vendor's choice, or the only one; empty where none is told."""
    clusters = now.conf.clusters if now.conf is not None else ()
    only = clusters[0].name if len(clusters) == 1 else ""
    return (now.superblock.cluster if now.superblock is not None else "") or now.defaults.boot_cluster or only


def _wrong_file_system(found: Superblock, config: StorageConfig, device: str) -> Refusal | None:
    if config.uuid is not None and found.uuid != config.uuid:
        return Refusal(
            f"{device} holds an OCFS2 file system with the UUID {found.uuid}, not {config.uuid}, which storage.cfg names",
            "Was it made anew, or is it the wrong resource? If it is the right one, correct drbdocfs2-uuid: "
            f"'pvesm set {config.id} --drbdocfs2-uuid {found.uuid}'",
        )
    if not found.can_reflink:
        return Refusal(
            f"the file system on {device} lacks the feature 'refcount', without which there are no snapshots and clones",
            offline(config, f"'tunefs.ocfs2 --fs-features=refcount {device}'"),
        )
    if found.local:
        return Refusal(
            f"the file system on {device} was made for one node only, so its locks would not reach the other",
            offline(config, f"'tunefs.ocfs2 -M cluster {device}'"),
        )
    if found.stack not in ("", STACK):
        return Refusal(
            f"the file system on {device} is for the cluster stack '{found.stack}'",
            offline(
                config,
                f"'echo {STACK} >/sys/fs/ocfs2/cluster_stack', 'tunefs.ocfs2 --update-cluster-stack {device}'",
            ),
        )
    return None


def offline(config: StorageConfig, change: str) -> str:
    """How to change a file system that nobody may have mounted meanwhile: Proxmox would mount it at any moment."""
    return (
        f"Run 'pvedrbdstor mirror down {config.id}' on all nodes; on this one 'drbdadm primary {config.resource}', {change}, "
        f"'drbdadm secondary {config.resource}'; then 'pvedrbdstor mirror up {config.id}' on all"
    )


def _cluster_of(now: Situation, conf: ClusterConf) -> Cluster | Refusal:
    """The cluster that this node and the file system belong to."""
    known = ", ".join(f"'{cluster.name}'" for cluster in conf.clusters) or "none"
    wanted = cluster_name(now)
    cluster = conf.cluster(wanted)
    if cluster is None:
        belongs = f"belongs to the o2cb cluster '{wanted}'" if wanted else "does not tell its o2cb cluster"
        return Refusal(
            f"the file system {belongs}, and {CLUSTER_CONF} has {known}",
            f"Correct {CLUSTER_CONF}, the same on all nodes; without a name in the file system O2CB_BOOTCLUSTER in {DEFAULTS_FILE} chooses",
        )
    if not any(_is_host(node.name, now.host) for node in cluster.nodes):
        names = ", ".join(node.name for node in cluster.nodes)
        return Refusal(
            f"{CLUSTER_CONF} has no node '{now.host}', the name of this host, in cluster '{cluster.name}' (it has {names})",
            f"Correct {CLUSTER_CONF}, the same on all nodes: the names are those of 'uname -n'",
        )
    return cluster


def _is_host(name: str, host: str) -> bool:
    """As o2cb compares them: a name without a domain fits a host with one."""
    return host.lower() == name.lower() or host.lower().startswith(f"{name.lower()}.")


def _slots(now: Situation, cluster: Cluster, config: StorageConfig, device: str) -> Refusal | None:
    """Each node of the cluster takes one slot: with as many slots as nodes one is always free."""
    assert now.superblock is not None
    slots = now.superblock.slots
    if now.slots_taken is None or slots >= len(cluster.nodes):
        return None
    own = {node.number for node in cluster.nodes if _is_host(node.name, now.host)}
    others = sorted(now.slots_taken - own)
    if len(others) < slots:
        return None
    taken = ", ".join(str(number) for number in others)
    change = f"'tunefs.ocfs2 -N {len(cluster.nodes)} {device}'"
    return Refusal(
        f"all {slots} slots of the file system on {device} are taken, by the o2cb nodes {taken}",
        f"Unmount it on one of them, or make more slots. {offline(config, change)}",
    )


def _o2cb(now: Situation, cluster: Cluster, config: StorageConfig, memory: Memory) -> Action | Refusal | None:
    if not now.configfs:
        return Action(Step.CONFIGFS)
    if now.stack != STACK:
        return Action(Step.STACK)
    if not now.dlmfs:
        return Action(Step.DLMFS)
    present = now.registered.get(cluster.name)
    if present is None:
        others = ", ".join(f"'{name}'" for name in now.registered)
        if others:
            return Refusal(
                f"the kernel already has the o2cb cluster {others}, and it can only have one",
                f"With no OCFS2 mounted: 'o2cb unregister-cluster {next(iter(now.registered))}', then 'pvedrbdstor mirror up {config.id}'",
            )
        return Action(Step.REGISTER)
    if not any(node.local for node in present.nodes):
        return Refusal(
            f"the kernel's o2cb cluster '{cluster.name}' does not contain this node",
            f"With no OCFS2 mounted: 'o2cb unregister-cluster {cluster.name}', then 'pvedrbdstor mirror up {config.id}'",
        )
    return _timeouts(now, cluster, present.timeouts, memory)


def _timeouts(now: Situation, cluster: Cluster, present: Timeouts, memory: Memory) -> Action | Refusal | None:
    """While a file system is mounted the kernel keeps the timeouts it has, which the verdict looks at."""
    if now.beating or not timeout_writes(cluster.name, now.defaults.timeouts, present):
        return None
    if Step.TIMEOUTS not in memory.since:
        return Action(Step.TIMEOUTS)
    wrong = next(
        field.name
        for field in fields(Timeouts)
        if getattr(now.defaults.timeouts, field.name) not in (None, getattr(present, field.name))
    )
    return Refusal(
        f"the kernel did not take the o2cb timeout {wrong} = {getattr(now.defaults.timeouts, wrong)} of {DEFAULTS_FILE} "
        f"and keeps {getattr(present, wrong)}",
        f"Correct {DEFAULTS_FILE}, the same on all nodes (see 'man o2cb.sysconfig'), and look at 'dmesg'",
    )


def _mount(config: StorageConfig, memory: Memory) -> Action | Refusal:
    if Step.MOUNT not in memory.since:
        return Action(Step.MOUNT)
    return Refusal(
        f"the file system was mounted on {config.path} and is not there any more",
        "Look at 'dmesg' and, with systemd, at the log of the mount unit ('journalctl -b')",
    )
