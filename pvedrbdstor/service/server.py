"""The server: takes connections, reads one request from each, hands it to the pool, writes the answer."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence

from pvedrbdstor.service import activation
from pvedrbdstor.service.job import Job
from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.loop import HANGUP, READ, WRITE, Loop, Timer
from pvedrbdstor.service.pool import Pool
from pvedrbdstor.service.protocol import (
    REQUEST_LIMIT,
    InvalidRequest,
    Rejection,
    SupportsDispatch,
    encode_error,
    parse_request,
)
from pvedrbdstor.service.supervisor import Supervisor

log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Connection:
    """One client: its request comes in, its answer goes out, and that is all.

    Between the two, ``job`` is set and whatever else the client sends is thrown away.
    """

    def __init__(self, server: Server, client: socket.socket) -> None:
        self._server = server
        self._loop = server.loop
        self._client = client
        self._request = bytearray()
        self._unsent = memoryview(b"")
        self._refused = False
        self._job: Job | None = None
        self._timer: Timer = self._loop.after(server.limits.read, self._too_slow)

    def open(self) -> None:
        """Begin to read; most requests are there at once."""
        self._watch(READ, self._reading)
        _, uid, _ = _UCRED.unpack(self._client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (0, os.geteuid()):
            self._refuse(Rejection(None, InvalidRequest(detail=f"user {uid} may not send any, only root may")))
        else:
            self._reading(READ)

    @property
    def has_request(self) -> bool:
        return self._job is not None or bool(self._unsent)

    def close(self) -> None:
        """Forget the client; if a call is in progress for it, its worker is told."""
        self._timer.cancel()
        self._loop.unwatch(self._client.fileno())
        self._client.close()
        job, self._job = self._job, None
        if job is not None:
            self._server.pool.caller_gone(job)
        self._server.closed(self)

    def close_inherited(self) -> None:
        self._client.close()

    # --- the request ---

    def _reading(self, events: int) -> None:
        if events & HANGUP:
            self.close()
            return
        data = self._receive()
        if data is None:
            return
        end = data.find(b"\n")
        self._request += data if end < 0 else data[:end]
        if len(self._request) > REQUEST_LIMIT:
            self._refuse(Rejection(None, InvalidRequest(detail=f"it is longer than {REQUEST_LIMIT} bytes")))
        elif end >= 0:
            self._complete()
        elif not data and self._request:
            self._refuse(Rejection(None, InvalidRequest(detail="it does not end with a newline")))
        elif not data:
            self.close()

    def _too_slow(self) -> None:
        seconds = self._server.limits.read
        self._refuse(Rejection(None, InvalidRequest(detail=f"it did not come within {seconds:g} s")))

    def _complete(self) -> None:
        line = bytes(self._request)
        self._request.clear()
        request = parse_request(line)
        if isinstance(request, Rejection):
            self._refuse(request)
            return
        self._timer.cancel()
        self._watch(READ, self._waiting)
        self._job = Job(request, line, self._answer)
        self._server.pool.submit(self._job)

    def _refuse(self, rejection: Rejection) -> None:
        self._refused = True
        self._answer(encode_error(rejection.id, rejection.error))

    def _waiting(self, events: int) -> None:
        if events & HANGUP:
            self.close()
        elif self._receive() == b"":  # a half-close: it says no more, but may still listen
            self._watch(0, self._waiting)

    # --- the answer ---

    def _answer(self, response: bytes) -> None:
        self._job = None
        self._timer.cancel()
        self._timer = self._loop.after(self._server.limits.write, self.close)
        self._unsent = memoryview(response)
        self._writing(WRITE)

    def _writing(self, events: int) -> None:
        if events & HANGUP:
            self.close()
            return
        try:
            self._unsent = self._unsent[self._client.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._unsent:
            self._watch(WRITE, self._writing)
        elif self._refused:
            self._linger()
        else:
            self.close()

    def _linger(self) -> None:
        """Let a client that is still sending come to its end: closed at once, it might not see the answer."""
        self._timer.cancel()
        self._timer = self._loop.after(self._server.limits.linger, self.close)
        self._client.shutdown(socket.SHUT_WR)
        self._watch(READ, self._lingering)

    def _lingering(self, events: int) -> None:
        if events & HANGUP or self._receive() == b"":
            self.close()

    def _receive(self) -> bytes | None:
        """What the client has sent, empty at its end; None when there is nothing now."""
        try:
            return self._client.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _watch(self, events: int, ready: Callable[[int], None]) -> None:
        self._loop.watch(self._client.fileno(), events, ready)


class Server:
    """The listening socket, its connections and the pool of workers."""

    def __init__(
        self,
        listener: socket.socket,
        dispatcher: SupportsDispatch,
        limits: Limits,
        companion: Sequence[str] | None = None,
    ) -> None:
        self.limits = limits
        self.loop = Loop()
        self.pool = Pool(self.loop, dispatcher, limits, self._close_inherited)
        self._companion = None if companion is None else Supervisor(self.loop, companion)
        self._listener = listener
        self._connections: set[Connection] = set()
        self._wakeup_in, self._wakeup_out = socket.socketpair()
        self._stopping = False
        self._drained = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT came and the calls in progress are done, or the grace period is over."""
        previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup_in.setblocking(False)
        self._wakeup_out.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_in.fileno(), warn_on_full_buffer=False)
        try:
            self.loop.watch(self._wakeup_out.fileno(), READ, lambda _: self._signalled())
            gc.collect()
            gc.freeze()  # the memory of what is loaded by now stays shared with the workers
            self.pool.start()
            if self._companion is not None:
                self._companion.start()
            self._listen()
            activation.notify("READY=1")
            self.loop.run()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._close_inherited()

    def closed(self, connection: Connection) -> None:
        """A connection tells that it is closed."""
        self._connections.discard(connection)
        if self._drained:
            self._stop_when_written()
        elif len(self._connections) == self.limits.connections - 1:
            self._listen()

    def _listen(self) -> None:
        if not self._stopping:
            self.loop.watch(self._listener.fileno(), READ, lambda _: self._accept())

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            log.error("No more connections can be taken: %s", error)
            self.loop.unwatch(self._listener.fileno())
            self.loop.after(1, self._listen)
            return
        client.setblocking(False)
        connection = Connection(self, client)
        self._connections.add(connection)
        if len(self._connections) >= self.limits.connections:
            self.loop.unwatch(self._listener.fileno())
        connection.open()

    def _signalled(self) -> None:
        self._wakeup_out.recv(64)
        if self._stopping:
            return
        self._stopping = True
        activation.notify("STOPPING=1")
        if self._companion is not None:
            self._companion.stop()
        self.loop.unwatch(self._listener.fileno())
        self._listener.close()  # where it is systemd's, clients wait in its backlog for the next server
        for connection in list(self._connections):
            if not connection.has_request:
                connection.close()
        self.loop.after(self.limits.grace, self._grace_over)
        self.pool.drain(self._all_done)

    def _grace_over(self) -> None:
        """An error is short: it is in the client's socket as soon as it is sent, and there when we are not any more."""
        log.warning("Calls still in progress after %g s are answered with an error", self.limits.grace)
        self.pool.abandon()
        self.loop.stop()

    def _all_done(self) -> None:
        self._drained = True
        self._stop_when_written()

    def _stop_when_written(self) -> None:
        """The calls are done; the last answers may still be on their way out."""
        if not any(connection.has_request for connection in self._connections):
            self.loop.stop()

    def _close_inherited(self) -> None:
        """Close all we have open, here at the end or in a new worker."""
        self.loop.close()
        self._listener.close()
        self._wakeup_in.close()
        self._wakeup_out.close()
        self.pool.close()
        if self._companion is not None:
            self._companion.close_inherited()
        for connection in self._connections:
            connection.close_inherited()


def serve(
    dispatcher: SupportsDispatch,
    socket_path: str | None = None,
    limits: Limits | None = None,
    companion: Sequence[str] | None = None,
) -> int:
    """Serve on ``socket_path``, or on systemd's socket where it is None. Returns the exit status 0 after SIGTERM.

    Raises SystemCallFailed when there is nothing to listen on. Whatever ``dispatcher`` needs should be imported before:
    the workers are forked from this process. ``companion``: a program to keep running meanwhile.
    """
    limits = limits or Limits()
    if socket_path is not None:
        own = activation.OwnSocket(socket_path)
        try:
            Server(own.listener, dispatcher, limits, companion).run()
        finally:
            own.remove()
        return 0
    listener = activation.inherited_socket()
    if listener is None:
        raise activation.failed("the socket", "systemd passed none", "Name one with --socket")
    Server(listener, dispatcher, limits, companion).run()
    return 0
