"""A running service for tests: a real server process on a socket in a test's folder, and a small client."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.protocol import SupportsDispatch
from pvedrbdstor.service.server import serve

PATIENCE = 10.0
"""Seconds after which whatever a test waits for counts as failed."""


class Backend:
    """A server process. log: the file its standard error goes to."""

    def __init__(self, pid: int, socket_path: str, log: Path) -> None:
        self.pid = pid
        self.socket_path = socket_path
        self.log = log
        self._status: int | None = None

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect(self.socket_path)
        return client

    def send(self, method: str, **params: object) -> socket.socket:
        """A connection on which a request was sent."""
        client = self.connect()
        client.sendall(request_line(method, **params))
        return client

    def call(self, method: str, **params: object) -> dict[str, object]:
        """The whole response object."""
        return read_response(self.send(method, **params))

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """The server's exit status; it must be about to end."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def stop(self) -> int:
        if self._status is None:
            self.terminate()
        return self.wait()


def request_line(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"


def read_response(client: socket.socket) -> dict[str, object]:
    """Read to the end, close, and decode the one line."""
    with client:
        data = bytearray()
        while chunk := client.recv(1 << 20):
            data += chunk
    assert data.endswith(b"\n"), bytes(data[-100:])
    response = json.loads(data)
    assert isinstance(response, dict)
    return response


@contextmanager
def start_backend(
    folder: Path,
    dispatcher_factory: Callable[[], SupportsDispatch],
    limits: Limits | None = None,
    prepare: Callable[[], None] | None = None,
    by_systemd: bool = False,
) -> Iterator[Backend]:
    """Serve ``dispatcher_factory()`` on ``folder``/backend.sock in a process of its own; ready when this yields.

    prepare: called in that process first. by_systemd: the socket is made here and passed as systemd would.
    """
    path = str(folder / "backend.sock")
    log = folder / "backend.log"
    listener = _listen(path) if by_systemd else None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(folder / "notify.sock"))
        ready.settimeout(PATIENCE)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become_server(folder, log, listener, path, dispatcher_factory, limits, prepare)
        if listener is not None:
            listener.close()
        backend = Backend(pid, path, log)
        try:
            try:
                word = ready.recv(100)
            except TimeoutError:
                raise AssertionError(f"the server did not get ready: {log.read_text()}") from None
            assert word == b"READY=1", word
            yield backend
        finally:
            os.unlink(folder / "notify.sock")
            backend.stop()


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    return listener


def _become_server(
    folder: Path,
    log: Path,
    listener: socket.socket | None,
    path: str,
    dispatcher_factory: Callable[[], SupportsDispatch],
    limits: Limits | None,
    prepare: Callable[[], None] | None,
) -> None:
    status = 99
    try:
        os.environ["NOTIFY_SOCKET"] = str(folder / "notify.sock")
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, 2)
        if listener is not None:
            os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
            os.dup2(listener.fileno(), 3)
        os.closerange(4 if listener is not None else 3, 1024)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.getLogger().handlers.clear()  # pytest's
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        if prepare is not None:
            prepare()
        status = serve(dispatcher_factory(), None if listener is not None else path, limits)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
