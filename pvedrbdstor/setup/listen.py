"""The end of a measured link that is asked: started through ssh by the other node, for as long as that wants, and for seconds at most."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from pvedrbdstor.setup import stream, values
from pvedrbdstor.setup.stream import Gone, Until

SECONDS = 20.0
"""It never listens longer."""
_HELLO_SECONDS = 1.0
_REQUEST_MAX = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """Where to listen, and for whom. token: what a connection has to begin with, in hex: nobody on the node can see it."""

    address: str
    port: int
    peer: str
    token: str


def request(fd: int) -> Request:
    """The line that comes first. Raises Malformed, TimeoutError."""
    until, line = Until(time.monotonic() + SECONDS), b""
    while not line.endswith(b"\n"):
        until.wait(fd, select.POLLIN)
        piece = os.read(fd, 1)  # not a byte more: what comes behind it means the end
        line += piece
        if not piece or len(line) > _REQUEST_MAX:
            raise values.Malformed("it is cut off, or too long")
    try:
        found = values.decode(Request, json.loads(line))
        for address in (found.address, found.peer):
            ipaddress.IPv4Address(address)
        token = bytes.fromhex(found.token)
    except ValueError as error:
        raise values.Malformed(str(error)) from error
    if len(token) != stream.TOKEN_BYTES or not 1024 <= found.port <= 65535:
        raise values.Malformed("its port or its token is none")
    return found


def listen(wanted: Request, fd: int, ready: Callable[[], None], seconds: float = SECONDS) -> None:
    """Answer connections from the peer until ``fd`` ends, which is what ends it as a rule. ready: called when it listens. Raises OSError
    where it cannot."""
    until = Until(time.monotonic() + seconds, fd)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        stream.prepare(server)
        server.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as DRBD: connections that have ended are no obstacle
        server.bind((wanted.address, wanted.port))
        server.listen(4)
        ready()
        while True:
            try:
                until.wait(server.fileno(), select.POLLIN)
                connection, (address, _) = server.accept()
            except (Gone, TimeoutError):
                return
            except OSError:  # one that has gone while it was taken
                continue
            with connection:
                if address != wanted.peer:
                    continue
                try:
                    _answer(connection, bytes.fromhex(wanted.token), until)
                except Gone:
                    return
                except (OSError, EOFError):
                    continue


def _answer(connection: socket.socket, token: bytes, until: Until) -> None:
    stream.prepare(connection)
    hello = stream.receive(connection, stream.TOKEN_BYTES + 1, until.within(_HELLO_SECONDS))
    if not hmac.compare_digest(hello[:-1], token):
        return
    until = until.within(stream.STREAM_SECONDS * 3)
    if hello[-1:] == stream.ECHO:
        while True:
            head = stream.receive(connection, stream.LENGTH.size, until)
            (size,) = stream.LENGTH.unpack(head)
            if size > stream.ECHO_MAX:
                return
            stream.send(connection, head + stream.receive(connection, size, until), until)
    elif hello[-1:] == stream.TAKE:
        rate = stream.drain(connection, stream.STREAM_SECONDS * 2, until)
        stream.send(connection, stream.RATE.pack(rate), until)
    elif hello[-1:] == stream.GIVE:  # until the other end has enough and closes
        stream.pour(connection, stream.STREAM_SECONDS * 2, until)
