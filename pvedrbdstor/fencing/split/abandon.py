"""Give a resolution up: what it did to this node is undone, what it preserved stays, its record is put away."""

from __future__ import annotations

import time

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import CommandFailed, CommandTimeout, SplitJournalBroken, SplitRefused
from pvedrbdstor.fencing.split import hands, journal, replication
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Refusal, Situation
from pvedrbdstor.fencing.split.steps import Step
from pvedrbdstor.mirror.bringup import down, paths

_SECONDS = 30.0


def refuse(current: Journal, now: Situation) -> Refusal | None:
    """Pure: only while DRBD overwrites this copy, which a closed record would not stop."""
    if not (now.connected and now.replication in replication.OVERWRITING):
        return None
    return Refusal(
        f"{current.discard}'s copy is just being overwritten with {current.keep}'s",
        "Wait for the end, which 'pvedrbdstor mirror status' shows, or disconnect first ('drbdadm disconnect'): a copy that is half "
        "overwritten cannot be used, only overwritten to the end",
    )


def abandon(config: StorageConfig) -> tuple[str, str]:
    """Returns where the record is kept, and what that leaves, in sentences. Also of a record that cannot be read.

    Raises SplitRefused, CommandFailed, CommandTimeout, OSError.
    """
    try:
        current = journal.read(config.id)
    except SplitJournalBroken:
        hands.take_back(config)
        kept = f"{paths.RESOLUTIONS}/{config.id}.{time.strftime('%Y%m%d-%H%M%S')}.broken"
        journal.move(config.id, kept)
        down.release(config.id)
        return kept, "It could not be read; what it preserved is named there, if anything is."
    if current is None:
        raise SplitRefused(storage=config.id, cause="none was begun here", remedy="There is nothing to give up")
    if current.told:
        hands.take_back(config)
    now = hands.NodeHands(config).look(current)
    if (refusal := refuse(current, now)) is not None:
        raise SplitRefused(storage=config.id, cause=refusal.cause, remedy=refusal.remedy)
    if now.mounted and now.read_only and (Step.QUIESCE in current.done or current.doing is Step.QUIESCE):
        _make_writable(config)
    kept = journal.put_away(current)
    down.release(config.id)
    return kept, left(config, current, now)


def left(config: StorageConfig, current: Journal, now: Situation) -> str:
    """What is so after giving up, and what can be done; pure."""
    places = ", ".join((*current.given_up, current.target))
    preserved = f"What was preserved, if it came so far, stays: {places}."
    if now.connected:
        return f"The two nodes are connected: 'pvedrbdstor mirror up {config.id}' brings the storage up. {preserved}"
    if now.current is None:
        return f"DRBD's identifiers of {current.discard}'s copy cannot be read: look at 'dmesg'. {preserved}"
    if now.current != current.current and not current.told:
        return (
            f"{current.discard}'s copy is another one than this was begun with, and nothing of it was discarded. Look anew: "
            f"'pvedrbdstor split-brain show {config.id}'. {preserved}"
        )
    if now.current != current.current:
        return (
            f"{current.discard}'s copy is not what it was: it was overwritten with {current.keep}'s, to the end or in part. "
            f"'pvedrbdstor mirror up {config.id}' goes on with that. {preserved} How it is put back: docs/split-brain.md."
        )
    if now.mounted:
        return f"{current.discard}'s copy is as it was, and mounted. {preserved}"
    up = f"'drbdadm up {config.resource}', " if now.disk is None else ""
    return (
        f"{current.discard}'s copy is as it was, and not mounted; while the two are apart it is mounted by hand only ({up}'drbdadm "
        f"primary {config.resource}', 'mount -t ocfs2 DEVICE {config.path}'). {preserved}"
    )


def _make_writable(config: StorageConfig) -> None:
    """Where that fails (errors=remount-ro) it is no reason to keep the record open: the monitor tells of a read-only mount."""
    try:
        command.run(["mount", "-o", "remount,rw", config.path], timeout=_SECONDS)
    except (CommandFailed, CommandTimeout):
        return
