"""The steps of a plan, once everything is chosen. Nothing here decides whether they may be taken (checks.py), or does I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pvedrbdstor.fencing.times import Inputs
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.pve import firewall
from pvedrbdstor.setup import templates, times
from pvedrbdstor.setup.answers import Answers
from pvedrbdstor.setup.facts import Disk, Facts
from pvedrbdstor.setup.paths import FIREWALL, LVM_CONF, RESOURCES, RULES_PREFIX, UDEV_RULES
from pvedrbdstor.setup.steps import Device, File, Kind, Step, digest
from pvedrbdstor.setup.templates import O2NET_PORT, Mirror

MODULES = ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs")
FEATURES = "refcount,xattr,unwritten,sparse,inline-data,indexed-dirs,extended-slotmap,discontig-bg,metaecc,backup-super"
_SMALL = 4 << 30  # below, the journals of -T vmstore leave no room
_SMALL_JOURNAL = "size=16M"
_LARGE = 128 << 30


@dataclass(frozen=True, slots=True)
class Choice:
    """order: the nodes, the lead first. lower: what DRBD lies on. shared: the o2cb cluster that is there and stays.
    others: further nodes of the Proxmox cluster."""

    nodes: Mapping[str, Facts]
    answers: Answers
    order: tuple[str, ...]
    mirror: Mirror
    disks: Mapping[str, Disk]
    devices: Mapping[str, Device]
    lower: Mapping[str, str]
    shared: o2cb.Cluster | None
    inputs: Inputs
    others: tuple[str, ...] = ()

    @property
    def lead(self) -> str:
        return self.order[0]

    @property
    def device(self) -> str:
        return f"/dev/drbd{self.mirror.minor}"

    @property
    def cluster(self) -> str:
        return self.shared.name if self.shared is not None else self.answers.cluster

    @property
    def o2net(self) -> tuple[str, ...]:
        """The addresses of OCFS2's own traffic: the link's, or those of the cluster that stays."""
        if self.shared is None:
            return tuple(host.address for host in self.mirror.hosts)
        return tuple(node.address for node in self.shared.nodes)

    @property
    def o2net_ports(self) -> tuple[int, ...]:
        return (O2NET_PORT,) if self.shared is None else tuple(sorted({node.port for node in self.shared.nodes}))

    def udev_rule(self, node: str) -> str | None:
        """For what DRBD lies on; None where udev knows nothing that names it for good."""
        disk, lower = self.disks[node], self.lower[node]
        group = lower.removeprefix("/dev/").split("/") if disk.kind == "lvm" or self.answers.lvm else []
        return templates.udev_rule(self.mirror.resource, disk, lower, (group[0], group[1]) if len(group) == 2 else None)

    def lvm_conf(self, node: str) -> str | None:
        """As it will be; empty where there is none, None where it is not understood."""
        text = self.nodes[node].files.get(LVM_CONF)
        return "" if text is None else templates.lvm_filtered(text, self.mirror.minor)


def steps(choice: Choice) -> Iterator[Step]:
    """In the order in which they are taken: what can fail without harm comes first, and nothing is on a disk before it."""
    for node in choice.order:
        yield from _software(choice, node)
    for node in choice.order:
        yield from _lower_disk(choice, node)
    yield from _firewall(choice)
    for node in choice.order:
        yield from _drbd(choice, node)
    yield from _together(choice)
    for node in choice.order:
        yield _mount(choice, node)
    for node in choice.order:
        yield _status(choice, node)


def _software(choice: Choice, node: str) -> Iterator[Step]:
    yield Step(
        f"{node}.modules",
        node,
        Kind.MODULES,
        "load the kernel's modules",
        "drbdadm goes by the loaded module which grammar it reads",
        (("modprobe", "--all", *MODULES),),
        about={"modules": " ".join(MODULES)},
    )
    name = choice.mirror.resource
    resource = File(f"{RESOURCES}/{name}.res", templates.resource_file(choice.mirror))
    why = "which disks make the mirror, over which link, and what happens when it breaks"
    yield Step(
        f"{node}.resource",
        node,
        Kind.FILE,
        f"write DRBD's resource {name}",
        why,
        (("drbdadm", "dump", name),),
        (resource,),
    )
    if choice.shared is None:
        text = templates.cluster_conf(choice.answers.cluster, choice.mirror.hosts)
        defaults = templates.o2cb_defaults(choice.answers.cluster, times.timeouts(choice.inputs))
        files = (File(o2cb.CLUSTER_CONF, text), _file(choice, node, o2cb.DEFAULTS_FILE, defaults))
        why = "OCFS2's nodes, and how long they wait for each other: in time for what fencing decides"
        yield Step(
            f"{node}.o2cb", node, Kind.FILE, f"write the o2cb cluster '{choice.answers.cluster}'", why, (), files
        )
    yield from _filters(choice, node)


def _filters(choice: Choice, node: str) -> Iterator[Step]:
    """Keep others off the lower disk and off DRBD's device."""
    files = []
    rule = choice.udev_rule(node)
    if rule is not None:
        files.append(File(f"{UDEV_RULES}/{RULES_PREFIX}{choice.mirror.resource}.rules", rule))
    wanted, present = choice.lvm_conf(node), choice.nodes[node].files.get(LVM_CONF)
    if wanted and wanted != present:
        files.append(_file(choice, node, LVM_CONF, wanted))
    if files:
        why = "nobody scans, activates or mounts it behind DRBD's back"
        yield Step(
            f"{node}.filters", node, Kind.FILE, "keep others away from the mirror's devices", why, (), tuple(files)
        )


