"""A process of its own for what may hang: asked by one JSON line, answers by one, one question at a time.

Whoever asks never waits longer than it wants to. A helper that hangs in the kernel is not replaced while it hangs: it
still answers when the kernel lets it go, and no second one piles up beside it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Helper:
    """``work``: question -> answer, both JSON values; called in the helper's process, started with the first question.

    An answer {"error": TEXT} stands for work that failed. ``clock``: seconds, never going back.
    """

    def __init__(self, work: Callable[[Any], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._socket: socket.socket | None = None
        self._pid = 0
        self._buffer = bytearray()
        self._asked_at: float | None = None

    @property
    def busy(self) -> float | None:
        """For how many seconds the question has been open; None when there is none."""
        return None if self._asked_at is None else self._clock() - self._asked_at

    def fileno(self) -> int | None:
        """Readable when answer() is worth a call; None before the first question."""
        return None if self._socket is None else self._socket.fileno()

    def ask(self, question: object = None) -> bool:
        """Put a question; False while another one is open, or where no process can be started."""
        if self._asked_at is not None:
            return False
        try:
            if self._socket is None:
                self._start()
            assert self._socket is not None
            self._socket.sendall(json.dumps(question).encode() + b"\n")
        except OSError as error:
            log.warning("No helper process: %s", error)
            self.close()
            return False
        self._asked_at = self._clock()
        return True

    def answer(self) -> Any:
        """The answer, when it has come; None before, and when the helper has ended: then ask again."""
        if self._socket is None:
            return None
        try:
            data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
            return None
        self._buffer += data
        if not self._buffer.endswith(b"\n"):
            return None
        answer = json.loads(self._buffer)
        self._buffer.clear()
        self._asked_at = None
        return answer

    def wait(self, seconds: float) -> Any:
        """The answer to the open question, None when it does not come within ``seconds``."""
        deadline = self._clock() + seconds
        while self._asked_at is not None and self._socket is not None:
            left = deadline - self._clock()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return None
            if (answer := self.answer()) is not None:
                return answer
        return None

    def close(self) -> None:
        """Let the process end: at once, or when what it hangs in lets it go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer.clear()
        self._asked_at = None
        if self._pid:
            _endings.append(self._pid)
            self._pid = 0
        reap()

    def _start(self) -> None:
        reap()
        ours, theirs = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                _become_helper(theirs, self._work)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._socket, self._pid = ours, pid


_endings: list[int] = []


def reap() -> None:
    """Collect the helpers that were let go and have ended."""
    for pid in list(_endings):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                _endings.remove(pid)
        except ChildProcessError:
            _endings.remove(pid)


def _become_helper(channel: socket.socket, work: Callable[[Any], object]) -> None:
    """In the new process: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        _keep_only(channel.fileno())
        with channel.makefile("rb") as questions:
            for line in questions:
                channel.sendall(json.dumps(_answer(work, json.loads(line))).encode() + b"\n")
    except BaseException as error:
        if not isinstance(error, OSError):
            log.exception("A helper process failed")
    finally:
        os._exit(0)


def _keep_only(fd: int) -> None:
    """Other helpers must see the end of their channel when our parent closes it."""
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))


def _answer(work: Callable[[Any], object], question: object) -> object:
    try:
        return work(question)
    except Exception as error:
        return {"error": str(error) or type(error).__name__}
