"""A program that runs as long as the server does: started, watched, and started again with a growing pause."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence

from pvedrbdstor.service.loop import READ, Loop, Timer

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LASTED = 60.0


class Supervisor:
    """``argv``: the program; it shares our standard error, and ends when we end it or when it sees us gone."""

    def __init__(self, loop: Loop, argv: Sequence[str]) -> None:
        self._loop = loop
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._timer: Timer | None = None
        self._pause = _FIRST_PAUSE
        self._settled: Timer | None = None

    def start(self) -> None:
        """Start it; a failure is logged, and tried again."""
        self._timer = None
        try:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            log.error("'%s' cannot be started: %s", " ".join(self._argv), error)
            self._again()
            return
        self._loop.watch(self._pidfd, READ, lambda _: self._ended())
        self._settled = self._loop.after(_LASTED, self._has_lasted)

    def stop(self) -> None:
        """End it; whether it does, nobody waits for."""
        for timer in (self._timer, self._settled):
            if timer is not None:
                timer.cancel()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._forget()

    def close_inherited(self) -> None:
        """In a worker: it is none of its business."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        assert self._process is not None
        status = self._process.wait()
        log.error("'%s' has ended with status %d; it is started again", " ".join(self._argv), status)
        if self._settled is not None:
            self._settled.cancel()
        self._forget()
        self._again()

    def _forget(self) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd, self._process = -1, None

    def _again(self) -> None:
        self._timer = self._loop.after(self._pause, self.start)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _has_lasted(self) -> None:
        self._pause = _FIRST_PAUSE
