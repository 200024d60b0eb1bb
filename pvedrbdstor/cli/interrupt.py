"""Ctrl-C: the first asks the work to undo itself, the second ends it where it stands."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGINT
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, systemd or a shutdown, and a terminal or an ssh connection that has gone."""
_STOPPING = (
    b"\npvedrbdstor: stopping, and undoing what was begun. "
    b"Ctrl-C again ends it at once and leaves that to 'pvedrbdstor volume recover'.\n"
)


class Interrupt:
    """Within the `with` block Ctrl-C sets ``asked`` once, and says so; after that it raises KeyboardInterrupt as usual.

    signals: those that ask. Only Ctrl-C ends it at the second time: a shutdown sends SIGTERM and SIGHUP, one after the other. at_once: the first
    raises KeyboardInterrupt, whichever it is.
    """

    def __init__(
        self,
        said: bytes = _STOPPING,
        signals: Iterable[signal.Signals] = (signal.SIGINT,),
        *,
        at_once: bool = False,
    ) -> None:
        self.asked = False
        self.hurried = False
        """Whether it was not Ctrl-C that asked: what sends SIGTERM waits, and not for long."""
        self._said, self._signals, self._at_once = said, tuple(signals), at_once
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            if before is not None:
                signal.signal(number, before)

    def gone(self) -> bool:
        """For Call.gone: whether the caller no longer waits."""
        return self.asked

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.asked, self.hurried = True, number != signal.SIGINT
        if self._at_once:
            raise KeyboardInterrupt
        with suppress(OSError):  # the terminal may be gone
            os.write(2, self._said)  # not through sys.stderr: the signal may have come in the middle of a write to it
