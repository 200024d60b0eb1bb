"""With which priority the comparison reads: the other node's process takes that of the one that leads, and never a higher one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from pvedrbdstor import native
from pvedrbdstor.native import IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE, IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IoPriority
from pvedrbdstor.verify import values

_MODEST = (os.SCHED_BATCH, os.SCHED_IDLE)
_NICE_MAX, _LEVEL_MAX = 19, 7


@dataclass(frozen=True, slots=True)
class Priority:
    """nice: from 0 to 19; what is below 0 counts as 0. policy: of sched_setscheduler(2). io_class, io_level: of ioprio_set(2)."""

    nice: int = 0
    policy: int = os.SCHED_OTHER
    io_class: int = IOPRIO_CLASS_NONE
    io_level: int = 0


def own() -> Priority:
    """That of the calling thread. Raises OSError."""
    found = native.io_priority()
    return Priority(max(0, os.getpriority(os.PRIO_PROCESS, 0)), os.sched_getscheduler(0), found.group, found.level)


def take(wanted: Priority) -> None:
    """For the calling thread, and for threads that it makes. What the kernel refuses is left: it is a courtesy to the guests."""
    with suppress(OSError):
        lower = lowered(own(), wanted)
        os.setpriority(os.PRIO_PROCESS, 0, lower.nice)
        native.set_io_priority(IoPriority(lower.io_class, lower.io_level))
        os.sched_setscheduler(0, lower.policy, os.sched_param(0))


def lowered(mine: Priority, wanted: Priority) -> Priority:
    """The lower one in each respect: nobody gets ahead of others by leading."""
    by_io = max((mine, wanted), key=_io_rank)
    return Priority(
        max(mine.nice, wanted.nice),
        wanted.policy if wanted.policy in _MODEST and mine.policy != os.SCHED_IDLE else mine.policy,
        by_io.io_class,
        by_io.io_level,
    )


def _io_rank(priority: Priority) -> tuple[int, int]:
    """The greater, the later it is served. Without a class the kernel takes the middle one, by the nice value (task_nice_ioprio())."""
    if priority.io_class == IOPRIO_CLASS_NONE:
        return IOPRIO_CLASS_BE, (priority.nice + 20) // 5
    return priority.io_class, priority.io_level if priority.io_class != IOPRIO_CLASS_IDLE else 0


def as_json(priority: Priority) -> dict[str, object]:
    return asdict(priority)


def from_json(data: Mapping[str, object]) -> Priority:
    """Raises ValueError."""
    found = values.read(Priority, data)
    known = (IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE)
    if found.nice > _NICE_MAX or found.io_class not in known or found.io_level > _LEVEL_MAX:
        raise ValueError(f"{found} is no priority")
    return found
