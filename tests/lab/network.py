"""The wire between the nodes: a switch in this process that obeys rules, which frames are lost or late, and from whom to whom."""

from __future__ import annotations

import heapq
import itertools
import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass

_BUFFER = 4 << 20  # bytes of frames a node may be behind before frames are lost, as on a real wire
_FRAME = 65536
_BATCH = 64
_IPV4, _TCP, _UDP = b"\x08\x00", 6, 17
_GROUP_BIT = 1  # of an Ethernet address' first byte: broadcast or multicast
ANY = "*"


@dataclass(frozen=True)
class Rule:
    """What happens to frames from node ``src`` to node ``dst`` ("*": any) that carry TCP or UDP from or to ``port`` (None: all).

    loss is the fraction that is lost, by default all of them; those that are not lost arrive ``latency`` seconds later.
    """

    src: str = ANY
    dst: str = ANY
    port: int | None = None
    loss: float = 1.0
    latency: float = 0.0

    def concerns(self, src: str, dst: str, ports: tuple[int, ...]) -> bool:
        return self.src in (ANY, src) and self.dst in (ANY, dst) and (self.port is None or self.port in ports)


def between(one: str, other: str, port: int | None = None) -> tuple[Rule, Rule]:
    """Nothing passes between two nodes, in either direction."""
    return Rule(one, other, port), Rule(other, one, port)


def around(node: str, port: int | None = None) -> tuple[Rule, Rule]:
    """Nothing reaches a node, and nothing leaves it."""
    return Rule(src=node, port=port), Rule(dst=node, port=port)


def slow(one: str, other: str, latency: float, loss: float = 0.0) -> tuple[Rule, Rule]:
    """Frames between two nodes are late by so many seconds, and a fraction of them is lost."""
    return Rule(one, other, None, loss, latency), Rule(other, one, None, loss, latency)


class Network:
    """Joins the nodes' Ethernet ports. Thread-safe; a context manager. seed decides which frames a fraction means.

    It learns behind which port an address is, so that a frame for one node does not wake the others.
    """

    def __init__(self, seed: int = 0) -> None:
        self._ports: dict[str, socket.socket] = {}
        self._learned: dict[bytes, str] = {}  # Ethernet address -> node
        self._rules: tuple[Rule, ...] = ()
        self._random = random.Random(seed)
        self._late: list[tuple[float, int, str, bytes]] = []  # heap: when it is due, order, to whom, frame
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wake = socket.socketpair()
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._forwarder = threading.Thread(target=self._forward, name="lab-network", daemon=True)

    def __enter__(self) -> Network:
        self._forwarder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._forwarder.join()
        with self._lock:
            for port in self._ports.values():
                port.close()
            self._ports.clear()
        self._selector.close()
        self._wakeup.close()

    def attach(self, node: str) -> socket.socket:
        """A new port for ``node`` in place of its old one: the end that the node's machine gets (datagrams = frames)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        ours.setblocking(False)
        with self._lock:
            old = self._ports.pop(node, None)
            if old is not None:
                self._selector.unregister(old)
                old.close()
            self._ports[node] = ours
            self._selector.register(ours, selectors.EVENT_READ, node)
        return theirs

    def block(self, *rules: Rule) -> None:
        """Obey these rules too. Of several that concern a frame each may lose it, and their latencies add up."""
        with self._lock:
            self._rules += rules

    def only(self, *rules: Rule) -> None:
        """Obey these rules and no others, from one frame to the next."""
        with self._lock:
            self._rules = rules

    def cut(self) -> None:
        """From now on no frame arrives anywhere."""
        self.block(Rule())

    def heal(self) -> None:
        """End every rule; what is late already still comes late."""
        self.only()

    def drop(self, *ports: int) -> None:
        """Lose every frame from or to these TCP or UDP ports, and no others."""
        self.only(*(Rule(port=port) for port in ports))

    def _forward(self) -> None:
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            events = self._selector.select(wait)
            with self._lock:
                for key, _ in events:
                    if key.fileobj is self._wakeup:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    if self._ports.get(key.data) is key.fileobj:
                        self._forward_from(key.data, key.fileobj)
                while self._late and self._late[0][0] <= time.monotonic():
                    _, _, receiver, frame = heapq.heappop(self._late)
                    self._send(receiver, frame)

    def _forward_from(self, sender: str, port: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                frame = port.recv(_FRAME)
            except OSError:  # nothing more, or the node has just died
                return
            self._learned[frame[6:12]] = sender
            for receiver in self._receivers(sender, frame):
                self._pass(sender, receiver, frame)

    def _receivers(self, sender: str, frame: bytes) -> list[str]:
        known = None if frame[:1] and frame[0] & _GROUP_BIT else self._learned.get(frame[:6])
        if known is not None:
            return [known] if known != sender else []
        return [name for name in self._ports if name != sender]

    def _pass(self, sender: str, receiver: str, frame: bytes) -> None:
        if not self._rules:
            self._send(receiver, frame)
            return
        ports = transport_ports(frame)
        latency = 0.0
        for rule in self._rules:
            if rule.concerns(sender, receiver, ports):
                if rule.loss >= 1 or self._random.random() < rule.loss:
                    return
                latency += rule.latency
        if latency:
            heapq.heappush(self._late, (time.monotonic() + latency, next(self._order), receiver, frame))
        else:
            self._send(receiver, frame)

    def _send(self, receiver: str, frame: bytes) -> None:
        try:
            self._ports[receiver].send(frame)
        except (KeyError, OSError):  # its buffer is full, or it is dead: the frame is lost, as on a wire
            pass


def transport_ports(frame: bytes) -> tuple[int, ...]:
    """Source and destination port of an Ethernet frame that carries TCP or UDP over IPv4; nothing for any other frame."""
    if len(frame) < 38 or frame[12:14] != _IPV4 or frame[23] not in (_TCP, _UDP):
        return ()
    transport = 14 + (frame[14] & 15) * 4
    return (
        int.from_bytes(frame[transport : transport + 2], "big"),
        int.from_bytes(frame[transport + 2 : transport + 4], "big"),
    )
