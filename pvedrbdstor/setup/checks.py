"""Why a setup is refused, from facts and answers alone. No I/O here. Every refusal has its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pvedrbdstor.config import StorageConfig, is_taken_otherwise
from pvedrbdstor.errors import Error
from pvedrbdstor.fencing import arbiter, corosync_conf
from pvedrbdstor.fencing import status as guard_status
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.pve import section_config
from pvedrbdstor.setup.answers import WIPE, WITHOUT_THIRD_VOTE, Answers
from pvedrbdstor.setup.facts import Disk, Facts, Identity, is_host_name
from pvedrbdstor.setup.paths import DRBD_CONF, LVM_LOCAL, RESOURCES, STORAGE_CFG
from pvedrbdstor.setup.steps import File, Refusal
from pvedrbdstor.setup.taken import includes_resources
from pvedrbdstor.setup.taken import used_by_drbd as used_by_drbd
from pvedrbdstor.setup.templates import active_filters

SIZE_MIN = 1 << 29
"""Bytes of a lower disk: below, there is no room for two journals and anything else."""
Nodes = Mapping[str, Facts]
_RESOURCE = "Choose another one with '--resource', or leave it out"
_CLUSTER = re.compile(r"[A-Za-z0-9]{1,16}")  # o2cb(7)
_NO_VOLUME = re.compile(
    r"snapshot.*|pvmove.*|.*_(?:mlog|mimage|rimage|rmeta|[ct]data|[ct]meta|w?corig|iorig|cvol|cpool|pmspare|vdata|vorigin|imeta).*"
)
"""Names of logical volumes that lvm(8) keeps for itself."""
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


_THIRD_VOTE = (
    "Add a third vote on another machine: 'apt install corosync-qnetd' there, 'apt install corosync-qdevice' on both nodes, then "
    f"'pvecm qdevice setup ADDRESS' on one, with the address of that machine; or accept it with '{WITHOUT_THIRD_VOTE}'"
)


def refusals(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    """Everything that is in the way, in the order in which it is best dealt with."""
    yield from _of_answers(nodes, answers)
    for node, facts in nodes.items():
        yield from of_node(node, facts, answers)
    yield from of_both(nodes)
    yield from of_cluster(nodes, answers)
    yield from of_names(nodes, answers)
    for node, facts in nodes.items():
        yield from of_disk(node, facts, answers)
    yield from _of_sectors(nodes, answers)
    yield from _of_one_disk(nodes, answers)
    yield from _of_o2cb(nodes, answers)


def shared_cluster(nodes: Nodes) -> o2cb.Cluster | None:
    """The o2cb cluster that the nodes have already, equal on both; None where none has a cluster.conf with one in it."""
    confs = [o2cb.parse_cluster_conf(facts.files.get(o2cb.CLUSTER_CONF, "")) for facts in nodes.values()]
    clusters = [conf.clusters for conf in confs]
    if any(conf.problems for conf in confs) or len(set(clusters)) != 1 or len(clusters[0]) != 1:
        return None
    cluster = clusters[0][0]
    return cluster if {facts.host for facts in nodes.values()} <= {node.name for node in cluster.nodes} else None


def _of_answers(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    try:
        StorageConfig.from_wire(
            {"id": answers.storage, "path": answers.path, "resource": answers.resource or "r0", "uuid": answers.uuid}
        )
    except Error as error:
        name = "Choose another name: letters, digits, and - _ . within it"
        yield Refusal(error.message.rstrip("."), _RESOURCE if is_taken_otherwise(answers.resource or "") else name)
    resource = answers.resource or ""
    if answers.lvm and _NO_VOLUME.fullmatch(resource):
        yield Refusal(
            f"'{resource}' is a name that LVM's programs take for something else",
            _RESOURCE,
        )
    if len(nodes) != 2 or set(answers.disks) != set(nodes):
        yield Refusal(
            f"a mirror has a disk on each of two nodes, and was given {len(answers.disks)}",
            "Name both: '--disk NODE:DEVICE' twice, one of them this node's",
        )
    if answers.lvm and not _GROUP.fullmatch(answers.group):
        yield Refusal(f"'{answers.group}' is no name for a volume group", "Choose another one with '--group'")
    for node, device in (answers.wipe or {}).items():
        if answers.disks.get(node) != device:
            yield Refusal(
                f"'{WIPE} {node}:{device}' names a device that is not to be used",
                f"Name the same device as with '--disk {node}:...', or leave '{WIPE}' out",
            )


def of_node(node: str, facts: Facts, answers: Answers) -> Iterator[Refusal]:
    if facts.host.partition(".")[0] != node or not is_host_name(facts.host):
        yield Refusal(f"{node} calls itself {facts.host}", "Name nodes as 'pvecm nodes' and 'uname -n' do")
    if facts.missing:
        yield Refusal(
            f"{node} lacks {', '.join(facts.missing)}",
            f"Run 'apt install drbd-utils ocfs2-tools' on {node}; pvesm is Proxmox VE's, on which this has to run",
        )
    if facts.generation is None:
        found = f"has DRBD {facts.drbd}" if facts.drbd else "has no kernel module 'drbd'"
        yield Refusal(
            f"{node}, kernel {facts.kernel}, {found}",
            f"Boot a kernel with DRBD 8.4 or 9 on {node}: Proxmox VE's own has 8.4",
        )
    if not facts.ocfs2:
        yield Refusal(
            f"{node}, kernel {facts.kernel}, has no kernel module 'ocfs2'", f"Boot Proxmox VE's own kernel on {node}"
        )
    yield from _of_files(node, facts)
    if facts.folders.get(answers.path):
        names = ", ".join(facts.folders[answers.path])
        yield Refusal(
            f"{answers.path} on {node} is not empty ({names})",
            "Move away what is there, or choose another name for the storage",
        )


def _of_files(node: str, facts: Facts) -> Iterator[Refusal]:
    """What everything else goes by."""
    if not includes_resources(facts.files.get(DRBD_CONF, "")):
        yield Refusal(
            f"{DRBD_CONF} of {node} does not include drbd.d/*.res",
            f"Write a line 'include \"drbd.d/*.res\";' into {DRBD_CONF} on {node}",
        )
    if facts.drbd_problem is not None:
        yield Refusal(
            f"{node} cannot tell which DRBD resources there are: {facts.drbd_problem}",
            f"Run 'drbdadm dump' and 'drbdsetup show' on {node}, and mend what they complain about",
        )
    if facts.guests_problem is not None:
        yield Refusal(
            f"{node} cannot tell which disks guests use: {facts.guests_problem}",
            f"Look at 'systemctl status pve-cluster' on {node}: without it no guest's configuration can be read",
        )
    if active_filters(facts.files.get(LVM_LOCAL, "")):
        yield Refusal(
            f"{LVM_LOCAL} on {node} has a global_filter, which counts before that of lvm.conf",
            "Move it to lvm.conf, where DRBD's device can be added to it",
        )


def of_both(nodes: Nodes) -> Iterator[Refusal]:
    versions = {node: facts.version for node, facts in nodes.items()}
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{version} on {node}" for node, version in versions.items())
        yield Refusal(
            f"pvedrbdstor is not the same on both nodes ({told})", "Install the newer one on the other node, too"
        )
    generations = {facts.generation for facts in nodes.values()}
    if len(generations) > 1 and None not in generations:
        told = ", ".join(f"{facts.drbd} on {node}" for node, facts in nodes.items())
        yield Refusal(f"the nodes have two generations of DRBD ({told})", "Boot the same kernel on both")


def _of_sectors(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    """DRBD's device has those of the disk below, which must not change under a guest that moves to the other node."""
    disks = {node: disk for node, facts in nodes.items() if (disk := facts.disk(answers.disks.get(node, "")))}
    if len({disk.logical_sector for disk in disks.values()}) > 1:
        told = ", ".join(f"{disk.logical_sector} bytes on {node}" for node, disk in disks.items())
        yield Refusal(f"the disks have different logical sectors ({told})", "Choose disks whose sectors are the same")


