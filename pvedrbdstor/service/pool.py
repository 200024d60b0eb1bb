"""Which worker does which call, and when none does: the server's side of the worker processes."""

from __future__ import annotations

import enum
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.errors import InternalError, TooBusy
from pvedrbdstor.service import channel, worker
from pvedrbdstor.service.job import Job
from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.loop import HANGUP, READ, WRITE, Loop
from pvedrbdstor.service.protocol import SupportsDispatch
from pvedrbdstor.service.queue import Queue

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _State(enum.Enum):
    IDLE = enum.auto()
    BUSY = enum.auto()
    CLEARING = enum.auto()  # has answered, is still busy with what could wait
    HUNG = enum.auto()  # did not answer in time; is told to end, and counts until it has
    ENDING = enum.auto()


@dataclass(eq=False)
class _Worker:
    """A worker process as the server sees it."""

    pid: int
    pidfd: int
    control: socket.socket
    state: _State = _State.IDLE
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


class Pool:
    """The workers, and the jobs that wait for one.

    close_inherited: called in each new worker, to close what the server has open.
    """

    def __init__(
        self, loop: Loop, dispatcher: SupportsDispatch, limits: Limits, close_inherited: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._dispatcher = dispatcher
        self._limits = limits
        self._close_inherited = close_inherited
        self._workers: list[_Worker] = []
        self._queue = Queue(limits)
        self._ending = False
        self._when_drained: Callable[[], None] | None = None

    # --- what the server asks for ---

    def start(self) -> None:
        """Fork the first workers."""
        self._refill()

    def submit(self, job: Job) -> None:
        """Have ``job`` done: now, or when a worker is free. It is answered by its deadline in any case."""
        storage = job.request.storage
        hung = self._hung(storage)
        waiting = self._queue.waiting_with(job)
        if hung >= self._limits.storage_hung:
            job.fail(TooBusy(count=hung, storage=storage))
        elif waiting >= self._limits.waiting:
            job.fail(TooBusy(count=waiting, storage=storage))
        else:
            job.deadline = self._loop.at(job.came + job.request.timeout, lambda: self._deadline_passed(job))
            self._queue.add(job)
            self._start_waiting()

    def caller_gone(self, job: Job) -> None:
        """Nobody waits for ``job`` any more: forget it, or tell the worker that has it."""
        job.answered = True
        one = self._worker_of(job)
        if one is None:
            self._forget(job)
        elif one.state is _State.BUSY:
            self._send(one, channel.frame(channel.GONE))

    def drain(self, when_drained: Callable[[], None]) -> None:
        """Start no more workers than the jobs already here need; call ``when_drained`` when only hung ones are left."""
        self._ending = True
        self._when_drained = when_drained
        for one in self._workers:
            if one.state is _State.IDLE:
                self._end(one)
        self._check_drained()

    def close(self) -> None:
        """Close what this object has open. Workers still alive end by themselves."""
        for one in self._workers:
            one.close()

    # --- jobs ---

    def _start_waiting(self) -> None:
        """Give free workers to waiting jobs, as long as there are both."""
        while (job := self._queue.next(self._jobs(_State.BUSY), self._jobs(_State.HUNG))) is not None:
            free = self._free_worker()
            if free is None:
                return
            self._queue.remove(job)
            self._assign(free, job)

    def _jobs(self, state: _State) -> list[Job]:
        return [one.job for one in self._workers if one.state is state and one.job is not None]

    def _worker_of(self, job: Job) -> _Worker | None:
        return next((one for one in self._workers if one.job is job), None)

    def _hung(self, storage: str) -> int:
        return sum(one.state is _State.HUNG and one.storage == storage for one in self._workers)

    def _assign(self, one: _Worker, job: Job) -> None:
        one.state, one.job, one.calls = _State.BUSY, job, one.calls + 1
        self._send(one, channel.request_frame(job.came, job.line))

    def _deadline_passed(self, job: Job) -> None:
        if not job.answered:
            log.warning(
                "%s on storage '%s' did not finish within %g s",
                job.request.method,
                job.request.storage,
                job.request.timeout,
            )
        job.give_up()
        one = self._worker_of(job)
        if one is None:
            self._forget(job)
        elif one.state is _State.BUSY:
            one.state = _State.HUNG
            self._tell_to_end(one)
            self._refuse_waiting(job.request.storage)
            self._refill()
            self._start_waiting()
            self._check_drained()

    def _refuse_waiting(self, storage: str) -> None:
        """A storage on which too many calls hang does not keep others waiting."""
        hung = self._hung(storage)
        if hung >= self._limits.storage_hung:
            for job in self._queue.take_all(storage):
                job.settle()
                job.fail(TooBusy(count=hung, storage=storage))

    def _forget(self, job: Job) -> None:
        job.settle()
        self._queue.remove(job)
        self._check_drained()

    # --- workers ---

    def _free_worker(self) -> _Worker | None:
        for one in self._workers:
            if one.state is _State.IDLE:
                return one
        if len(self._workers) >= self._limits.processes:
            return None
        return self._fork()

    def _refill(self) -> None:
        missing = self._limits.idle_workers - sum(
            one.state in (_State.IDLE, _State.BUSY, _State.CLEARING) for one in self._workers
        )
        for _ in range(0 if self._ending else missing):
            if len(self._workers) < self._limits.processes:
                self._fork()

    def _fork(self) -> _Worker | None:
        ours, theirs = socket.socketpair()
        # A signal that reaches the child before it has set up its own handling would wake the server, too.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become_worker(theirs)
        except OSError as error:
            log.error("No worker process can be started: %s", error)
            ours.close()
            self._loop.after(1, self._start_waiting)
            return None
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        ours.setblocking(False)
        new = _Worker(pid, os.pidfd_open(pid), ours)
        self._workers.append(new)
        self._loop.watch(ours.fileno(), READ, lambda events: self._worker_ready(new, events))
        self._loop.watch(new.pidfd, READ, lambda _: self._worker_ended(new))
        return new

    def _become_worker(self, control: socket.socket) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            self._close_inherited()
            worker.ignore_signals()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            worker.run(control, self._dispatcher)
            status = 0
        except BaseException:
            log.exception("A worker process failed")
        finally:
            os._exit(status)

    def _send(self, one: _Worker, data: bytes) -> None:
        one.unsent += data
        self._flush(one)

    def _flush(self, one: _Worker) -> None:
        try:
            sent = one.control.send(one.unsent)
            del one.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            one.unsent.clear()  # it has just died: its pidfd says so, too
        self._watch(one)

    def _watch(self, one: _Worker) -> None:
        events = READ | (WRITE if one.unsent else 0)
        self._loop.watch(one.control.fileno(), events, lambda events: self._worker_ready(one, events))

    def _worker_ready(self, one: _Worker, events: int) -> None:
        if events & WRITE:
            self._flush(one)
        if events & ~WRITE and not self._receive(one) and events & HANGUP:
            self._loop.unwatch(one.control.fileno())  # its pidfd tells of its end

    def _receive(self, one: _Worker) -> bool:
        """Take what the worker has sent. False when there is nothing (more)."""
        try:
            data = one.control.recv(_CHUNK)
        except OSError:
            return False
        if one.state is not _State.HUNG:  # from that one, whatever comes comes too late
            one.reader.feed(data)
        for kind, payload in one.reader.frames():
            if kind == channel.ANSWER:
                self._answered(one, payload)
            elif kind == channel.IDLE:
                self._now_idle(one)
        return bool(data)

    def _answered(self, one: _Worker, response: bytes) -> None:
        assert one.job is not None
        one.state = _State.CLEARING
        one.job.settle()
        one.job.reply(response)

    def _now_idle(self, one: _Worker) -> None:
        one.state, one.job = _State.IDLE, None
        idle = sum(other.state is _State.IDLE for other in self._workers)
        if one.calls >= self._limits.recycle:
            self._end(one)
            self._refill()
        self._start_waiting()
        if one.state is _State.IDLE and (self._ending or idle > self._limits.max_idle_workers):
            self._end(one)
        self._check_drained()

    def _end(self, one: _Worker) -> None:
        one.state = _State.ENDING
        self._tell_to_end(one)

    def _tell_to_end(self, one: _Worker) -> None:
        one.unsent.clear()
        try:
            one.control.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has just died
        self._watch(one)

    def _worker_ended(self, one: _Worker) -> None:
        while self._receive(one):  # an answer may have come just before the end
            pass
        self._loop.unwatch(one.control.fileno())
        self._loop.unwatch(one.pidfd)
        _, status = os.waitpid(one.pid, 0)
        self._workers.remove(one)
        one.close()
        if one.state is _State.HUNG:
            log.warning("A call to storage '%s' that hung has ended", one.storage)
        elif one.state is not _State.ENDING:
            log.error("Worker process %d ended unexpectedly (%s)", one.pid, _describe(status))
        if one.job is not None:
            one.job.settle()
            one.job.fail(
                InternalError(
                    where=f"'{one.job.request.method}'", detail=f"its worker process ended ({_describe(status)})"
                )
            )
        self._refill()
        self._start_waiting()
        self._check_drained()

    def _check_drained(self) -> None:
        if self._when_drained is None or self._queue:
            return
        if all(one.state is _State.HUNG for one in self._workers):
            when_drained, self._when_drained = self._when_drained, None
            when_drained()


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
