"""A progress bar for work that takes long, for someone who watches: on standard error, and only on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, suppress
from typing import Any

import click

from pvedrbdstor.sizes import format_size

PATIENCE = 1.0  # seconds before there is a bar at all
_STEP = 0.1  # seconds between two drawings
_SAMPLE = 2.0  # seconds that a rate is taken of


class Progress:
    """Draws what it is told of (bytes done, bytes in all); leaving the `with` block ends the bar's line."""

    def __init__(self, label: str, *, rate: bool = False) -> None:
        """rate: say how much is done each second as well."""
        self._label = label
        self._rate = rate
        self._started = time.monotonic()
        self._drawn = 0.0
        self._sample = (0, self._started)
        self._last_speed = 0.0
        self._bar: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._stack.close()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._started < PATIENCE or (now - self._drawn < _STEP and done < total) or not watched():
            return
        self._drawn = now
        if self._bar is None:
            bar: Any = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar = self._stack.enter_context(bar)
        self._bar.length = total
        if self._rate:
            self._bar.label = f"{self._label} {format_size(int(self._speed(done, now)))}/s".ljust(len(self._label) + 13)
        self._bar.update(done - self._bar.pos)

    def _speed(self, done: int, now: float) -> float:
        """Bytes a second, of the last ones more than of the first."""
        before, then = self._sample
        if now - then >= _SAMPLE:
            self._last_speed = (done - before) / (now - then)
            self._sample = (done, now)
        return self._last_speed or done / max(now - self._started, 0.001)


def watched() -> bool:
    """Whether someone looks at standard error."""
    return sys.stderr.isatty()
