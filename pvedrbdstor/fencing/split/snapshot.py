"""The snapshot that preserves the side to lose: made, watched while the resync fills it, compared with what it is of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from pvedrbdstor import command
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import CommandFailed, CommandTimeout, SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import copies, lvm
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Step
from pvedrbdstor.sizes import format_size

DEVICES = "/dev"
_SECONDS = 120.0
_FULL = 80.0
"""Per cent of a plain snapshot, from where it may overflow before anybody looks again."""


def volume_of(device: str) -> lvm.Volume | None:
    """The logical volume that a device is; None for anything else, and where there is no LVM."""
    answer = _lvs(lvm.ask(device))
    volume = lvm.parse(answer) if answer else None
    if volume is None or not volume.pool:
        return volume
    pool = _lvs(lvm.ask_pool(volume))
    return replace(volume, thin=lvm.parse_pool(pool) if pool else None)


def is_there(target: str) -> bool:
    """Whether what it preserves can still be had."""
    answer = _lvs(lvm.ask_snapshot(target))
    return answer is not None and lvm.is_sound(answer)


def is_lost(target: str) -> bool:
    """Whether LVM says that it is not there, or not whole; not where it does not answer."""
    answer = _lvs(lvm.ask_snapshot(target))
    return answer is not None and not lvm.is_sound(answer)


def danger(journal: Journal, device: str, origin: int) -> str | None:
    """What threatens the snapshot while the resync overwrites this side, in words; None where nothing does, and where it is lost.

    origin: bytes of the lower device: a plain snapshot that is as large may fill up, and never overflows.
    """
    answer = _lvs(lvm.ask_snapshot(journal.target))
    if answer is None or not lvm.is_sound(answer):
        return None
    if not journal.size:
        volume = volume_of(device)
        if volume is None or volume.thin is None or (threat := volume.thin.threat) is None:
            return None
        return f"thin pool {volume.group}/{volume.pool}, in which snapshot {journal.target} lies, {threat}"
    filled = lvm.filled(answer)
    if filled is not None and filled >= _FULL and journal.size < lvm.full_snapshot(origin):
        return f"snapshot {journal.target} is {filled:.0f} % full, and is lost when it overflows"
    return None


def too_small(journal: Journal, device: str, origin: int, marked: Sequence[Range], *, hints: bool) -> str | None:
    """Why it cannot hold what the resync will overwrite by now, in words; None where it can.

    marked: blocks that either side has, or may have, changed; hints: they are known whole. It may be long since it was made.
    """
    if not journal.size:
        volume = volume_of(device)
        against = "LVM does not tell of it" if volume is None else lvm.thin_unfit(volume, marked, hints=hints)
        return None if against is None else f"the thin pool of snapshot {journal.target}: {against}"
    if journal.size >= lvm.full_snapshot(origin):
        return None
    if not hints:
        return f"how much the resync will overwrite nobody knows by now, and snapshot {journal.target} does not hold everything"
    left, needed = _left(journal), lvm.in_chunks(marked, lvm.CHUNK) + lvm.GIB
    if left is None:
        return f"LVM does not tell how full snapshot {journal.target} is"
    if left >= needed:
        return None
    return f"snapshot {journal.target} has {format_size(left)} left, and what the resync will overwrite needs {format_size(needed)} by now"


def outlook(journal: Journal, origin: int) -> str:
    """How long it lasts from now on, and what it costs: sentences."""
    remove = f"'lvremove {journal.target}'"
    if not journal.size:
        return (
            "Its thin pool fills with each write to the storage, and when full stops every volume in it: take what you need from "
            f"the snapshot, then {remove}."
        )
    if journal.size >= lvm.full_snapshot(origin):
        return f"It slows each write to the storage here: take what you need from it, then {remove}."
    left = _left(journal)
    room = "its room" if left is None else format_size(left)
    return (
        f"IT IS LOST once {room} more has been written to the storage: take what you need from it now, then {remove}."
    )


def _left(journal: Journal) -> int | None:
    """Bytes of a plain one's own room."""
    answer = _lvs(lvm.ask_snapshot(journal.target))
    filled = lvm.filled(answer) if answer else None
    return None if filled is None else int(journal.size * (100 - filled) / 100)


def make(journal: Journal, device: str) -> None:
    """Make it, unless a try before a crash did. Raises SplitRefused, SplitStepFailed, CommandFailed, CommandTimeout."""
    if is_there(journal.target):
        return
    volume = volume_of(device)
    if volume is None:
        raise _failed(journal, f"{device} is no logical volume any more")
    if volume.pool and (against := lvm.thin_unfit(volume, (), hints=True)) is not None:
        raise _failed(journal, f"thin pool '{volume.group}/{volume.pool}': {against}")
    if not volume.pool and volume.group_free < journal.size:
        earlier = f" What earlier tries made can be removed if you do not need it: {', '.join(journal.given_up)}."
        raise SplitRefused(
            storage=journal.storage,
            cause=f"volume group '{volume.group}' has {format_size(volume.group_free)} free, and the snapshot takes {format_size(journal.size)}",
            remedy=f"Make room there.{earlier if journal.given_up else ''} Then run 'pvedrbdstor split-brain resolve "
            f"{journal.storage}' again; or begin anew and preserve it elsewhere: '--start-over --preserve-to DIR'",
        )
    command.run(lvm.create(volume, journal.target.partition("/")[2], journal.size), timeout=_SECONDS)


def differs(target: str, device: str, size: int, progress: copies.Progress) -> str | None:
    """In what it is not the first ``size`` bytes of the lower device, in words. Raises CommandFailed, CommandTimeout, OSError."""
    if not is_there(target):
        return f"{target} is not there, or not whole"
    place = f"{DEVICES}/{target}"
    if not os.path.exists(place):
        command.run(lvm.activate(target), timeout=_SECONDS)
    at = copies.first_difference(place, device, size, progress)
    return None if at is None else f"{device} has other data than {target}, from byte {at} on"


def _lvs(line: list[str]) -> str | None:
    """What lvs prints, nothing for what it does not know; None where it does not answer at all."""
    try:
        answer = command.run(line, timeout=_SECONDS, check=False)
    except (CommandFailed, CommandTimeout):
        return None
    return answer.stdout if answer.status == 0 else ""


def _failed(journal: Journal, detail: str) -> SplitStepFailed:
    return SplitStepFailed(storage=journal.storage, step=Step.SNAPSHOT.value, detail=detail)
