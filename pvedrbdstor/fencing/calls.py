"""The handlers that wait for an answer: who called, about which resource and peer, and the socket they call through."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pvedrbdstor.fencing import paths

_REQUEST_MAX = 16384
_CALLS_MAX = 64  # a refused reconnection calls anew while earlier handlers still wait


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler knows, from DRBD's environment (drbd.conf(5), handlers). name: fence-peer or unfence-peer.

    minors: of the resource's volumes. peers: host names of the peer; several where DRBD does not tell which.
    """

    name: str
    resource: str
    minors: tuple[int, ...]
    peers: tuple[str, ...]


def parse(text: str) -> Request | None:
    """None for anything a handler does not send."""
    name, *lines = text.split("\n")
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    resource = variables.get("DRBD_RESOURCE", "")
    minors = [word for word in variables.get("DRBD_MINOR", "").split() if word.isascii() and word.isdigit()]
    if name not in ("fence-peer", "unfence-peer") or not resource or not minors:
        return None
    return Request(name, resource, tuple(int(minor) for minor in minors), _peers(variables))


def _peers(variables: Mapping[str, str]) -> tuple[str, ...]:
    """DRBD 9 names the peer by its node id, and each id's host; 8.4 has one peer, and names it."""
    if node_id := variables.get("DRBD_PEER_NODE_ID"):
        host = variables.get(f"DRBD_NODE_ID_{node_id}")
        return (host,) if host else ()
    return tuple(variables.get("DRBD_PEERS", "").split())


@dataclass
class Call:
    """One handler's connection, since that second. request: None until all of it has come."""

    connection: socket.socket
    since: float
    received: bytes = b""
    request: Request | None = None
    closed: bool = field(default=False)

    def fileno(self) -> int:
        return self.connection.fileno()

    def read(self) -> None:
        """Take in what has come; closed is set for one that ended early or sends what no handler does."""
        if self.request is not None:
            self._look_for_end()
            return
        while self.request is None and not self.closed:
            try:
                data = self.connection.recv(_REQUEST_MAX)
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                return
            self.received += data
            if not data:
                self.request = parse(self.received.decode(errors="replace"))
            self.closed = len(self.received) > _REQUEST_MAX or (not data and self.request is None)

    def answer(self, status: int) -> None:
        """Send the exit status, one digit, and hang up."""
        try:
            self.connection.send(b"%d" % status, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it has ended, and asks again if DRBD still wants to know
        self.close()

    def close(self) -> None:
        self.closed = True
        self.connection.close()

    def _look_for_end(self) -> None:
        """A handler that waits has closed one direction, one that was killed has closed both."""
        poll = select.poll()
        poll.register(self.connection, 0)  # POLLHUP comes unasked
        self.closed = bool(poll.poll(0))


class Calls:
    """The listening socket and all handlers that wait. Nothing here blocks."""

    def __init__(self, path: str = paths.SOCKET) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if os.path.exists(path):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(mask)
        self._listener.listen(_CALLS_MAX)
        self._calls: list[Call] = []

    def fileno(self) -> int:
        return self._listener.fileno()

    def read(self, now: float) -> None:
        """Take new handlers in, and what the ones that wait have sent."""
        while len(self._calls) < _CALLS_MAX:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setblocking(False)
            self._calls.append(Call(connection, now))
        self._calls = [call for call in self._calls if not call.closed]
        for call in self._calls:
            call.read()
            if call.closed:
                call.close()

    def waiting(self) -> Iterator[tuple[Call, Request]]:
        for call in list(self._calls):
            if call.request is not None and not call.closed:
                yield call, call.request

    def close(self) -> None:
        """Those that wait find the socket gone, and ask again until a guard is back."""
        for call in self._calls:
            call.close()
        self._listener.close()
