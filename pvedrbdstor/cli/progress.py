"""A progress bar for work that takes long, for someone who watches: on standard error, and only on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

import click

PATIENCE = 1.0  # seconds before there is a bar at all
_STEP = 0.1  # seconds between two drawings


class Progress:
    """Draws what it is told of (bytes done, bytes in all); leaving the `with` block ends the bar's line."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._drawn = 0.0
        self._bar: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
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
        self._bar.update(done - self._bar.pos)


def watched() -> bool:
    """Whether someone looks at standard error."""
    return sys.stderr.isatty()
