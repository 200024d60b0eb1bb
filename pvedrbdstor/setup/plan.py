"""The plan of a setup: facts of both nodes and answers become steps, or refusals. The same facts give the same plan. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor import __version__
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.fencing.arbiter import node_id_of
from pvedrbdstor.fencing.corosync_conf import CorosyncConf
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.setup import build, checks, times, wall
from pvedrbdstor.setup import link as wire
from pvedrbdstor.setup.answers import WITHOUT_FENCING, WITHOUT_THIRD_VOTE, Answers
from pvedrbdstor.setup.facts import Disk, Facts, is_no_wwn
from pvedrbdstor.setup.link import Measured
from pvedrbdstor.setup.network import Link, links
from pvedrbdstor.setup.paths import FIREWALL
from pvedrbdstor.setup.steps import FORMAT, Device, Refusal, Step
from pvedrbdstor.setup.templates import Host, Mirror

DRBD_PORT = 7789
_BY_ID = "/dev/disk/by-id/"
_WRITTEN = ("lvm-pv-uuid-", "dm-name-", "dm-uuid-", "md-name-", "md-uuid-")
_KINDS = ("wwn-", "nvme-eui.", "scsi-3", "ata-", "virtio-", "nvme-")
"""Of names below by-id, the best first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """lead: the node that the plan was made on, whose copy counts first. port: of DRBD. measured: kept, as it is never the same again;
    None where that was not wanted. notes: what to know before, one sentence each."""

    format: int
    version: str
    lead: str
    answers: Answers
    devices: tuple[Device, ...]
    link: Link
    port: int
    measured: Measured | None
    notes: tuple[str, ...]
    steps: tuple[Step, ...]


def make(
    nodes: Mapping[str, Facts], answers: Answers, lead: str, measured: Measured | None = None
) -> Plan | tuple[Refusal, ...]:
    """Everything that would be done, or everything that is in the way. lead: this node. measured: of the plan's link and port, which a
    plan without it tells."""
    refused = list(checks.refusals(nodes, answers))
    link = _link(nodes, answers)
    if isinstance(link, Refusal):
        refused.append(link)
    if lead not in answers.disks:
        refused.append(
            Refusal(f"{lead}, this node, is none of the two", "Run this on one of the nodes that get a disk")
        )
    if refused or isinstance(link, Refusal):
        return tuple(dict.fromkeys(refused))
    conf = corosync_conf.parse(nodes[lead].files[corosync_conf.PATH])
    choice = _choose(nodes, answers, lead, conf, link, wire.speed(link, measured))
    steps = tuple(build.steps(choice))
    late = (*_refusals_of_choice(choice, steps), *wire.refusals(link, measured))
    if late:
        return late
    return Plan(
        format=FORMAT,
        version=__version__,
        lead=lead,
        answers=answers,
        devices=tuple(choice.devices.values()),
        link=link,
        port=choice.mirror.port,
        measured=measured,
        notes=(*_notes(answers, choice, link), *wire.notes(link, measured, _opens(steps)), *_last_notes(choice)),
        steps=steps,
    )


def _refusals_of_choice(choice: build.Choice, steps: Sequence[Step]) -> Iterator[Refusal]:
    """What is in the way of the very names and numbers that were chosen."""
    yield from wall.refusals(choice)
    if not choice.answers.without_fencing:
        yield from times.misfits(choice.inputs, choice.answers.storage, choice.mirror.resource)
    for node in choice.order:
        files = (file for step in steps if step.node == node for file in step.files)
        yield from checks.targets_taken(node, choice.nodes[node], files)
        if choice.lvm_conf(node) is None:
            yield Refusal(
                f"lvm.conf on {node} has a global_filter that is not one plain list on a line of its own",
                f'Put "r|^/dev/drbd{choice.mirror.minor}$|", as first into it yourself, then plan again',
            )


def _link(nodes: Mapping[str, Facts], answers: Answers) -> Link | Refusal:
    found = links(nodes)
    named = ", ".join(link.network for link in found) or "none"
    if answers.network is not None and ":" in answers.network:
        return Refusal(
            f"{answers.network} is an IPv6 network, and OCFS2's nodes know each other by IPv4 addresses alone",
            "Give both an IPv4 address on that link, too, such as 10.10.10.1/24 and 10.10.10.2/24, and choose that network",
        )
    if answers.network is not None:
        chosen = next((link for link in found if link.network == answers.network), None)
        if chosen is None:
            cause = f"not both nodes have one address in the network {answers.network}"
            return Refusal(cause, f"Choose one with '--network'; those that both are in: {named}")
        return chosen
    if len(found) == 1:
        return found[0]
    if not found:
        return Refusal(
            "the nodes are in no IPv4 network together, and OCFS2's nodes know each other by IPv4 addresses alone",
            "Give both an address on the link between them, then plan again",
        )
    return Refusal(f"the nodes are in several networks together ({named})", "Say which one replicates with '--network'")


def _opens(steps: Sequence[Step]) -> bool:
    return any(file.path == FIREWALL for step in steps for file in step.files)


