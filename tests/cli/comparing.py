"""Stands for the comparison behind `pvedrbdstor verify`, and for the other node, which is told of it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

from pvedrbdstor import command
from pvedrbdstor.verify.job import Asked, Watcher
from pvedrbdstor.verify.report import Outcome

_RUN = command.run
GIB = 1 << 30
CLEAN = Outcome("ha", "full", "a", "b", GIB, 65536, GIB, 1000.0, 8.0)
DIVERGED = replace(CLEAN, diverged=((2400000 // 4096 * 4096, 12288), (GIB - 4096, 4096)))


class Job:
    """Stands for the comparison: keeps what was asked, gives an outcome."""

    def __init__(self) -> None:
        self.outcome: Outcome | Exception = CLEAN
        self.interrupted = False
        self.asked: list[Asked] = []
        self.signals: list[signal.Signals] = []
        self.told: list[Outcome] = []
        self.lines: list[list[str]] = []
        self.away: Exception | None = None

    def run(self, config: object, asked: Asked, watcher: Watcher) -> tuple[Outcome, bool]:
        self.asked.append(asked)
        for number in self.signals:
            os.kill(os.getpid(), number)
            assert watcher.stop()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome, self.interrupted

    def ssh(self, line: list[str], **options: Any) -> command.Result:
        """To the other node, where it is told what was found equal."""
        if "--found-equal" not in line[-1]:
            return _RUN(line, **options)
        self.lines.append(line)
        if self.away is not None:
            raise self.away
        return command.Result(0, "", "")