def _lower_disk(choice: Choice, node: str) -> Iterator[Step]:
    disk, device, answers = choice.disks[node], choice.devices[node], choice.answers
    about = {"device": disk.path, "size": str(disk.size), **_identity(disk)}
    if device.wiped:
        yield Step(
            f"{node}.wipe",
            node,
            Kind.WIPE,
            f"destroy what is on {disk.path}: {', '.join(device.wiped)}",
            "it was named with --wipe",
            (("wipefs", "--all", "--force", disk.path),),
            about={**about, "signatures": "\n".join(device.wiped)},
        )
    if disk.kind == "lvm" or not answers.lvm:
        return
    group, name = answers.group, choice.mirror.resource
    why = "a logical volume can be preserved as a snapshot, should the two copies ever part; a fifth is left free for that"
    yield Step(
        f"{node}.pv",
        node,
        Kind.PHYSICAL_VOLUME,
        f"make {disk.path} a physical volume",
        why,
        (("pvcreate", "--yes", disk.path),),
        about=about,
    )
    yield Step(
        f"{node}.vg",
        node,
        Kind.VOLUME_GROUP,
        f"make the volume group {group}",
        why,
        (("vgcreate", group, disk.path),),
        about={"group": group, **about},
    )
    create = ("lvcreate", "--yes", "--wipesignatures", "y", "--name", name, "--extents", "80%VG", group)
    yield Step(
        f"{node}.lv",
        node,
        Kind.LOGICAL_VOLUME,
        f"make the logical volume {group}/{name}",
        why,
        (create,),
        about={"group": group, "volume": name},
    )


def cluster_firewall(choice: Choice) -> str:
    """cluster.fw as it will be; as it is where Proxmox's firewall is off."""
    text = choice.nodes[choice.lead].files.get(FIREWALL, "")
    if not firewall.is_on(text):
        return text
    name = choice.mirror.resource
    own = [host.address for host in choice.mirror.hosts]
    opened = [
        (own, choice.mirror.port, f"DRBD {name}"),
        *((choice.o2net, port, "OCFS2") for port in choice.o2net_ports),
    ]
    rules = [templates.firewall_rule(*each, way) for each in opened for way in templates.firewall_directions(text)]
    return templates.with_rules(text, rules)


def _firewall(choice: Choice) -> Iterator[Step]:
    wanted = cluster_firewall(choice)
    if wanted == choice.nodes[choice.lead].files.get(FIREWALL, ""):
        return
    why = "Proxmox's firewall is on, and opens neither DRBD's port nor OCFS2's by itself"
    file = _file(choice, choice.lead, FIREWALL, wanted, 0o640)
    yield Step(
        f"{choice.lead}.firewall",
        choice.lead,
        Kind.FILE,
        "let the nodes reach each other through the firewall",
        why,
        (),
        (file,),
    )


def _drbd(choice: Choice, node: str) -> Iterator[Step]:
    name, lower = choice.mirror.resource, choice.lower[node]
    own = choice.disks[node]
    made = own.kind != "lvm" and choice.answers.lvm
    known = {} if made else {"size": str(own.size), **_identity(own)}
    yield Step(
        f"{node}.metadata",
        node,
        Kind.METADATA,
        f"write DRBD's metadata at the end of {lower}",
        "from here on it is DRBD's; it was looked at just before, and holds nothing",
        (("drbdadm", "create-md", "--force", name),),
        about={"device": lower, "resource": name, **known},
    )
    yield Step(
        f"{node}.up",
        node,
        Kind.UP,
        f"bring DRBD's resource {name} up",
        "",
        (("drbdadm", "adjust", name),),
        about={"resource": name},
    )


