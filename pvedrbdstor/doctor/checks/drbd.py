"""DRBD's settings in force that are about speed and safety of what is written, and not about failures: those are the verdict's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.blocks import Block
from pvedrbdstor.drbd.config import parse_show
from pvedrbdstor.drbd.disk_cache import WRITE_THROUGH
from pvedrbdstor.drbd.remedies import taken_up

PROTOCOL = Entry("drbd-protocol", (Severity.ERROR,), "DRBD does not replicate with protocol C")
VERIFY_ALG = Entry("drbd-no-verify-alg", (Severity.HINT,), "DRBD's own verify has no algorithm")
FLUSHES = Entry(
    "drbd-flushes-off",
    (Severity.WARNING,),
    "DRBD does not have the disk flush its cache, or not its own metadata, and the kernel knows of a cache, or cannot tell",
)
ACTIVITY = Entry("drbd-al-extents", (Severity.HINT,), "DRBD's activity log is smaller than its default")
RESYNC = Entry("drbd-resync-slow", (Severity.WARNING,), "at DRBD's resync rate a full resync takes more than a week")
ORDERING = Entry(
    "drbd-write-ordering",
    (Severity.WARNING,),
    "DRBD keeps the order of writes on the disk by waiting alone, or not at all, though it may flush",
)
ENTRIES = (PROTOCOL, VERIFY_ALG, FLUSHES, ORDERING, ACTIVITY, RESYNC)

_AL_DEFAULT = 1237
_KIB, _DAY = 1024, 86400
_LONG_DAYS = 7
_RATE_DEFAULT, _C_MAX_DEFAULT = 250 * _KIB, 100 << 20
_RATE = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        for node in look.nodes:
            show = node.text("show")
            if show is not None:
                yield from _net(node, storage, show)
                for disk in disks(show, storage):
                    yield from _disk(node, storage, disk, peer_options(show, storage))
                    yield from _ordering(node, storage, disk)


def disks(show: str, storage: StorageConfig) -> Iterator[Block]:
    """The volume's block in the output of `drbdsetup show`; none where it has no disk or is down."""
    for resource in blocks.parse(show).named("resource"):
        if resource.whole and resource.words[1:2] == (storage.resource,):
            for volume in (part for host in resource.named("_this_host") for part in host.named("volume")):
                if volume.words[1:2] == (str(storage.volume),) and (volume.value("disk") or "").startswith("/"):
                    yield volume


def peer_options(show: str, storage: StorageConfig) -> dict[str, tuple[str, ...]]:
    """Of DRBD 9, which has the resync's options with each connection's volume; empty on 8.4, which has them with the disk."""
    found: dict[str, tuple[str, ...]] = {}
    for resource in blocks.parse(show).named("resource"):
        if resource.words[1:2] == (storage.resource,):
            for volume in (part for connection in resource.named("connection") for part in connection.named("volume")):
                for disk in volume.named("disk") if volume.words[1:2] == (str(storage.volume),) else ():
                    found.update(disk.options)
    return found


def _net(node: Node, storage: StorageConfig, show: str) -> Iterator[Finding]:
    config = parse_show(show).get(storage.resource)
    nets = config.nets if config is not None else ()
    loose = sorted({net.protocol for net in nets if net.protocol != "C"})
    adjust = f"in place of what it says of that now, {taken_up(storage.resource)}"
    if loose:
        yield PROTOCOL.found(
            f"DRBD replicates with protocol {plain(', '.join(loose))}",
            "A write counts as done before the other node's disk has it: a guest that moves, or is restarted after a failure, finds older data. Dual "
            "primary needs protocol C.",
            f"Write `protocol C;` in net {{ }} of resource {storage.resource} in drbd.conf on both nodes, {adjust}",
            nodes=(node.name,),
            storage=storage.id,
        )
    if nets and any(net.verify_alg is None for net in nets):
        yield VERIFY_ALG.found(
            "DRBD's own verify has no algorithm",
            f"'pvedrbdstor verify {storage.id} --mode kernel' cannot be used; the other modes can.",
            f"Write `verify-alg crc32c;` in net {{ }} of resource {storage.resource} in drbd.conf on both nodes, {adjust}",
            nodes=(node.name,),
            storage=storage.id,
        )


