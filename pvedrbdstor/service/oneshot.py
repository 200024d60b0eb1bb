"""One request without the service, as where no service runs; and export and import, whose data goes through a pipe."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pvedrbdstor.call import Call
from pvedrbdstor.errors import Error
from pvedrbdstor.service import worker
from pvedrbdstor.service.errand import Errand, fork_worker
from pvedrbdstor.service.protocol import (
    REQUEST_LIMIT,
    InvalidRequest,
    Rejection,
    SupportsDispatch,
    encode_error,
    exit_status,
    parse_request,
)
from pvedrbdstor.sizes import format_size

log = logging.getLogger(__name__)

STREAM_TIMEOUT = 7 * 86400.0
"""Seconds an export or import may take, unless its request says less."""
PROGRESS_INTERVAL = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HANGUP = select.POLLERR | select.POLLHUP


def run_line(dispatcher: SupportsDispatch, stdin_fd: int = 0, stdout_fd: int = 1) -> int:
    """Answer the one request line on ``stdin_fd`` on ``stdout_fd``. Returns the exit status: 0, or the error's.

    The call runs in a forked worker, so that its deadline holds even where a stalled mirror holds the worker. What the
    call leaves for after its answer is waited for until the deadline.
    """
    line = _read_line(stdin_fd)
    request = parse_request(line)
    if isinstance(request, Rejection):
        _write_all(stdout_fd, encode_error(request.id, request.error))
        return request.error.exit_status
    control, pid = fork_worker(dispatcher, stdin_fd, stdout_fd)
    errand = Errand(control, request, line, stdout_fd)
    with control, _caught_signals(errand.tell_gone):
        try:
            response = errand.answer()
        except Error as error:
            response = encode_error(request.id, error)
        _write_all(stdout_fd, response)
        ended = errand.end()
    if ended:
        os.waitpid(pid, 0)
    return exit_status(response)


def run_stream(
    dispatcher: SupportsDispatch, request_text: str, stdin_fd: int = 0, stdout_fd: int = 1, stderr_fd: int = 2
) -> int:
    """Do one export or import. The response is the last line on ``stderr_fd``; before it, lines of progress.

    SIGTERM, SIGINT, SIGHUP or nobody reading ``stderr_fd`` any more count as the caller having gone: the work undoes
    itself. Returns the exit status: 0, or the error's.
    """
    request = parse_request(request_text.encode("utf-8", "surrogateescape"), STREAM_TIMEOUT, STREAM_TIMEOUT)
    streams = {"volume_import": stdin_fd, "volume_export": stdout_fd}
    if not isinstance(request, Rejection) and request.method not in streams:
        detail = f"'{request.method}' has no data stream, only {' and '.join(streams)} have"
        request = Rejection(request.id, InvalidRequest(detail=detail))
    if isinstance(request, Rejection):
        _write_all(stderr_fd, encode_error(request.id, request.error))
        return request.error.exit_status
    stream = streams[request.method]
    caller = _Caller(stream, stderr_fd)
    progress = _Progress(stderr_fd)
    call = Call(request.method, request.storage, request.timeout, caller.gone, progress.report)
    with _caught_signals(caller.hang_up):
        response = worker.answer(dispatcher, request, call, stream)
        _write_all(stderr_fd, response)
        worker.finish(call)
    return exit_status(response)


class _Caller:
    """Whoever wants the transfer: has gone after a signal, or when it no longer reads what we say."""

    def __init__(self, stream: int, stderr_fd: int) -> None:
        self._stream = stream
        self._signalled = False
        self._poll = select.poll()
        self._poll.register(stderr_fd, 0)

    def gone(self) -> bool:
        return self._signalled or any(events & _HANGUP for _, events in self._poll.poll(0))

    def hang_up(self) -> None:
        """On a signal. A read() or write() of the stream may be blocked, and Python repeats it: let it find an end."""
        self._signalled = True
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self._stream)
        os.close(null)


@dataclass
class _Progress:
    """Writes how far a transfer is, at most every PROGRESS_INTERVAL seconds."""

    fd: int
    last: float = field(default_factory=time.monotonic)

    def report(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes; a total of 0 is not known."""
        now = time.monotonic()
        if now - self.last < PROGRESS_INTERVAL:
            return
        self.last = now
        share = f" of {format_size(total)} ({100 * done // total} %)" if total else ""
        _write_all(self.fd, f"transferred {format_size(done)}{share}\n".encode())


@contextmanager
def _caught_signals(action: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM, SIGINT and SIGHUP call ``action`` instead of ending us."""
    previous = {number: signal.signal(number, lambda *_: action()) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write_all(fd: int, data: bytes) -> None:
    """Write; a reader that has gone is no error, there is nobody left to tell."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        log.info("The response could not be delivered: %s", error)


def _read_line(fd: int) -> bytes:
    """Up to a newline or the end; a little more than the limit when it is longer."""
    data = bytearray()
    while b"\n" not in data and len(data) <= REQUEST_LIMIT:
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            break
        data += chunk
    return bytes(data.partition(b"\n")[0])
