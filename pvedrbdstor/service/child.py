"""A worker process as the server sees it: begun by fork(), spoken to over a socket pair, its end told by its pidfd."""

from __future__ import annotations

import enum
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.service import channel, worker
from pvedrbdstor.service.job import Job

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class State(enum.Enum):
    IDLE = enum.auto()
    BUSY = enum.auto()
    CLEARING = enum.auto()  # has answered, is still busy with what could wait
    HUNG = enum.auto()  # did not answer in time; is told to end, and counts until it has
    ENDING = enum.auto()


@dataclass(eq=False)
class Child:
    """One worker process, what it does, and what is on its way to and from it."""

    pid: int
    pidfd: int
    control: socket.socket
    state: State = State.IDLE
    job: Job | None = None
    calls: int = 0
    reader: channel.FrameReader = field(default_factory=channel.FrameReader)
    unsent: bytearray = field(default_factory=bytearray)

    @property
    def storage(self) -> str | None:
        return self.job.request.storage if self.job is not None else None

    def close(self) -> None:
        self.control.close()
        os.close(self.pidfd)

    def reap(self) -> str:
        """Collect the process, which has ended; how it did."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def spawn(run: Callable[[socket.socket], None]) -> Child:
    """Start a worker process, in which ``run`` is called with its end of the control socket.

    Raises OSError where that cannot be (too many processes, descriptors, no memory); then nothing is left of it.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = _fork(ours, theirs, run)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # it has not been given any work yet
            os.waitpid(pid, 0)
            raise
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return Child(pid, pidfd, ours)


def _fork(ours: socket.socket, theirs: socket.socket, run: Callable[[socket.socket], None]) -> int:
    # A signal that reaches the child before it has set up its own handling would wake the server, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(ours, theirs, run)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _become_worker(ours: socket.socket, theirs: socket.socket, run: Callable[[socket.socket], None]) -> None:
    """In the new process: never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        ours.close()
        worker.ignore_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        run(theirs)
        status = 0
    except BaseException:
        log.exception("A worker process failed")
    finally:
        os._exit(status)