def _disk(node: Node, storage: StorageConfig, volume: Block, of_peer: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    own = next(volume.named("disk"), Block(("disk",)))
    options = Block(own.words, {**own.options, **of_peer})
    section = f"disk {{ }} of resource {storage.resource}"
    adjust = taken_up(storage.resource)
    off = [name for name in ("disk-flushes", "md-flushes") if options.value(name) == "no"]
    cache = node.mapping("write_caches").get(f"{storage.resource}/{storage.volume}")
    if off and cache != WRITE_THROUGH:  # else the kernel would drop the flushes
        lines = " and ".join(f"`{name} no;`" for name in off)
        yield FLUSHES.found(
            f"DRBD has {' and '.join(off)} switched off",
            "What the disk keeps in a cache without a battery is lost with the power, although it was acknowledged; with md-flushes off DRBD may even forget "
            "what is to be resynced. Only a disk whose cache outlives a power failure needs no flushes.",
            f"Unless its cache has a battery or capacitors, remove {lines} from {section} and from common {{ }} in drbd.conf on both nodes, {adjust}. If it has, "
            "nothing is lost: with the option --accept drbd-flushes-off the doctor does not count this any more",
            nodes=(node.name,),
            storage=storage.id,
        )
    extents = options.value("al-extents")
    if (
        extents is not None
        and extents.isascii()
        and extents.isdecimal()
        and len(extents) < 9
        and int(extents) < _AL_DEFAULT
    ):
        yield ACTIVITY.found(
            f"DRBD's activity log has {extents} extents, fewer than the default of {_AL_DEFAULT}",
            "Random writes of guests that reach beyond so many areas of 4 MiB cost a write of metadata each; a larger log only makes the resync after a "
            "crash longer.",
            f"Write `al-extents 6007;` in {section} in drbd.conf on both nodes, in place of `al-extents {extents};`, {adjust}",
            nodes=(node.name,),
            storage=storage.id,
        )
    yield from _resync(node, storage, options)


def _ordering(node: Node, storage: StorageConfig, volume: Block) -> Iterator[Finding]:
    """DRBD 8.4 tells it in /proc/drbd: `wo:` with b(arrier), f(lush), d(rain) or n(one), write_ordering_chars in drivers/block/drbd/drbd_proc.c. It
    steps down by itself where the disk refuses a flush (drbd_bump_write_ordering()). DRBD 9 tells it in debugfs alone: there the options count."""
    own = next(volume.named("disk"), Block(("disk",)))
    off = {name for name in ("disk-flushes", "disk-drain") if own.value(name) == "no"}
    minor = (volume.options.get("device") or ("",))[-1]  # `device minor 0;`
    in_force = _in_force(node.text("proc_drbd") or "", minor) or ("n" if {"disk-flushes", "disk-drain"} <= off else "")
    if in_force == "n":
        yield ORDERING.found(
            "DRBD does not keep the order of writes on the disk (write ordering 'none')",
            "After a power failure a later write may be on the disk and an earlier one not, which breaks journals of guests' file systems and OCFS2's own. Only "
            "a disk whose cache outlives a power failure, and that keeps the order itself, needs none.",
            f"Remove `disk-drain no;` and `disk-flushes no;` from disk {{ }} of resource {storage.resource} in drbd.conf on both nodes, "
            f"{taken_up(storage.resource)}",
            nodes=(node.name,),
            storage=storage.id,
        )
    elif in_force == "d" and "disk-flushes" not in off:
        yield ORDERING.found(
            "The disk below DRBD refuses to flush its cache (write ordering 'drain')",
            "DRBD may flush, and the disk has answered that it cannot: what it keeps in a cache without a battery is lost with the power, although it was "
            "acknowledged.",
            "See what is between DRBD and the disk, 'lsblk -s', and whether the kernel told why: 'dmesg'. A disk without a cache, or with one that outlives a "
            f"power failure, needs no flush: then write `disk-flushes no; md-flushes no;` in disk {{ }} of resource {storage.resource} in drbd.conf on both "
            f"nodes, {taken_up(storage.resource)}",
            nodes=(node.name,),
            storage=storage.id,
        )


def _in_force(text: str, minor: str) -> str | None:
    """The letter of a device, from /proc/drbd of DRBD 8.4: on the line behind that with its number."""
    found = re.search(rf"^ *{re.escape(minor)}: .*\n.* wo:([bfdn])\b", text, re.MULTILINE)
    return None if found is None else found[1]


def _resync(node: Node, storage: StorageConfig, options: Block) -> Iterator[Finding]:
    """The fixed rate where the controller is off (c-plan-ahead 0), else the most that it takes (drbd.conf-8.4(5), drbd.conf-9.0(5))."""
    size = number(node.mapping(f"superblock:{storage.id}").get("size"))
    fixed = options.value("c-plan-ahead") == "0"
    option, default = ("resync-rate", _RATE_DEFAULT) if fixed else ("c-max-rate", _C_MAX_DEFAULT)
    speed = rate(options.value(option), default)
    if size is None or not speed:
        return
    days = size / speed / _DAY
    if days > _LONG_DAYS:
        yield RESYNC.found(
            f"A full resync would take {days:.0f} days",
            f"'{option}' allows {speed // _KIB} KiB/s for {size >> 30} GiB. For all that time there is one good copy.",
            f"Write `c-plan-ahead 20; c-max-rate 400M;` in disk {{ }} of resource {storage.resource} in drbd.conf on both nodes, in place of what it says of "
            f"these now, {taken_up(storage.resource)}. That is for a link of 10 Gbit/s: take less than half of what it carries, 50M for 1 Gbit/s",
            nodes=(node.name,),
            storage=storage.id,
        )


def rate(text: str | None, default: int) -> int | None:
    """Bytes a second, from `204800k`, or a number of KiB; None for what is no rate."""
    if text is None:
        return default
    found = _RATE.fullmatch(text)
    return None if found is None else int(found[1]) * (_UNITS[found[2].lower()] if found[2] else _KIB)
