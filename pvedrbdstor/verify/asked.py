"""Where ranges of the device are, asked through a process of its own: a file system that hangs is told, not waited
for."""

from __future__ import annotations

import os
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
from pvedrbdstor.verify.guests import Guest, uses
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
    progress: Callable[[int], None] = lambda _: None,
    seconds: float = SILENT_SECONDS,
) -> Meaning:
    """As where() does, of the mounted storage. storages: all ids it is known by. progress: is told how many files and
    spots were looked at.

    Raises NotMounted, WrongMount, NotAnswering, SystemCallFailed, OSError.
    """
    helper = Helper(_Work(config, device, guests, storages).answer)
    try:
        answer = _answered(helper, config, {"ranges": list(ranges)}, seconds)
        while answer["meaning"] is None:
            progress(answer["steps"])
            answer = _answered(helper, config, None, seconds)
        return from_plain(answer["meaning"])
    finally:
        helper.close()


def _answered(helper: Helper, config: StorageConfig, question: object, seconds: float) -> Any:
    answer = helper.wait(seconds) if helper.ask(question) else None
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

    def __init__(
        self, config: StorageConfig, device: str, guests: Mapping[int, Guest] | None, storages: Sequence[str]
    ) -> None:
        self._config = config
        self._device = device
        self._guests = guests
        self._used = uses(storages)
        self._steps: Generator[None, None, Meaning] | None = None
        self._count = 0

    def answer(self, question: Mapping[str, Any] | None) -> dict[str, object]:
        try:
            if question is not None:
                self._begin([(int(start), int(length)) for start, length in question["ranges"]])
            return self._go_on()
        except Error as error:
            return {"raised": [error.kind, error.fields]}
        except OSError as error:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
            return {"system": [error.errno, error.strerror, name]}

    def _begin(self, ranges: Sequence[Range]) -> None:
        root = open_mirror(self._config).root_fd
        images_dir = self._config.images_dir
        self._steps = looking(ranges, root, self._device, images_dir=images_dir, guests=self._guests, used=self._used)

    def _go_on(self) -> dict[str, object]:
        """meaning: None until all is looked at."""
        assert self._steps is not None
        end = time.monotonic() + _TURN_SECONDS
        try:
            next(self._steps)
            self._count += 1
            while time.monotonic() < end:
                next(self._steps)
                self._count += 1
        except StopIteration as done:
            return {"steps": self._count, "meaning": asdict(done.value)}
        return {"steps": self._count, "meaning": None}
