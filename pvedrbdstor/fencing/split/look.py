"""Look at this node's side of a split: DRBD, its metadata, the kernel's log, the files. Reads only."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

from pvedrbdstor import command, native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import blocks as blocks_text
from pvedrbdstor.drbd import commands, generation, metadata
from pvedrbdstor.drbd.events2 import State, parse_now
from pvedrbdstor.errors import (
    CommandFailed,
    CommandTimeout,
    Error,
    NotAnswering,
    NotMounted,
    SplitJournalBroken,
    WrongMount,
)
from pvedrbdstor.fencing.split import journal, kernel_log
from pvedrbdstor.fencing.split.mounted import Mounted
from pvedrbdstor.fencing.split.ranges import chunks_of
from pvedrbdstor.fencing.split.side import FileState, Side
from pvedrbdstor.mirror.facts import drbd_facts
from pvedrbdstor.mirror.finding import Kind
from pvedrbdstor.mirror.live import view

_TOOL_SECONDS = 10.0
_DUMP_SECONDS = 120.0
_DUMP_LIMIT = 64 << 20
_DIGESTS_MAX = 4 << 30
"""Bytes of changed parts up to which their digests are made unasked."""
_SILENT = "The file system does not answer or its I/O is frozen, so its files were not looked at."


def look(config: StorageConfig, *, with_digests: bool = True) -> Side:
    """Everything this node can tell; digests, of what it has changed, cost reading that. Raises CommandFailed, CommandTimeout, OSError."""
    state = drbd_state(config.resource)
    minor = state.minor_of(config.resource, config.volume)
    drbd = drbd_facts(state, config.resource, config.volume)
    sure, perhaps = blocks(config)
    hint = perhaps is not None
    frozen = Kind.SUSPENDED in view.read_view(config.id).verdict.kinds
    answer = None if frozen else _files(config, sure, perhaps)
    mounted, found = answer if answer is not None else (False, ())
    remarks = (_SILENT,) if answer is None else ()
    parted, detected, met, refused = _moments(config, minor)
    small = sum(length for file in found for _, length in file.changed) <= _DIGESTS_MAX
    digests = _own_digests(config, found) if with_digests and hint and small else None
    peer = drbd.peers[0] if drbd is not None else None
    return Side(
        storage=config.id,
        node=socket.gethostname().partition(".")[0],
        at=time.time(),
        role=drbd.role if drbd is not None else None,
        disk=drbd.disk if drbd is not None else None,
        connection=peer.connection if peer is not None else None,
        peer_disk=peer.disk if peer is not None else None,
        identifiers=identifiers(config),
        met=met,
        refused=refused,
        since=parted,
        detected=detected,
        mounted=mounted,
        hint=hint,
        blocks=metadata.merged([*sure, *(perhaps or ())]),
        files=found,
        digests=digests,
        remarks=remarks,
        resource=config.resource,
        volume=config.volume,
        resolving=_resolving(config.id),
    )


def _resolving(storage: str) -> str | None:
    try:
        running = journal.read(storage)
    except SplitJournalBroken:
        return "nobody knows which node"
    return running.keep if running is not None else None


def identifiers(config: StorageConfig) -> str | None:
    """The first line of `drbdadm get-gi`, which also answers while the resource is down; None where it does not."""
    name = f"{config.resource}/{config.volume}"
    try:
        text = command.run(["drbdadm", "get-gi", name], timeout=_TOOL_SECONDS).stdout
    except (CommandFailed, CommandTimeout):
        return None
    return next((line.strip() for line in text.splitlines() if line.count(":") >= 4), None)


def blocks(config: StorageConfig) -> tuple[tuple[metadata.Range, ...], tuple[metadata.Range, ...] | None]:
    """Blocks written since the other node was lost, by DRBD's bitmap on the disk; and those that may have been beside them, by
    its activity log: None where either could not be read whole.

    The log is read before the bitmap and after it: while somebody writes, an extent may leave the log between, with its bits on the disk only
    then (drbd_actlog.c).
    """
    first = _dump(config)  # tells where the log is
    before = _active(config, first.log) if first is not None and first.complete else None
    dump = _dump(config) if before is not None else first
    if dump is None:
        return (), None
    after = _active(config, dump.log) if dump.complete else None
    active = None if before is None or after is None else metadata.merged([*before, *after])
    if dump.size is None:
        return dump.changed, active
    return metadata.within(dump.changed, dump.size), None if active is None else metadata.within(active, dump.size)


def data_size(config: StorageConfig) -> int | None:
    """Bytes of DRBD's data on the lower device: the size of the DRBD device, or, while that is down, what the nodes had agreed
    upon last. None where neither can be told. Raises CommandFailed, CommandTimeout."""
    minor = drbd_state(config.resource).minor_of(config.resource, config.volume)
    try:
        with open(f"/sys/block/drbd{minor}/size", encoding="ascii") as file:
            size = int(file.read()) * metadata.SECTOR
    except (OSError, ValueError):
        size = 0
    if size:
        return size
    dump = _dump(config)
    return dump.size if dump is not None else None


def _dump(config: StorageConfig) -> metadata.Dump | None:
    """The metadata on the disk; None where they cannot be read.

    While the device is attached drbdmeta only reads with --force, which for dump-md means just that; and says that it may be
    stale, for which the activity log makes up.
    """
    minor, device = _line(config, "sh-minor"), _line(config, "sh-md-dev")
    index = _line(config, "sh-md-idx")
    if minor is None or device is None or index is None:
        return None
    version = "v09" if _is_nine() else "v08"
    line = ["drbdmeta", "--force", minor, version, device, index, "dump-md"]
    try:
        answer = command.run(line, timeout=_DUMP_SECONDS, check=False, limit=_DUMP_LIMIT)
    except (CommandFailed, CommandTimeout):
        return None
    return metadata.parse_dump(answer.stdout)


def _active(config: StorageConfig, log: metadata.Range | None) -> tuple[metadata.Range, ...] | None:
    """The activity log's extents, which are places on the data device, wherever the log itself lies (meta-disk); None where it
    cannot be read, or is not kept."""
    device, lower = _line(config, "sh-md-dev"), _line(config, "sh-ll-dev")
    if log is None or device is None or lower is None or not _keeps_log(config):
        return None
    try:
        extents = metadata.active_extents(_read(device, log))
        fd = os.open(lower, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return metadata.extent_ranges(extents, native.device_size(fd, lower))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


def _read(device: str, part: metadata.Range) -> bytes:
    """Past the page cache, below which DRBD writes."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with native.AlignedBuffer(part[1]) as buffer:
            count = buffer.pread(fd, part[0], path=device)
            return bytes(buffer.view[:count])
    finally:
        os.close(fd)


