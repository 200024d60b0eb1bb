"""Put both sides together: look here, ask the other node or take its word from a file, compare digests."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Mapping
from dataclasses import replace

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.drbd import config as drbd_config
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import BadRequest, CommandFailed, CommandTimeout, Error
from pvedrbdstor.fencing.split import compare, look, remote
from pvedrbdstor.fencing.split.judge import Case, judge
from pvedrbdstor.fencing.split.mounted import Mounted
from pvedrbdstor.fencing.split.plan import Refusal
from pvedrbdstor.fencing.split.ranges import chunks_of
from pvedrbdstor.fencing.split.report import Report
from pvedrbdstor.fencing.split.side import Side, from_json

_TOOL_SECONDS = 10.0
FILE_SECONDS, ANSWER_SECONDS = 3600.0, 600.0
"""The oldest word of the other node that will do: from a file, which somebody had to carry; as an answer, which may take a while."""
AHEAD_SECONDS = 600.0
_CLOCK_SECONDS = 10.0


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
    """Of this node's files. Raises NotMounted, WrongMount, NotAnswering, OSError."""
    with Mounted(config) as mount:
        return mount.digests(wanted)


def peers(config: StorageConfig) -> tuple[str, ...]:
    """The other nodes of the resource as it is configured; empty where drbdadm does not tell."""
    try:
        return nodes.other_nodes(_dump(config), config.resource, config.volume, socket.gethostname())
    except (CommandFailed, CommandTimeout):
        return ()


def discarding_policies(config: StorageConfig) -> tuple[str, ...]:
    """Settings with which DRBD would choose the copy to lose by itself: as they are written, which is what `drbdadm up` takes, and as
    the kernel has them, which is what a mere connect takes on 9."""
    written = drbd_config.discarding(_dump(config), config.resource)
    return tuple(f"{option} {value}" for option, value in dict.fromkeys((*written, *_in_force(config))))


def _in_force(config: StorageConfig) -> tuple[tuple[str, str], ...]:
    answer = command.run(
        commands.show(config.resource), timeout=_TOOL_SECONDS, check=False
    )  # it fails while DRBD is down
    running = drbd_config.parse_show(answer.stdout).get(config.resource)
    return tuple(found for net in running.nets for found in net.discarding) if running is not None else ()


def not_to_connect(config: StorageConfig) -> Refusal | None:
    """Why the two nodes must not meet now. Raises CommandFailed, CommandTimeout."""
    if (volumes := look.volumes_of(_dump(config), config.resource)) != 1:
        return Refusal(
            f"DRBD resource '{config.resource}' has {volumes} volumes, all of which would be discarded, and one preserved",
            "Preserve them by hand, one by one, as docs/split-brain.md has it for one",
        )
    if policies := discarding_policies(config):
        return Refusal(
            f"DRBD is set to choose the copy to lose by itself when the two meet ({', '.join(policies)})",
            "Set after-sb-0pri, after-sb-1pri, after-sb-2pri and rr-conflict to 'disconnect' in each net { } of the resource's file that "
            f"has them, and of the common one, on both nodes, and run 'drbdadm net-options {config.resource}' where DRBD is up",
        )
    return None


def decided_otherwise(storage: str, node: str, keeps: str) -> tuple[str, str]:
    """Cause and remedy where the other node is in the middle of a resolution of its own."""
    return (
        f"{node} has a resolution of its own open, which keeps {keeps}'s copy and discards its own",
        f"Decide for one: on {node} 'pvedrbdstor split-brain resolve {storage}' goes on with that, '--abandon' gives it up",
    )


def _dump(config: StorageConfig) -> str:
    """Raises CommandFailed, CommandTimeout: what is not known must not pass for harmless."""
    return command.run(commands.dump(config.resource), timeout=_TOOL_SECONDS).stdout


def _other(config: StorageConfig, own: Side, path: str | None) -> tuple[str | None, Side | None, str | None]:
    """The other node's name, its side, and why that is not known. What is not its word of now is refused."""
    names = peers(config)
    if len(names) != 1:
        why_not = "DRBD's configuration does not name exactly one other node"
        if path is not None:
            raise BadRequest(detail=f"{path} is not looked at: {why_not}. Look at 'drbdadm dump {config.resource}'")
        return None, None, why_not
    if path is not None:
        side = _from_file(path)
        against = not_its_word(own, side, names[0], time.time(), FILE_SECONDS)
        if against is not None:
            again = f"'pvedrbdstor split-brain show {config.id} --local --json' on {names[0]} prints a new one"
            raise BadRequest(detail=f"{path} will not do: {against}. {again}")
        return names[0], side, None
    try:
        side = remote.side(names[0], config.id)
    except Error as error:
        return names[0], None, nodes.why_not(error)
    against = not_its_word(own, side, names[0], time.time(), ANSWER_SECONDS, slack=AHEAD_SECONDS)
    if against is not None:
        return names[0], None, f"its answer will not do, as {against}"
    return names[0], side, None


def not_its_word(
    own: Side, side: Side, name: str, now: float, oldest: float, slack: float = _CLOCK_SECONDS
) -> str | None:
    """Why a side is not what the other node, of that name, has to say of this very split now; None where it is.

    now: seconds since 1970. oldest: seconds of age up to which it will do. slack: seconds by which it may seem to be from before
    the split, as the clocks of the two nodes may differ: more for an answer to a question of now than for a file.
    """
    if side.node != name:
        return f"it is of node {side.node}, and DRBD's configuration names {name} as the other one"
    if (side.storage, side.resource, side.volume) != (own.storage, own.resource, own.volume):
        return (
            f"it is of storage '{side.storage}' on volume {side.volume} of resource {side.resource}, not of storage "
            f"'{own.storage}' on volume {own.volume} of resource {own.resource}"
        )
    age = now - side.at
    found = own.detected if own.detected is not None else own.since
    if found is not None and side.at < found - slack:
        return f"it is {_aged(age)}, from before the split was found here"
    if not -AHEAD_SECONDS <= age <= oldest:
        return f"it is {_aged(age)}, by the clocks of both nodes"
    if side.ids is None:
        return f"it has no identifiers of {name}'s copy that can be read"
    return None


def _aged(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "of no known time"
    minutes = abs(seconds) / 60
    shown = f"{minutes / 60:.1f} hours" if minutes >= 120 else f"{minutes:.0f} minutes"
    return f"{shown} old" if seconds >= 0 else f"{shown} from the future"


def _from_file(path: str) -> Side:
    try:
        with open(path, encoding="utf-8") as file:
            return from_json(json.load(file))
    except OSError as error:
        raise BadRequest(detail=f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadRequest(detail=f"{path} is no JSON ({error})") from error


def _equal(config: StorageConfig, own: Side, other: Side, *, from_file: bool) -> compare.Equal:
    """Nothing where digests cannot be had on one of the sides: then nobody has compared."""
    if from_file:
        states = {file.path: chunks_of(file.changed) for file in other.files if file.changed}
        wanted = {path: ranges for path, ranges in states.items() if path in (other.digests or {})}
    else:
        wanted = compare.wanted(own, other)
    if not wanted:
        return compare.equal_from_file(own, other, {}) if from_file else {}
    try:
        mine = digests_of(config, wanted)
        if from_file:
            return compare.equal_from_file(own, other, mine)
        return compare.equal_all(mine, remote.digests(other.node, config.id, wanted))
    except Error:
        return {}


def in_progress(report: Report, text: str | None) -> Report:
    return replace(report, in_progress=text)
