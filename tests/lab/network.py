"""The wire between the nodes: a hub in this process that can be cut, healed, and told to drop single TCP ports."""

from __future__ import annotations

import selectors
import socket
import threading

_BUFFER = 4 << 20  # bytes of frames a node may be behind before frames are lost, as on a real wire
_FRAME = 65536
_BATCH = 64
_IPV4, _TCP = b"\x08\x00", 6


class Network:
    """Joins the nodes' Ethernet ports. Thread-safe; a context manager."""

    def __init__(self) -> None:
        self._ports: dict[str, socket.socket] = {}
        self._up = True
        self._dropped: frozenset[int] = frozenset()
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

    def cut(self) -> None:
        """From now on no frame arrives anywhere."""
        self._up = False

    def heal(self) -> None:
        """End cut() and drop()."""
        self._dropped = frozenset()
        self._up = True

    def drop(self, *tcp_ports: int) -> None:
        """Lose every frame from or to these TCP ports, and no others."""
        self._dropped = frozenset(tcp_ports)

    def _forward(self) -> None:
        while True:
            events = self._selector.select()
            with self._lock:
                for key, _ in events:
                    if key.fileobj is self._wakeup:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    if self._ports.get(key.data) is key.fileobj:
                        self._forward_from(key.data, key.fileobj)

    def _forward_from(self, sender: str, port: socket.socket) -> None:
        others = [other for name, other in self._ports.items() if name != sender]
        for _ in range(_BATCH):
            try:
                frame = port.recv(_FRAME)
            except OSError:  # nothing more, or the node has just died
                return
            if not self._up or self._is_dropped(frame):
                continue
            for other in others:
                try:
                    other.send(frame)
                except OSError:  # its buffer is full, or it is dead: the frame is lost, as on a wire
                    pass

    def _is_dropped(self, frame: bytes) -> bool:
        return bool(self._dropped) and not self._dropped.isdisjoint(tcp_ports(frame))


def tcp_ports(frame: bytes) -> tuple[int, ...]:
    """Source and destination port of an Ethernet frame that carries TCP over IPv4; nothing for any other frame."""
    if len(frame) < 38 or frame[12:14] != _IPV4 or frame[23] != _TCP:
        return ()
    tcp = 14 + (frame[14] & 15) * 4
    return int.from_bytes(frame[tcp : tcp + 2], "big"), int.from_bytes(frame[tcp + 2 : tcp + 4], "big")
