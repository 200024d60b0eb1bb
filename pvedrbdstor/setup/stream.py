"""One TCP connection that measures a link, from either end: an echo, or as much as goes through in a while. Nothing waits for ever."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass, replace

TOKEN_BYTES = 32
ECHO, TAKE, GIVE = b"e", b"t", b"g"
"""After the token, what the other end is to do: send back what comes, count it, or send."""
STREAM_SECONDS = 1.2
_WARM_SECONDS = 0.2
"""In which TCP finds its pace: not counted."""
_MIN_SECONDS = 0.3
"""What was counted for less tells nothing."""
_CHUNK = 1 << 20
_NOISE = os.urandom(_CHUNK)  # nothing on the way can make it shorter
LENGTH = struct.Struct(">I")
ECHO_MAX = 1 << 17
"""Bytes, with their length: more than the MTU of any interface."""
RATE = struct.Struct(">Q")
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IP_MTU = 10, 2, 14  # linux/in.h; Python has no names for them
_IPTOS_THROUGHPUT = 0x08  # behind others where a queue has bands, as corosync's packets


class Gone(Exception):
    """Whoever has started this end does not want it any more."""


@dataclass(frozen=True, slots=True)
class Until:
    """When to give up: at ``deadline`` (of time.monotonic()), or when ``fd`` can be read, which means that its other end has gone."""

    deadline: float
    fd: int | None = None

    def within(self, seconds: float) -> Until:
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))

    def wait(self, fd: int, events: int) -> None:
        """Until ``fd`` is ready. Raises TimeoutError, and Gone."""
        poll = select.poll()
        poll.register(fd, events)
        if self.fd is not None:
            poll.register(self.fd, select.POLLIN)
        left = self.deadline - time.monotonic()
        ready = dict(poll.poll(max(0, left * 1000)))
        if self.fd in ready:
            raise Gone
        if not ready:
            raise TimeoutError("nothing came in time")


def prepare(sock: socket.socket) -> None:
    """Before it is bound: never in pieces on the way, never waiting for more to send, and out of the way of others."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _IPTOS_THROUGHPUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def segment(sock: socket.socket) -> int:
    """Bytes that fill one packet of a connection."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


def path_mtu(sock: socket.socket) -> int:
    """Of a connection, as far as the kernel knows it; 0 where it does not."""
    try:
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:  # without a route at the moment
        return 0


def send(sock: socket.socket, data: bytes, until: Until) -> None:
    """All of it. Raises OSError, TimeoutError, Gone."""
    left = memoryview(data)
    while left:
        until.wait(sock.fileno(), select.POLLOUT)
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            continue


def receive(sock: socket.socket, size: int, until: Until) -> bytes:
    """Exactly so many bytes. Raises EOFError where the other end ends before, OSError, TimeoutError, Gone."""
    found = bytearray()
    while len(found) < size:
        until.wait(sock.fileno(), select.POLLIN)
        try:
            data = sock.recv(size - len(found))
        except BlockingIOError:
            continue
        if not data:
            raise EOFError("the connection ended early")
        found += data
    return bytes(found)


def pour(sock: socket.socket, seconds: float, until: Until) -> None:
    """Send for so long. Raises as send()."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        send(sock, _NOISE, until)


def drain(sock: socket.socket, seconds: float, until: Until) -> int:
    """Bytes a second of what comes, for ``seconds`` or to its end; 0 where that was too short to tell. Raises as send()."""
    buffer = bytearray(_CHUNK)
    first = began = last = 0.0
    total = 0
    while True:
        until.wait(sock.fileno(), select.POLLIN)
        try:
            got = sock.recv_into(buffer, 0, socket.MSG_TRUNC)  # counted, not copied: tcp(7)
        except BlockingIOError:
            continue
        now = time.monotonic()
        if not got:
            break
        first = first or now
        if now - first < _WARM_SECONDS:
            began = now
            continue
        total, last = total + got, now
        if now - first >= seconds:
            break
    counted = last - began
    return int(total / counted) if counted >= _MIN_SECONDS else 0