def _of_one_disk(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    """A LUN that both nodes reach: DRBD would write it from both sides at once."""
    disks = [disk for node, facts in nodes.items() if (disk := facts.disk(answers.disks.get(node, "")))]
    if len(disks) == 2 and Identity.parse(disks[0].identity).is_of_one_disk(disks[1].identity):
        yield Refusal(
            f"{' and '.join(answers.disks[node] for node in nodes)} are one disk that both nodes reach ({disks[0].identity})",
            "Choose a disk of its own on each node",
        )


def of_cluster(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    found = {
        node: corosync_conf.parse(text)
        for node, facts in nodes.items()
        if (text := facts.files.get(corosync_conf.PATH))
    }
    for node, facts in nodes.items():
        conf = found.get(node)
        if conf is None:
            yield Refusal(
                f"{node} belongs to no cluster: it has no {corosync_conf.PATH}",
                "Make both nodes members of one Proxmox cluster: 'pvecm create NAME' on one, 'pvecm add ADDRESS' on the other",
            )
            continue
        absent = [other.host for other in nodes.values() if arbiter.node_id_of(conf, other.host) is None]
        if absent:
            yield Refusal(
                f"{node}'s cluster does not have {', '.join(absent)} as a node",
                "Name nodes as 'pvecm nodes' and 'uname -n' do",
            )
        yield from _judge(node, facts, conf, answers)


def _judge(node: str, facts: Facts, conf: corosync_conf.CorosyncConf, answers: Answers) -> Iterator[Refusal]:
    """Whether somebody can decide who goes on: without fencing nobody is asked."""
    if answers.without_fencing:
        return
    if not facts.guard and not answers.without_third_vote:
        yield Refusal(f"the guard of fencing does not run on {node}", f"Run '{guard_status.START}' on {node}")
    for problem in arbiter.problems(conf, facts.votes):
        if not problem.fatal or (problem.code == "no-corosync" and not facts.guard):
            continue
        if answers.without_third_vote:  # both freeze then, whatever it is that keeps quorum from judging
            continue
        remedy = _THIRD_VOTE if problem.code == "no-arbiter" else problem.remedy
        yield Refusal(f"nobody could decide on {node} which node goes on: {problem.cause}", remedy)


def of_names(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    used = used_by_drbd(nodes)
    if answers.resource is not None and answers.resource in used.resources:
        yield Refusal(
            f"there is a DRBD resource '{answers.resource}' already, or a file of that name in {RESOURCES}",
            "Choose another name with '--resource', or leave it out",
        )
    for facts in nodes.values():
        sections = section_config.parse(facts.files.get(STORAGE_CFG, ""))
        if answers.storage in sections:
            yield Refusal(
                f"there is a storage '{answers.storage}' already",
                f"Choose another name, or look at it with 'pvedrbdstor mirror status {answers.storage}'",
            )
            break


def of_disk(node: str, facts: Facts, answers: Answers) -> Iterator[Refusal]:
    name = answers.disks.get(node)
    if name is None:
        return
    disk = facts.disk(name)
    if disk is None:
        candidates = ", ".join(each.path for each in facts.disks if is_free(each)) or "none"
        yield Refusal(f"{node} has no block device {name}", f"Choose another one; unused ones are: {candidates}")
        return
    # One that is in no file any more was this setup's own.
    taken = used_by_drbd({node: facts}).resources
    users = [
        *disk.users,
        *(f"DRBD's resource '{each}' has it in its configuration" for each in disk.drbd if each in taken),
    ]
    if users:
        yield Refusal(
            f"{name} on {node} is in use: {'; '.join(users)}",
            "Choose another device. What uses one is never ended from here: do that first, if it is the right one",
        )
    elif disk.signatures and not answers.may_wipe(node):
        yield Refusal(
            f"{name} on {node} holds something: {', '.join(disk.signatures)}",
            f"Choose another device, or say '{WIPE} {node}:{name}' if all of it may be destroyed",
        )
    if disk.read_only:
        yield Refusal(f"{name} on {node} is read-only", "Choose another device")
    if disk.size < SIZE_MIN:
        yield Refusal(f"{name} on {node} has {disk.size >> 20} MiB", f"Choose a device of {SIZE_MIN >> 20} MiB or more")
    yield from _of_lvm(node, facts, disk, answers)


def _of_lvm(node: str, facts: Facts, disk: Disk, answers: Answers) -> Iterator[Refusal]:
    if not answers.lvm or disk.kind == "lvm":
        return
    if not facts.lvm:
        yield Refusal(
            f"{node} lacks LVM's tools", f"Run 'apt install lvm2' on {node}, or use the device itself with '--no-lvm'"
        )
    if answers.group in facts.groups:
        yield Refusal(
            f"{node} has a volume group '{answers.group}' already",
            "Choose another name with '--group', or name a logical volume in it with '--disk'",
        )


def _of_o2cb(nodes: Nodes, answers: Answers) -> Iterator[Refusal]:
    """Two storages on the same nodes share one o2cb cluster."""
    if not _CLUSTER.fullmatch(answers.cluster):
        yield Refusal(
            f"'{answers.cluster}' is no name for an o2cb cluster", "Choose 1 to 16 letters and digits with '--cluster'"
        )
    present = [node for node, facts in nodes.items() if facts.files.get(o2cb.CLUSTER_CONF, "").strip()]
    shared = shared_cluster(nodes)
    times = {o2cb.parse_defaults(facts.files.get(o2cb.DEFAULTS_FILE, "")).timeouts for facts in nodes.values()}
    if shared is not None and len(times) > 1:
        yield Refusal(
            f"{o2cb.DEFAULTS_FILE} has other times on one node than on the other, and OCFS2's nodes need the same",
            "Make them equal: they take effect when the storages that are up are taken down on both nodes, and brought up again",
        )
    if present and shared is None:
        yield Refusal(
            f"{o2cb.CLUSTER_CONF} on {', '.join(present)} is not the same on both nodes, or has no cluster of these two",
            "If no OCFS2 uses it, move it away on both; else make it equal, with both nodes in it under the names of 'uname -n'",
        )
    for node, facts in nodes.items() if shared is not None else ():
        own = {address.partition("/")[0] for interface in facts.interfaces for address in interface.addresses}
        written = {each.address for each in shared.nodes if each.name == facts.host} if shared is not None else set()
        if not written & own:
            yield Refusal(
                f"{o2cb.CLUSTER_CONF} has the address {', '.join(sorted(written))} for {node}, which has no such address",
                f"Correct it on both nodes, while no OCFS2 is mounted, or give {node} that address",
            )


def targets_taken(node: str, facts: Facts, files: Iterable[File]) -> Iterator[Refusal]:
    """Files that are only ever new: what is there is somebody's, unless it is the very same."""
    for file in files:
        if file.path in facts.files and file.before is None and facts.files[file.path] != file.content:
            yield Refusal(
                f"there is a {file.path} on {node} already, and it is another than would be written",
                "Look at it, and move it away if nothing uses it",
            )


def is_free(disk: Disk) -> bool:
    """Worth proposing: nothing on it, nobody has it."""
    return (
        not disk.users
        and not disk.drbd
        and not disk.signatures
        and not disk.read_only
        and disk.size >= SIZE_MIN
        and disk.kind in ("disk", "part", "lvm")
    )


def first_free(taken: Sequence[int] | frozenset[int], start: int) -> int:
    return next(number for number in range(start, start + len(taken) + 1) if number not in taken)
