"""The priority of the calling thread's reads and writes."""

from __future__ import annotations

from typing import NamedTuple

from pvedrbdstor.native.extension import call, extension

# linux/ioprio.h
IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE = range(4)
_CLASS_SHIFT = 13


class IoPriority(NamedTuple):
    """As ioprio_set(2) has it: a class, and a level from 0, the highest, to 7. Without a class it follows from the nice value."""

    group: int
    level: int


def io_priority() -> IoPriority:
    """That of the calling thread."""
    found = call(extension().lib.sys_ioprio_get, "")
    return IoPriority(found >> _CLASS_SHIFT, found & 7)


def set_io_priority(priority: IoPriority) -> None:
    """For the calling thread, and for threads and processes that it makes from now on."""
    call(extension().lib.sys_ioprio_set, "", priority.group << _CLASS_SHIFT | priority.level)
