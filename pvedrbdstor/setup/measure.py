"""Measure the link that is to replicate, on the very port that DRBD will have: the other node listens, started through ssh. It only
sends packets."""

from __future__ import annotations

import errno
import json
import os
import secrets
import select
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from pvedrbdstor import command, nodes
from pvedrbdstor.errors import Error
from pvedrbdstor.nodes import asking, host_key
from pvedrbdstor.setup import stream
from pvedrbdstor.setup.link import Measured, rounded
from pvedrbdstor.setup.listen import Request
from pvedrbdstor.setup.steps import printable
from pvedrbdstor.setup.stream import Until

_READY_SECONDS = 15.0
_ALL_SECONDS = 15.0
_CONNECT_SECONDS = 3.0
_FULL_SECONDS = 2.0  # a lost segment is sent again three times within
_ECHOES = 20
_SMALL = 64
_SAID_MAX = 4096
_PACKET_MAX = 65535  # bytes of an IPv4 packet, whatever the MTU
_MEGABIT = 1_000_000 // 8


@dataclass(frozen=True, slots=True)
class Route:
    """own, other: the nodes. address, peer: theirs, in that order. mtu: the smaller one."""

    own: str
    other: str
    address: str
    peer: str
    port: int
    mtu: int


class _Failed(Exception):
    """Why there is no number, a clause, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def measure(route: Route) -> Measured:
    """Some three seconds of packets. Whatever goes wrong is in the answer."""
    token = secrets.token_bytes(stream.TOKEN_BYTES)
    request = Request(route.peer, route.port, route.address, token.hex())
    line = nodes.line(route.other, ["setup", "listen"])
    try:
        child = command.start(line, talks=True)
    except Error as error:
        return Measured({}, problem=nodes.why_not(error), remedy=_ask(route))
    try:
        _begin(child, request, route)
        return _measure(route, token)
    except _Failed as failure:
        return Measured({}, problem=printable(failure.problem), remedy=failure.remedy)
    finally:
        _end(child)


def _begin(child: subprocess.Popen[bytes], request: Request, route: Route) -> None:
    """Tell the other end what to do, and wait until it listens. Raises _Failed."""
    assert child.stdin is not None and child.stdout is not None
    said = b""
    until = Until(time.monotonic() + _READY_SECONDS)
    try:
        child.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        child.stdin.flush()
        while b"\n" not in said and len(said) < _SAID_MAX:
            until.wait(child.stdout.fileno(), select.POLLIN)
            data = os.read(child.stdout.fileno(), _SAID_MAX)
            if not data:
                break
            said += data
        answer = json.loads(said.partition(b"\n")[0])
    except (OSError, ValueError) as error:
        detail = "it did not answer in time" if isinstance(error, TimeoutError) else "its answer is not understood"
        raise _Failed(f"{route.other} could not be asked to listen ({detail})", _ask(route)) from error
    if answer == {"ready": True}:
        return
    number = answer.get("errno") if isinstance(answer, dict) else None
    if number == errno.EADDRINUSE:
        raise _Failed(
            f"port {route.port} is in use on {route.other}",
            f"Look with 'ss -tlnp sport = {route.port}' on {route.other} who has it, as DRBD needs it",
        )
    reason = os.strerror(number) if isinstance(number, int) else "it does not say why"
    raise _Failed(f"{route.other} cannot listen on {route.peer} port {route.port} ({reason})", _ask(route))


def _end(child: subprocess.Popen[bytes]) -> None:
    """The other end goes when its standard input does."""
    assert child.stdin is not None
    with suppress(OSError):
        child.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(2)
    command.stop(child)


def _measure(route: Route, token: bytes) -> Measured:
    until = Until(time.monotonic() + _ALL_SECONDS)
    try:
        with _connect(route, token + stream.ECHO, until) as sock:
            _echo(sock, _SMALL, until)
            times = [_echo(sock, _SMALL, until) for _ in range(_ECHOES)]
            round_trip = rounded(statistics.median(times) * 1e6)
            passes = _full(sock, route.mtu, until)
        if passes is False:
            return Measured({}, round_trip, False)
        return Measured(_rates(route, token, until), round_trip, passes)
    except (OSError, EOFError) as error:
        detail = "it became silent" if isinstance(error, TimeoutError) else str(error) or "it ended early"
        raise _Failed(
            f"the connection to {route.peer} port {route.port} did not hold ({detail})", _try(route)
        ) from error


def _rates(route: Route, token: bytes, until: Until) -> dict[str, int]:
    """Raises OSError, EOFError, _Failed where nothing can be told."""
    with _connect(route, token + stream.TAKE, until) as sock:
        stream.pour(sock, stream.STREAM_SECONDS, until)
        sock.shutdown(socket.SHUT_WR)
        (there,) = stream.RATE.unpack(stream.receive(sock, stream.RATE.size, until))
    with _connect(route, token + stream.GIVE, until) as sock:
        here = stream.drain(sock, stream.STREAM_SECONDS, until)
    if not (here and there):
        raise _Failed(f"too little came through between {route.address} and {route.peer}", _try(route))
    return {node: max(1, rounded(rate / _MEGABIT)) for node, rate in ((route.own, here), (route.other, there))}


def _connect(route: Route, hello: bytes, until: Until) -> socket.socket:
    """Raises _Failed where it does not come about, OSError, EOFError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        stream.prepare(sock)
        sock.bind((route.address, 0))
        error = sock.connect_ex((route.peer, route.port))
        if error == errno.EINPROGRESS:
            until.within(_CONNECT_SECONDS).wait(sock.fileno(), select.POLLOUT)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except OSError as failure:
        sock.close()
        reason = "no answer" if isinstance(failure, TimeoutError) else failure.strerror
        raise _Failed(
            f"{route.other} cannot be reached from {route.address} on {route.peer} port {route.port} ({reason})",
            _try(route),
        ) from failure
    try:
        stream.send(sock, hello, until)
    except BaseException:
        sock.close()
        raise
    return sock


def _echo(sock: socket.socket, size: int, until: Until) -> float:
    """Seconds that a message of so many bytes takes there and back."""
    message = stream.LENGTH.pack(size - stream.LENGTH.size) + bytes(size - stream.LENGTH.size)
    began = time.monotonic()
    stream.send(sock, message, until)
    stream.receive(sock, size, until)
    return time.monotonic() - began


def _full(sock: socket.socket, mtu: int, until: Until) -> bool | None:
    """Whether a message that fills one packet comes back. Small ones did: only its length can be what keeps it. None where this node
    itself sends no packets as long as the MTU, as a route may say."""
    size, longest = stream.segment(sock), stream.path_mtu(sock)
    try:
        _echo(sock, size, until.within(_FULL_SECONDS))
    except TimeoutError:
        return False
    if stream.segment(sock) < size:  # the kernel has found out, and tries shorter ones
        return False
    return True if longest >= min(mtu, _PACKET_MAX) else None


def _ask(route: Route) -> str:
    line = asking(nodes.way(route.other), "pvedrbdstor --version")
    return f"'{line}' has to print its version; {host_key(route.other)}"


def _try(route: Route) -> str:
    ends: Sequence[str] = (route.address, route.peer)
    return f"Let TCP port {route.port} between {' and '.join(ends)} through every firewall"
