"""A worker process for one call, as the process that asks for it sees it."""

from __future__ import annotations

import logging
import os
import select
import socket
import time

from pvedrbdstor.errors import DeadlineExceeded, InternalError
from pvedrbdstor.service import channel, worker
from pvedrbdstor.service.protocol import Request, SupportsDispatch

log = logging.getLogger(__name__)


class Errand:
    """A worker with one call. caller_fd: its hang-up is the caller's."""

    def __init__(self, control: socket.socket, request: Request, line: bytes, caller_fd: int) -> None:
        """Send the call to the worker."""
        self._control = control
        self._request = request
        came = time.monotonic()
        self._deadline = came + request.timeout
        self._reader = channel.FrameReader()
        self._caller_fd: int | None = caller_fd
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(caller_fd, 0)
        try:
            control.sendall(channel.request_frame(came, line))
        except OSError:
            pass  # it has just died, which answer() sees

    def answer(self) -> bytes:
        """The response line. Raises DeadlineExceeded and InternalError."""
        request = self._request
        try:
            received = self._next_frame()
        except TimeoutError:
            raise DeadlineExceeded(
                method=request.method, storage=request.storage, seconds=f"{request.timeout:g}"
            ) from None
        except OSError:
            received = None
        finally:
            self._stop_watching_caller()
        if received is None:
            raise InternalError(where=f"'{request.method}'", detail="its worker process ended")
        return received[1]

    def end(self) -> bool:
        """Let the worker end; True when it will at once, False when it still hangs."""
        try:
            while self._next_frame() not in (None, (channel.IDLE, b"")):
                pass
            self._control.shutdown(socket.SHUT_WR)
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def tell_gone(self) -> None:
        try:
            self._control.send(channel.frame(channel.GONE), socket.MSG_DONTWAIT)
        except OSError:
            pass

    def _next_frame(self) -> tuple[bytes, bytes] | None:
        """What the worker says next, None at its end. Raises TimeoutError at the deadline."""
        while (found := self._reader.next()) is None:
            left = self._deadline - time.monotonic()
            ready = dict(self._poll.poll(max(0.0, left * 1000)))
            if self._control.fileno() in ready:
                data = self._control.recv(1 << 18)
                if not data:
                    return None
                self._reader.feed(data)
            elif ready:
                self.tell_gone()
                self._stop_watching_caller()
            elif left <= 0:
                raise TimeoutError
        return found

    def _stop_watching_caller(self) -> None:
        if self._caller_fd is not None:
            self._poll.unregister(self._caller_fd)
            self._caller_fd = None


def fork_worker(dispatcher: SupportsDispatch, stdin_fd: int, stdout_fd: int) -> tuple[socket.socket, int]:
    """Our end of its channel, and its process id."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, stdin_fd)  # whoever reads our response to its end does not wait for the worker
            os.dup2(null, stdout_fd)
            worker.ignore_signals()
            worker.run(theirs, dispatcher)
            status = 0
        except BaseException:
            log.exception("The worker process failed")
        finally:
            os._exit(status)
    theirs.close()
    return ours, pid