def _keeps_log(config: StorageConfig) -> bool:
    """By the configuration as it is written, and by what the kernel has where the resource is up."""
    for line in (commands.dump(config.resource), commands.show(config.resource)):
        try:
            answer = command.run(line, timeout=_TOOL_SECONDS, check=line[1] == "dump")
        except (CommandFailed, CommandTimeout):
            return False
        if without_log(answer.stdout, config.resource):
            return False
    return True


def without_log(text: str, resource: str) -> bool:
    """Whether `drbdadm dump` or `drbdsetup show` has `al-updates no` anywhere for a resource (drbd.conf(5), disk)."""
    top = blocks_text.parse(text)
    owners = [*(found for found in top.named("resource") if found.words[1:2] == (resource,)), *top.named("common")]
    return any(block.value("al-updates") == "no" for owner in owners for block in _below(owner))


def volumes_of(dump: str, resource: str) -> int:
    """How many volumes `drbdadm dump` has for a resource, 0 where it does not have it. Without any `volume` block it has one,
    number 0 (drbd.conf(5), volume)."""
    owners = [
        found for found in blocks_text.parse(dump).named("resource") if found.words[1:2] == (resource,) and found.whole
    ]
    if not owners:
        return 0
    numbers = {block.words[1:2] for owner in owners for block in _below(owner) if block.words[:1] == ("volume",)}
    return max(1, len(numbers))


def _below(block: blocks_text.Block) -> Iterator[blocks_text.Block]:
    """A block and all in it."""
    yield block
    for inner in block.blocks:
        yield from _below(inner)


def _line(config: StorageConfig, what: str) -> str | None:
    """One word that drbdadm knows of the volume (drbdadm(8), sh-*)."""
    try:
        answer = command.run(["drbdadm", what, f"{config.resource}/{config.volume}"], timeout=_TOOL_SECONDS)
    except (CommandFailed, CommandTimeout):
        return None
    return answer.stdout.split()[0] if answer.stdout.split() else None


def _is_nine() -> bool:
    try:
        text = command.run(commands.version(), timeout=_TOOL_SECONDS).stdout
    except Error:
        return False
    return generation.from_version(text) is generation.Generation.V9


def _files(
    config: StorageConfig, sure: tuple[metadata.Range, ...], perhaps: tuple[metadata.Range, ...] | None
) -> tuple[bool, tuple[FileState, ...]] | None:
    """Whether it is mounted, and its files; None where it does not answer."""
    try:
        with Mounted(config) as mount:
            return True, tuple(mount.walk(sure, perhaps))
    except (NotMounted, WrongMount):
        return False, ()
    except NotAnswering:
        return None


def _own_digests(config: StorageConfig, found: tuple[FileState, ...]) -> dict[str, tuple[str, ...]] | None:
    wanted = {file.path: chunks_of(file.changed) for file in found if file.changed}
    if not wanted:
        return {}
    try:
        with Mounted(config) as mount:
            return mount.digests(wanted)
    except NotAnswering:
        return None


def _moments(config: StorageConfig, minor: int | None) -> tuple[float | None, float | None, bool, bool]:
    """When the copies parted, when DRBD found the split, whether it did, whether the other node hung up first.

    From the kernel's log of this boot, else from the monitor.
    """
    seen = kernel_log.moments(kernel_log.records(), config.resource, minor)
    parted, found = kernel_log.wall(seen.parted), kernel_log.wall(seen.found)
    told = next(
        (
            loss
            for loss in view.read_record(config.id).get("losses", ())
            if isinstance(loss, dict) and loss.get("resource") == config.resource and not loss.get("connected")
        ),
        {},
    )
    lost_at = told.get("lost_at")
    if parted is None and isinstance(lost_at, int | float):
        parted = time.time() - view.boot_clock() + lost_at
    met = found is not None or told.get("split_brain") is True
    return parted, found, met, not met and (seen.refused is not None or told.get("refused") is True)


def drbd_state(resource: str) -> State:
    """With its counters. Raises CommandFailed, CommandTimeout."""
    return parse_now(command.run(commands.events2_now(resource, statistics=True), timeout=_TOOL_SECONDS).stdout)
