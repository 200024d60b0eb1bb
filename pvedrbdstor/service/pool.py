"""Which worker does which call, and when none does: the server's side of the worker processes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from pvedrbdstor.errors import InternalError, ServiceStopped, TooBusy
from pvedrbdstor.service import channel, worker
from pvedrbdstor.service.child import Child, State, spawn
from pvedrbdstor.service.job import Job
from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.loop import HANGUP, READ, WRITE, Loop, Timer
from pvedrbdstor.service.protocol import SupportsDispatch
from pvedrbdstor.service.queue import Queue

log = logging.getLogger(__name__)

_CHUNK = 1 << 18


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
        self._workers: list[Child] = []
        self._queue = Queue(limits)
        self._retry: Timer | None = None
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
        elif one.state is State.BUSY:
            self._send(one, channel.frame(channel.GONE))

    def drain(self, when_drained: Callable[[], None]) -> None:
        """Start no more workers than the jobs already here need; call ``when_drained`` when only hung ones are left."""
        self._ending = True
        self._when_drained = when_drained
        for one in self._workers:
            if one.state is State.IDLE:
                self._end(one)
        self._check_drained()

    def abandon(self) -> None:
        """Answer all that is not done. Its workers take the server's end for their callers', and undo long work."""
        for job in [*self._jobs(State.BUSY), *self._queue.jobs()]:
            job.settle()
            job.fail(ServiceStopped(method=job.request.method, storage=job.request.storage))

    def close(self) -> None:
        """Close what this object has open. Workers still alive end by themselves."""
        for one in self._workers:
            one.close()

    # --- jobs ---

    def _start_waiting(self) -> None:
        """Give free workers to waiting jobs, as long as there are both."""
        while (job := self._queue.next(self._jobs(State.BUSY), self._jobs(State.HUNG))) is not None:
            free = self._free_worker()
            if free is None:
                return
            self._queue.remove(job)
            self._assign(free, job)

    def _jobs(self, state: State) -> list[Job]:
        return [one.job for one in self._workers if one.state is state and one.job is not None]

    def _worker_of(self, job: Job) -> Child | None:
        return next((one for one in self._workers if one.job is job), None)

    def _hung(self, storage: str) -> int:
        return sum(one.state is State.HUNG and one.storage == storage for one in self._workers)

    def _assign(self, one: Child, job: Job) -> None:
        one.state, one.job, one.calls = State.BUSY, job, one.calls + 1
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
        elif one.state is State.BUSY:
            one.state = State.HUNG
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

    def _free_worker(self) -> Child | None:
        for one in self._workers:
            if one.state is State.IDLE:
                return one
        if len(self._workers) >= self._limits.processes:
            return None
        return self._fork()

    def _refill(self) -> None:
        missing = self._limits.idle_workers - sum(
            one.state in (State.IDLE, State.BUSY, State.CLEARING) for one in self._workers
        )
        for _ in range(0 if self._ending else missing):
            if len(self._workers) >= self._limits.processes or self._fork() is None:
                return

    def _fork(self) -> Child | None:
        try:
            new = spawn(self._work)
        except OSError as error:
            log.error("No worker process can be started: %s", error)
            self._retry = self._retry or self._loop.after(1, self._try_again)
            return None
        self._workers.append(new)
        self._loop.watch(new.control.fileno(), READ, lambda events: self._worker_ready(new, events))
        self._loop.watch(new.pidfd, READ, lambda _: self._worker_ended(new))
        return new

    def _try_again(self) -> None:
        self._retry = None
        self._refill()
        self._start_waiting()

    def _work(self, control: socket.socket) -> None:
        """In a new worker process: its whole life."""
        self._close_inherited()
        worker.run(control, self._dispatcher)

    def _send(self, one: Child, data: bytes) -> None:
        one.unsent += data
        self._flush(one)

    def _flush(self, one: Child) -> None:
        try:
            sent = one.control.send(one.unsent)
            del one.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            one.unsent.clear()  # it has just died: its pidfd says so, too
        self._watch(one)

    def _watch(self, one: Child) -> None:
        events = READ | (WRITE if one.unsent else 0)
        self._loop.watch(one.control.fileno(), events, lambda events: self._worker_ready(one, events))

    def _worker_ready(self, one: Child, events: int) -> None:
        if events & WRITE:
            self._flush(one)
        if events & ~WRITE and not self._receive(one) and events & HANGUP:
            self._loop.unwatch(one.control.fileno())  # its pidfd tells of its end

    def _receive(self, one: Child) -> bool:
        """Take what the worker has sent. False when there is nothing (more)."""
        try:
            data = one.control.recv(_CHUNK)
        except OSError:
            return False
        if one.state is not State.HUNG:  # from that one, whatever comes comes too late
            one.reader.feed(data)
        for kind, payload in one.reader.frames():
            if kind == channel.ANSWER:
                self._answered(one, payload)
            elif kind == channel.IDLE:
                self._now_idle(one)
        return bool(data)

    def _answered(self, one: Child, response: bytes) -> None:
        assert one.job is not None
        one.state = State.CLEARING
        one.job.settle()
        one.job.reply(response)

    def _now_idle(self, one: Child) -> None:
        one.state, one.job = State.IDLE, None
        idle = sum(other.state is State.IDLE for other in self._workers)
        if one.calls >= self._limits.recycle:
            self._end(one)
            self._refill()
        self._start_waiting()
        if one.state is State.IDLE and (self._ending or idle > self._limits.max_idle_workers):
            self._end(one)
        self._check_drained()

    def _end(self, one: Child) -> None:
        one.state = State.ENDING
        self._tell_to_end(one)

    def _tell_to_end(self, one: Child) -> None:
        one.unsent.clear()
        try:
            one.control.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has just died
        self._watch(one)

    def _worker_ended(self, one: Child) -> None:
        while self._receive(one):  # an answer may have come just before the end
            pass
        self._loop.unwatch(one.control.fileno())
        self._loop.unwatch(one.pidfd)
        how = one.reap()
        self._workers.remove(one)
        one.close()
        if one.state is State.HUNG:
            log.warning("A call to storage '%s' that hung has ended", one.storage)
        elif one.state is not State.ENDING:
            log.error("Worker process %d ended unexpectedly (%s)", one.pid, how)
        if one.job is not None:
            one.job.settle()
            one.job.fail(InternalError(where=f"'{one.job.request.method}'", detail=f"its worker process ended ({how})"))
        self._refill()
        self._start_waiting()
        self._check_drained()

    def _check_drained(self) -> None:
        if self._when_drained is None or self._queue:
            return
        if all(one.state is State.HUNG for one in self._workers):
            when_drained, self._when_drained = self._when_drained, None
            when_drained()
