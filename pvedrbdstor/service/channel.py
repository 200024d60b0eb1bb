"""Frames between the server and one of its workers, over a socket pair: a letter, a length, a payload."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

REQUEST = b"R"  # to the worker: when the request came (seconds of the monotonic clock), then the request line
GONE = b"G"  # to the worker: nobody waits for the answer any more
ANSWER = b"A"  # from the worker: the response line
IDLE = b"I"  # from the worker: what was left to do after the answer is done

_HEAD = struct.Struct("!cI")
_TIME = struct.Struct("!d")


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return _HEAD.pack(kind, len(payload)) + payload


def request_frame(came: float, line: bytes) -> bytes:
    return frame(REQUEST, _TIME.pack(came) + line)


def split_request(payload: bytes) -> tuple[float, bytes]:
    """The moment the request came (seconds of the monotonic clock, which all processes share) and its line."""
    (came,) = _TIME.unpack_from(payload)
    return came, payload[_TIME.size :]


class FrameReader:
    """Collects bytes until frames are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Bytes came that belong to no frame handed out so far."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[bytes, bytes] | None:
        """The next whole frame as (kind, payload), or None."""
        if len(self._buffer) < _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(self._buffer)
        end = _HEAD.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[_HEAD.size : end])
        del self._buffer[:end]
        return kind, payload

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        while (found := self.next()) is not None:
            yield found


def receive(control: socket.socket, reader: FrameReader) -> tuple[bytes, bytes] | None:
    """Wait for the next frame on a blocking socket; None at its end."""
    while (found := reader.next()) is None:
        data = control.recv(65536)
        if not data:
            return None
        reader.feed(data)
    return found