def _together(choice: Choice) -> Iterator[Step]:
    lead, name, answers = choice.lead, choice.mirror.resource, choice.answers
    about = {"resource": name, "device": choice.device, "minor": str(choice.mirror.minor), "uuid": answers.uuid}
    yield Step(f"{lead}.connect", lead, Kind.CONNECT, "wait until both nodes are connected", "", about=about)
    yield Step(
        f"{lead}.first-copy",
        lead,
        Kind.FIRST_COPY,
        f"say that the disk of {lead} counts, which begins the first copy",
        "both are empty, and one has to be first: the only time that --force is right",
        (("drbdadm", "primary", "--force", name),),
        about=about,
    )
    yield Step(
        f"{lead}.primary",
        lead,
        Kind.PRIMARY,
        f"see that {lead} is Primary",
        "the first copy has made it so; but nodes may have been rebooted since",
        (("drbdadm", "primary", name),),
        about=about,
    )
    size = min(disk.size for disk in choice.disks.values())
    yield Step(
        f"{lead}.file-system",
        lead,
        Kind.FILE_SYSTEM,
        f"make the OCFS2 file system on {choice.device}",
        "two slots, reflinks for snapshots and clones, checksums of its metadata; clusters of 1 MiB from 128 GiB on",
        file_system(choice.cluster, answers.uuid, answers.storage, size, choice.device),
        about=about,
    )
    add = ("pvesm", "add", "drbdocfs2", answers.storage, "--path", answers.path, "--drbdocfs2-resource", name)
    options = ("--content", answers.content, "--drbdocfs2-uuid", answers.uuid)
    only = ("--nodes", ",".join(sorted(choice.order))) if choice.others else ()
    yield Step(
        f"{lead}.entry",
        lead,
        Kind.ENTRY,
        f"add the storage {answers.storage}",
        "Proxmox's own command writes storage.cfg, for all nodes",
        ((*add, *options, *only),),
        about={**about, "storage": answers.storage},
    )


def file_system(cluster: str, uuid: str, label: str, size: int, device: str) -> tuple[tuple[str, ...], ...]:
    """The commands that make it on a device of ``size`` bytes. mkfs asks before it overwrites a file system of its own kind, whatever it is
    told: what an interrupted try has left goes first. The step itself has looked that there is nothing else."""
    clear = ("wipefs", "--all", "--types", "ocfs2", device)
    return clear, (*mkfs(cluster, uuid, label, size), device)


def mkfs(cluster: str, uuid: str, label: str, size: int) -> tuple[str, ...]:
    """The command line without the device, of ``size`` bytes. -F: no o2cb cluster need run yet."""
    kind = ("-T", "vmstore", *(("-C", "1M") if size >= _LARGE else ()))
    small = ("-b", "4K", "-C", "64K", "-J", _SMALL_JOURNAL) if size < _SMALL else ()
    stack = ("--cluster-stack=o2cb", f"--cluster-name={cluster}", f"--fs-features={FEATURES}")
    return ("mkfs.ocfs2", "-F", "-q", "-N", "2", "-L", label[:63], "-U", uuid, *kind, *small, *stack)


def _mount(choice: Choice, node: str) -> Step:
    storage = choice.answers.storage
    up = ("pvedrbdstor", "mirror", "up", storage, "--wait", "60")
    about = {"path": choice.answers.path, "minor": str(choice.mirror.minor)}
    return Step(
        f"{node}.mount", node, Kind.MOUNT, f"bring the storage {storage} up", "as at every boot", (up,), about=about
    )


def _status(choice: Choice, node: str) -> Step:
    storage = choice.answers.storage
    risky = choice.answers.without_fencing or choice.answers.without_third_vote
    about = {"accepted": " ".join(("healthy", "degraded", *(("unprotected",) if risky else ())))}
    command = ("pvedrbdstor", "mirror", "status", storage, "--json")
    return Step(f"{node}.status", node, Kind.STATUS, "look how the storage is", "", (command,), about=about)


def _identity(disk: Disk) -> dict[str, str]:
    return {} if disk.identity is None else {"identity": disk.identity}


def _file(choice: Choice, node: str, path: str, content: str, mode: int = 0o644) -> File:
    """One that may be there, and is then replaced. Those that only ever are new are without a digest of what was before."""
    present = choice.nodes[node].files.get(path)
    return File(path, content, mode, None if present is None else digest(present))
