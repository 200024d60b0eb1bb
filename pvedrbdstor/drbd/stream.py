"""The long-running `drbdsetup events2`: its lines as they come, and a new one with a growing pause when it ends."""

from __future__ import annotations

import logging
import os
import subprocess

from pvedrbdstor import command
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import CommandFailed

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_LASTED = 30.0
_CHUNK = 1 << 18
_LINE_LIMIT = 1 << 16


class Stream:
    """Times are seconds of one clock that never goes back; the caller passes them in."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started = 0.0
        self._pause = _FIRST_PAUSE
        self._next = 0.0

    @property
    def running(self) -> bool:
        return self._child is not None

    def fileno(self) -> int | None:
        if self._child is None or self._child.stdout is None:
            return None
        return self._child.stdout.fileno()

    def start(self, now: float) -> bool:
        """Start it, if it does not run and the pause since its last end is over; True when it was started."""
        if self._child is not None or now < self._next:
            return False
        self._rest, self._started = b"", now
        try:
            self._child = command.start(commands.events2_stream(statistics=True))
        except CommandFailed as error:
            log.error("%s", error)
            self._pause_from(now)
            return False
        fd = self.fileno()
        assert fd is not None
        os.set_blocking(fd, False)
        return True

    def lines(self, now: float) -> list[str] | None:
        """The whole lines that have come, each with its newline; None when it has ended, with what it was in."""
        fd = self.fileno()
        if fd is None:
            return None
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return []
        if not data:
            self.stop(now)
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_LIMIT:]
        return [line.decode(errors="replace") + "\n" for line in whole]

    def stop(self, now: float) -> None:
        """End it; start() brings a new one after a pause, which is longer each time one does not last."""
        if self._child is None:
            return
        child, self._child = self._child, None
        command.stop(child)
        if now - self._started >= _LASTED:
            self._pause = _FIRST_PAUSE
        self._pause_from(now)

    def _pause_from(self, now: float) -> None:
        self._next = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