def _choose(
    nodes: Mapping[str, Facts], answers: Answers, lead: str, conf: CorosyncConf, link: Link, speed: int | None
) -> build.Choice:
    used = checks.used_by_drbd(nodes)
    resource = answers.resource or next(
        f"r{at}" for at in range(len(used.resources) + 1) if f"r{at}" not in used.resources
    )
    disks = {node: _disk(nodes[node], name) for node, name in answers.disks.items()}
    lower = {node: _lower(disk, resource, answers) for node, disk in disks.items()}
    order = sorted(nodes, key=lambda node: (node_id_of(conf, nodes[node].host) or 0, node))
    hosts = tuple(Host(nodes[node].host, lower[node], link.addresses[node], at) for at, node in enumerate(order))
    shared = checks.shared_cluster(nodes)
    kept = o2cb.parse_defaults(nodes[lead].files.get(o2cb.DEFAULTS_FILE, "")).timeouts if shared is not None else None
    inputs = times.fitting(conf, kept)
    mirror = Mirror(
        resource=resource,
        minor=checks.first_free(used.minors, 0),
        port=checks.first_free(used.ports, DRBD_PORT),
        hosts=hosts,
        generation=nodes[lead].generation or Generation.V8_4,
        fenced=not answers.without_fencing,
        speed=speed,
        ping_int=int(inputs.ping_int or 3),
        ping_timeout=int((inputs.ping_timeout or 1) * 10),
        connect_int=int(inputs.connect_int or 3),
    )
    devices = {
        node: Device(node, disk.path, disk.size, disk.identity, disk.signatures if answers.may_wipe(node) else ())
        for node, disk in disks.items()
    }
    both = (lead, *(node for node in order if node != lead))
    ids = {node_id_of(conf, facts.host) for facts in nodes.values()}
    others = tuple(each.name or str(each.node_id) for each in conf.nodes if each.node_id not in ids)
    return build.Choice(nodes, answers, both, mirror, disks, devices, lower, shared, inputs, others)


def _disk(facts: Facts, name: str) -> Disk:
    disk = facts.disk(name)
    assert disk is not None, "checks.refusals() comes first"
    return disk


def _lower(disk: Disk, resource: str, answers: Answers) -> str:
    """What DRBD lies on: the logical volume, else a name of the disk that outlives a boot, where it has one."""
    if disk.kind == "lvm":
        return disk.path
    if answers.lvm:
        return f"/dev/{answers.group}/{resource}"
    return lasting_name(disk.names) or disk.path


def lasting_name(names: Iterable[str]) -> str | None:
    """Of the disk itself, not of what LVM, md or the device mapper has written onto it, which goes when that goes."""
    ids = {name.removeprefix(_BY_ID): name for name in names if name.startswith(_BY_ID)}
    good = [
        word
        for word in ids
        if not word.startswith(_WRITTEN) and not is_no_wwn(re.sub(r"^(?:wwn-|nvme-)|-part[0-9]+$", "", word))
    ]
    rank = {word: next((at for at, kind in enumerate(_KINDS) if word.startswith(kind)), len(_KINDS)) for word in good}
    best = min(good, key=lambda word: (rank[word], word), default=None)
    return None if best is None else ids[best]


def _notes(answers: Answers, choice: build.Choice, link: Link) -> Iterator[str]:
    if answers.without_fencing:
        yield f"{WITHOUT_FENCING}: after a cut link both nodes go on writing, each to its own copy, and one side's writes will be lost."
    elif answers.without_third_vote:
        yield f"{WITHOUT_THIRD_VOTE}: after a cut link nobody can decide, both nodes freeze and OCFS2 resets both."
    if choice.others:
        names = ", ".join(choice.others)
        yield f"Install pvedrbdstor on {names}, too, before: a node without it drops the storage from the cluster's configuration."
    sizes = {node: disk.size for node, disk in choice.disks.items()}
    if len(set(sizes.values())) > 1:
        yield f"The disks are not of one size ({', '.join(f'{size >> 20} MiB on {node}' for node, size in sizes.items())}): the smaller counts."
    if not set(choice.o2net) <= set(link.addresses.values()):
        yield f"OCFS2's own traffic stays on {' and '.join(choice.o2net)}, as the o2cb cluster that is there has it."
    yield from wall.notes(choice)
    if len(set(link.mtus.values())) > 1:
        yield f"The MTU is not the same on both ends of {link.network} ({', '.join(f'{mtu} on {node}' for node, mtu in link.mtus.items())})."
    if not answers.lvm and any(disk.kind != "lvm" for disk in choice.disks.values()):
        yield "Without LVM 'split-brain resolve' cannot preserve a copy as a snapshot, and copies files or the whole device instead."
    for node, disk in choice.disks.items():
        if disk.identity is None:
            yield f"{disk.path} on {node} has nothing that names it for good: 'setup apply' goes by its name and size alone."
        if choice.udev_rule(node) is None:
            yield (
                f"udev on {node} knows nothing that names {choice.lower[node]} for good, so no rule of udev keeps systemd and desktops off it: "
                "let nothing name it, or a file system that once was on it, in /etc/fstab."
            )


def _last_notes(choice: build.Choice) -> Iterator[str]:
    if choice.mirror.generation is Generation.V9:
        yield "DRBD 9: the files are checked by drbdadm, but no setup with its kernel module was ever tried in the lab."
    yield "The first copy of the disk goes on for long after this has ended: start no guest before 'pvedrbdstor mirror status' says healthy."
