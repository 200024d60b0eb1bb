"""Put both sides together: look here, ask the other node or take its word from a file, compare digests."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import blocks, commands
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import BadRequest, CommandFailed, CommandTimeout, Error
from pvedrbdstor.fencing.split import compare, files, look, remote
from pvedrbdstor.fencing.split.judge import Case, judge
from pvedrbdstor.fencing.split.ranges import chunks_of
from pvedrbdstor.fencing.split.report import Report
from pvedrbdstor.fencing.split.side import Side, from_json
from pvedrbdstor.mirror.mount import mirror

_TOOL_SECONDS = 10.0
_HARMLESS = ("disconnect", "retry-connect", None)


def investigate(config: StorageConfig, other_file: str | None = None, *, with_digests: bool = True) -> Report:
    """Everything that can be known now. Raises BadRequest, CommandFailed, CommandTimeout, OSError."""
    own = look.look(config, with_digests=False)
    name, other, why_not = _other(config, own, other_file)
    judgement = judge(own, other)
    equal: compare.Equal = {}
    if (
        with_digests
        and other is not None
        and judgement.case in (Case.SPLIT, Case.PERHAPS)
        and own.mounted
        and other.mounted
    ):
        equal = _equal(config, own, other, from_file=other_file is not None)
    found = compare.changes(own, other, equal) if judgement.case in (Case.SPLIT, Case.PERHAPS) else ()
    return Report(own, other, name, why_not, judgement, found)


def digests_of(config: StorageConfig, wanted: Mapping[str, tuple[Range, ...]]) -> dict[str, tuple[str, ...]]:
    """Of this node's files. Raises NotMounted, WrongMount, OSError."""
    with mirror(config) as opened:
        return files.digests(opened.root_fd, wanted)


def peers(config: StorageConfig) -> tuple[str, ...]:
    """The other nodes of the resource as it is configured; empty where drbdadm does not tell."""
    try:
        return remote.other_nodes(_dump(config), config.resource, socket.gethostname())
    except (CommandFailed, CommandTimeout):
        return ()


def discarding_policies(config: StorageConfig) -> tuple[str, ...]:
    """Settings with which DRBD would choose the copy to lose by itself, as they are written."""
    top = blocks.parse(_dump(config))
    owners = [
        *(found for found in top.named("resource") if found.words[1:2] == (config.resource,)),
        *top.named("common"),
    ]
    nets = [net for owner in owners for net in owner.named("net")]
    return tuple(
        f"{option} {value}"
        for option in ("after-sb-0pri", "after-sb-1pri", "after-sb-2pri", "rr-conflict")
        if (value := next((net.value(option) for net in nets if option in net.options), None)) not in _HARMLESS
    )


def _dump(config: StorageConfig) -> str:
    """Raises CommandFailed, CommandTimeout: what is not known must not pass for harmless."""
    return command.run(commands.dump(config.resource), timeout=_TOOL_SECONDS).stdout


def _other(config: StorageConfig, own: Side, path: str | None) -> tuple[str | None, Side | None, str | None]:
    """The other node's name, its side, and why that is not known."""
    names = peers(config)
    if path is not None:
        side = _from_file(path)
        if side.storage != own.storage or side.node == own.node:
            raise BadRequest(
                detail=f"{path} is of storage '{side.storage}' on node {side.node}, not of the other node's side of this one"
            )
        return side.node, side, None
    if len(names) != 1:
        return None, None, "DRBD's configuration does not name exactly one other node"
    try:
        return names[0], remote.side(names[0], config.id), None
    except Error as error:
        return names[0], None, remote.why_not(error)


def _from_file(path: str) -> Side:
    try:
        with open(path, encoding="utf-8") as file:
            return from_json(json.load(file))
    except OSError as error:
        raise BadRequest(detail=f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadRequest(detail=f"{path} is no JSON ({error})") from error


def _equal(config: StorageConfig, own: Side, other: Side, *, from_file: bool) -> compare.Equal:
    if from_file:
        states = {file.path: chunks_of(file.changed) for file in other.files if file.changed}
        mine = digests_of(config, {path: ranges for path, ranges in states.items() if path in (other.digests or {})})
        return compare.equal_from_file(own, other, mine)
    wanted = compare.wanted(own, other)
    if not wanted:
        return {}
    mine = digests_of(config, wanted)
    try:
        theirs = remote.digests(other.node, config.id, wanted)
    except Error:
        return {}
    return compare.equal_all(mine, theirs)


def in_progress(report: Report, text: str | None) -> Report:
    return replace(report, in_progress=text)
