"""What the mounted file system knows, asked through a process of its own: a file system that hangs is told, not waited
for. On OCFS2 a look at a file or at the free space waits for the cluster's lock, and that no signal ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pvedrbdstor import errors
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import Error, NotAnswering, SystemCallFailed
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.mount import open_mirror
from pvedrbdstor.verify.allocation import Places, finding_one_byte_of_each, finding_what_is_in_use
from pvedrbdstor.verify.guests import Guest, direct_disks, uses
from pvedrbdstor.verify.meaning import Meaning, from_plain
from pvedrbdstor.verify.where import looking

SILENT_SECONDS = 30.0
"""After so long within one file the file system is said to hang: FIEMAP of one that the other node writes waits for
its lock."""
_TURN_SECONDS = 1.0


def ask(
    config: StorageConfig,
    ranges: Sequence[Range],
    device: str,
    *,
    guests: Mapping[int, Guest] | None,
    storages: Sequence[str] = (),
    modified: Sequence[Range] = (),
    progress: Callable[[int], None] = lambda _: None,
    seconds: float = SILENT_SECONDS,
) -> Meaning:
    """As where() does, of the mounted storage. storages: all ids it is known by. modified: as there. progress: is told how many files and
    spots were looked at.

    Raises NotMounted, WrongMount, NotAnswering, SystemCallFailed, OSError.
    """

    def looks() -> Generator[None, None, dict[str, object]]:
        root, used = open_mirror(config).root_fd, uses(storages)
        images_dir = config.images_dir
        found = yield from looking(
            ranges,
            root,
            device,
            images_dir=images_dir,
            guests=guests,
            used=used,
            modified=modified,
            direct=direct_disks(storages, config.path),
        )
        return asdict(found)

    return from_plain(_asked(config, looks, seconds, progress))


def in_use(config: StorageConfig, device: str, seconds: float = SILENT_SECONDS) -> tuple[Range, ...]:
    """As allocation.finding_what_is_in_use(). Raises what that does, NotAnswering, SystemCallFailed."""
    found = _asked(config, lambda: finding_what_is_in_use(config, device), seconds)
    return tuple((start, length) for start, length in found)


def one_byte_of_each(config: StorageConfig, dice: random.Random, seconds: float = SILENT_SECONDS) -> Places:
    """As allocation.finding_one_byte_of_each(). Raises what that does, NotAnswering, SystemCallFailed."""
    at, failed = _asked(config, lambda: finding_one_byte_of_each(config, dice), seconds)
    return Places(tuple(at), failed)


_Steps = Callable[[], Generator[None, None, object]]


def _asked(
    config: StorageConfig, looks: _Steps, seconds: float, progress: Callable[[int], None] = lambda _: None
) -> Any:
    """What the steps return, as JSON gives it back. The helper is forked, and so has what they need."""
    helper = Helper(_Work(looks).answer)
    try:
        while not (answer := _answered(helper, config, seconds))["done"]:
            progress(answer["steps"])
        return answer["value"]
    finally:
        helper.close()


def _answered(helper: Helper, config: StorageConfig, seconds: float) -> Any:
    answer = helper.wait(seconds) if helper.ask() else None
    if answer is None and helper.busy is not None:
        raise NotAnswering(storage=config.id, path=config.path, seconds=round(seconds))
    if answer is None or "error" in answer:
        reason = answer["error"] if answer is not None else "the process that asked it has ended"
        remedy = "Look at 'dmesg', and try again"
        raise SystemCallFailed(operation="Reading", path=config.path, reason=reason, remedy=remedy)
    if "raised" in answer:
        kind, fields = answer["raised"]
        raise getattr(errors, kind)(**fields)
    if "system" in answer:
        raise OSError(*answer["system"])
    return answer


class _Work:
    """In the helper's process."""

    def __init__(self, looks: _Steps) -> None:
        self._looks = looks
        self._steps: Generator[None, None, object] | None = None
        self._count = 0

    def answer(self, _: object) -> dict[str, object]:
        try:
            if self._steps is None:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks to understand
                self._steps = self._looks()
            return self._go_on(self._steps)
        except Error as error:
            return {"raised": [error.kind, error.fields]}
        except OSError as error:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
            return {"system": [error.errno, error.strerror, name]}

    def _go_on(self, steps: Generator[None, None, object]) -> dict[str, object]:
        """Until they are done, or for a turn."""
        end = time.monotonic() + _TURN_SECONDS
        try:
            next(steps)
            self._count += 1
            while time.monotonic() < end:
                next(steps)
                self._count += 1
        except StopIteration as stop:
            return {"steps": self._count, "done": True, "value": stop.value}
        return {"steps": self._count, "done": False}
