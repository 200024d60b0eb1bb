"""The job: a process of its own that brings one storage up, whoever asked for it and however long they wait."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpRefused, Error
from pvedrbdstor.mirror.bringup import gather, lock, paths, record
from pvedrbdstor.mirror.bringup.facts import Options
from pvedrbdstor.mirror.bringup.loop import bring_up
from pvedrbdstor.mirror.bringup.record import Record, boot_clock

log = logging.getLogger(__name__)

_REQUEST_AGE = 60.0
"""Seconds after which a request that no job took is forgotten: storage.cfg may have changed."""
_OTHER_JOB_SECONDS = 5.0
"""Those who wait for a job look at the lock by taking it for a moment; a job holds it for longer than this."""


@dataclass(frozen=True)
class Request:
    """What a job is to do: the storage as the caller has it (which may not be in storage.cfg yet), and how."""

    config: StorageConfig
    options: Options


def leave(request: Request) -> None:
    """Write a request for the next job, the storage's lock held; what was asked for before stays asked for. Raises OSError."""
    options, asked = request.options, boot_clock()
    before = _left(request.config.id)
    if before is not None:
        options, asked = options | before[0].options, before[1]
    document = {"config": asdict(request.config), "options": asdict(options), "time": asked}
    record.write_json(paths.request(request.config.id), document)


def take_request(storage: str) -> Request | None:
    """The request somebody left, which is then gone; None without one, or with an old one."""
    found = _left(storage)
    with suppress(FileNotFoundError):
        os.unlink(paths.request(storage))
    return None if found is None else found[0]


def _left(storage: str) -> tuple[Request, float] | None:
    """A request that waits for a job, and when it was first left."""
    data = record.read_json(paths.request(storage))
    if data is None:
        return None
    try:
        asked = float(str(data["time"]))
        if boot_clock() - asked > _REQUEST_AGE:
            return None
        options = data["options"]
        assert isinstance(options, dict)
        return Request(StorageConfig.from_wire(data["config"]), Options(**options)), asked
    except (KeyError, TypeError, ValueError, AssertionError, Error):
        return None


def is_running(storage: str) -> bool:
    """Whether a job works on the storage now."""
    held = lock.take(storage)
    if held is not None:
        os.close(held)
    return held is None


def run(
    storage: str,
    configured: Callable[[], StorageConfig],
    options: Options,
    lock_fd: int | None = None,
    work: Callable[[StorageConfig, Options, Callable[[str], None]], None] = bring_up,
) -> Record | None:
    """Bring the storage up, unless another job does: then None.

    A request that was left comes before ``configured()`` and ``options``. How it ends is in the record, and in what is
    returned. lock_fd: the storage's lock, where whoever started this process held it already. Raises OSError.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a worker of the service, which may have started us, ignores them
    held = lock.adopt(storage, lock_fd) if lock_fd is not None else lock.take(storage, _OTHER_JOB_SECONDS)
    if held is None:
        log.info("Storage '%s' is already being brought up", storage)
        return None
    try:
        return _work(storage, configured, options, work)
    finally:
        os.close(held)


def _work(
    storage: str,
    configured: Callable[[], StorageConfig],
    options: Options,
    work: Callable[[StorageConfig, Options, Callable[[str], None]], None],
) -> Record:
    began = boot_clock()
    before = record.read(storage)
    again = before is not None and before.refused
    current = Record(storage, os.getpid(), began, "starting", began)
    record.write(current)
    config: StorageConfig | None = None

    def report(step: str) -> None:
        nonlocal current
        # pvestatd asks again and again for a storage that is refused: the steps to the same refusal are no news.
        log.log(logging.DEBUG if again else logging.INFO, "Storage '%s': %s", storage, step)
        current = replace(current, step=step, since=boot_clock())
        record.write(current)

    error = None
    try:
        request = take_request(storage)
        config = request.config if request is not None else configured()
        options = request.options if request is not None else options
        current = replace(current, by_hand=options.by_hand, without_peer=options.without_peer)
        work(config, options, report)
        log.info("Storage '%s' is up after %.1f s", storage, boot_clock() - began)
    except Error as failure:
        error = record.describe(failure, storage)
        level = logging.WARNING if isinstance(failure, BringUpRefused) else logging.ERROR
        log.log(logging.DEBUG if again and before is not None and before.error == error else level, "%s", failure)
    except Exception as failure:
        log.exception("Bringing up storage '%s' failed", storage)
        error = record.describe(failure, storage)
    seen = gather.fingerprint(config) if error is not None and config is not None else ""
    current = replace(current, finished=boot_clock(), error=error, seen=seen)
    record.write(current)
    return current
