"""Take one step on this node: look whether it is done, whether it may be, write and run what the step has, look again.

The plan was made from what was seen minutes or days ago. So each step that could destroy something looks once more, right before it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvedrbdstor import command
from pvedrbdstor.errors import Error
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.setup import files, paths, states
from pvedrbdstor.setup.steps import Kind, NotNow, Step

SECONDS = {Kind.METADATA: 600.0, Kind.FILE_SYSTEM: 1800.0, Kind.ENTRY: 180.0, Kind.MOUNT: 180.0, Kind.CONNECT: 90.0}
"""How long a program of such a step may run; MINUTE for the others."""
MINUTE = 60.0
_NEVER_THERE = frozenset({Kind.VOLUME_GROUP, Kind.LOGICAL_VOLUME})
_LOCK_SECONDS = 30.0
_PAUSE = 0.2
_SETTLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """already: it was done before. said: what is worth telling. failure: why it could not be taken, in a sentence; None where it was.
    untouched: it was refused before it had changed anything."""

    already: bool = False
    said: str = ""
    failure: str | None = None
    untouched: bool = False


def carry_out(step: Step, again: bool) -> Outcome:
    """Take the step. again: it was begun before and did not end, so that half of it may be there. Never raises for what went wrong
    with the step itself."""
    try:
        with _alone() as lock:
            return _take(step, again, lock)
    except NotNow as refusal:
        return Outcome(failure=str(refusal))
    except Error as error:
        return Outcome(failure=error.message)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Outcome(failure=f"{where}{error.strerror or error}.")


def seconds(kind: Kind) -> float:
    """How long the step may take in all, with everything that is waited for."""
    return SECONDS.get(kind, MINUTE) + _LOCK_SECONDS + _SETTLE_SECONDS + MINUTE


def _take(step: Step, again: bool, lock: int) -> Outcome:
    # A file system may look done and be half: its superblock tells nothing of the rest.
    half = again and step.kind is Kind.FILE_SYSTEM
    # What is there before the step was begun is another's, however much it looks like ours.
    others = not again and step.kind in _NEVER_THERE
    if not half and not others and states.is_done(step):
        return Outcome(already=True)
    try:
        states.allow(step, again)
    except NotNow as refusal:
        return Outcome(failure=str(refusal), untouched=True)
    for file in step.files:
        files.write(file, step.about)
    reach(f"setup.files.{step.id}")
    if step.kind is Kind.STATUS:
        return Outcome(said=_verdict(step))
    for words in step.commands:
        command.run(words, timeout=SECONDS.get(step.kind, MINUTE), keep_fds=(lock,))
    reach(f"setup.ran.{step.id}")
    _settle(step)
    return Outcome()


def _settle(step: Step) -> None:
    """Wait until the step is seen to be done, which for most is at once."""
    deadline = time.monotonic() + (SECONDS[Kind.CONNECT] if step.kind is Kind.CONNECT else _SETTLE_SECONDS)
    while (why := states.missing(step)) is not None:
        if time.monotonic() > deadline:
            raise NotNow(why)
        time.sleep(_PAUSE)


def _verdict(step: Step) -> str:
    """What the storage is, once it is what it may be: for a moment after it has come up it need not be yet."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        said = command.run(step.commands[0], timeout=MINUTE, check=False).stdout
        kind, text = states.verdict(said)
        if kind in step.about["accepted"].split():
            return text
        if time.monotonic() > deadline:
            raise NotNow(f"the storage is {text}")
        time.sleep(1)


@contextmanager
def _alone() -> Iterator[int]:
    """One step at a time on this node. The lock is handed to the programs: one that outlives us, because we were killed, is waited
    for by the next step, which must not run beside it."""
    os.makedirs(os.path.dirname(paths.LOCK), exist_ok=True)
    fd = os.open(paths.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotNow(
                        "a step that was begun before still runs here. Wait for it: 'fuser -v "
                        + paths.LOCK
                        + "' shows its program."
                    ) from None
                time.sleep(_PAUSE)
        yield fd
    finally:
        os.close(fd)
