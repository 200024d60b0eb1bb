"""Ctrl-C: the first asks the work to undo itself, the second ends it where it stands."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGINT
_STOPPING = (
    b"\npvedrbdstor: stopping, and undoing what was begun. "
    b"Ctrl-C again ends it at once and leaves that to 'pvedrbdstor volume recover'.\n"
)


class Interrupt:
    """Within the `with` block Ctrl-C sets ``asked`` once, and says so; after that it raises KeyboardInterrupt as usual."""

    def __init__(self, said: bytes = _STOPPING) -> None:
        self.asked = False
        self._said = said
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def gone(self) -> bool:
        """For Call.gone: whether the caller no longer waits."""
        return self.asked

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, self._said)  # not through sys.stderr: the signal may have come in the middle of a write to it
