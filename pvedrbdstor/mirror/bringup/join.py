"""Whoever needs the storage: start the job unless one runs, and wait for it as long as the caller does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pvedrbdstor import command
from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, Error, StillComingUp
from pvedrbdstor.mirror.bringup import gather, job, lock, mounting, paths, plan, record
from pvedrbdstor.mirror.bringup.facts import Options
from pvedrbdstor.mirror.bringup.record import Record, boot_clock

REFUSAL_SECONDS = 10.0
"""For so long a refusal is the answer for everyone, unless DRBD's state or the configuration changes."""
UNIT = "pvedrbdstor-bringup@{}.service"
PROGRAM = "/usr/bin/pvedrbdstor"
_START_SECONDS = 30.0
_LOOK = 0.1

Start = Callable[[str, int], None]


def ensure_up(config: StorageConfig, call: Call) -> None:
    """Return when the job has brought the storage up. Answers a little before the call's deadline.

    Raises StillComingUp, how the job ended (BringUpRefused, BringUpFailed), and what Call.check() does.
    """
    for path, why in ((paths.resolution(config.id), plan.resolving), (paths.hold(config.id), plan.held_down)):
        if os.path.exists(path):
            held = why(config)
            raise BringUpRefused(storage=config.id, cause=held.cause, remedy=held.remedy)
    last = record.read(config.id)
    if last is not None and _remembered(last, config):
        last.raise_error()
    margin = max(0.3, min(1.0, call.timeout / 10))

    def watch(current: Record | None) -> None:
        call.check()
        if call.seconds_left() <= margin:
            raise _still(config, current, call)

    join(config, Options(), watch).raise_error()


def join(
    config: StorageConfig, options: Options, watch: Callable[[Record | None], None], start: Start | None = None
) -> Record:
    """Have a job bring the storage up and return its record when it has ended.

    A job that runs already is joined; one that was not asked as much as ``options`` do is waited for, then a new one begun. ``watch`` is called with
    the present record several times a second and may raise to stop waiting; the job goes on. Raises BringUpFailed when
    no job can be started.
    """
    begun = boot_clock()
    started: float | None = None
    while True:
        held = lock.take(config.id)
        current = record.read(config.id)
        if held is not None:
            try:
                if current is not None and _tells(current, begun, options):
                    return current
                if started is not None and current is not None and (current.finished or 0.0) >= started:
                    started = None  # it was begun for somebody who asked for less
                if started is None:
                    started = boot_clock()  # before: it may have ended when this process runs again
                    _begin(config, options, held, start or _start)
                elif boot_clock() - started > _START_SECONDS:
                    raise BringUpFailed(storage=config.id, step="starting the job", detail=_why_not_started(config))
            finally:
                os.close(held)
        watch(current if held is None else None)
        time.sleep(_LOOK)


def _tells(current: Record, begun: float, options: Options) -> bool:
    """Whether a job has ended since we came, or was cut off (its process ended without a word)."""
    if (options.without_peer and not current.without_peer) or (options.by_hand and not current.by_hand):
        return False
    return current.finished is not None and current.finished >= begun


def _remembered(last: Record, config: StorageConfig) -> bool:
    if not last.refused or last.finished is None or boot_clock() - last.finished > REFUSAL_SECONDS:
        return False
    return gather.fingerprint(config) == last.seen


def _still(config: StorageConfig, current: Record | None, call: Call) -> StillComingUp:
    step = current.step if current is not None else "starting"
    seconds = boot_clock() - current.started if current is not None else call.timeout - call.seconds_left()
    return StillComingUp(storage=config.id, step=step, seconds=round(seconds))


def _begin(config: StorageConfig, options: Options, held: int, start: Start) -> None:
    try:
        job.leave(job.Request(config, options))
        start(config.id, held)
    except OSError as error:
        detail = f"{error.filename or paths.FOLDER}: {error.strerror}"
        raise BringUpFailed(storage=config.id, step="starting the job", detail=detail) from error
    except Error as error:
        raise BringUpFailed(storage=config.id, step="starting the job", detail=error.message.rstrip(".")) from error


def _start(storage: str, held: int) -> None:
    """By systemd where it is PID 1; else as a process on its own, which gets the lock with its life."""
    if os.path.isdir(mounting.SYSTEMD):
        command.run(["systemctl", "start", "--no-block", UNIT.format(storage)], timeout=_START_SECONDS)
        return
    line = [PROGRAM, "mirror", "up", storage, "--job", "--lock-fd", str(held)]
    command.spawn(line, keep_fds=(held,), output=paths.log(storage))


def _why_not_started(config: StorageConfig) -> str:
    if os.path.isdir(mounting.SYSTEMD):
        unit = UNIT.format(config.id)
        return f"{unit} did not begin to work, or ended without a word; look at 'systemctl status {unit}'"
    return f"'{PROGRAM}' did not begin to work, or ended without a word; look at {paths.log(config.id)}"
