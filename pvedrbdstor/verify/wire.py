"""What two nodes say to one another while they compare: binary frames, bounded and versioned. No I/O here.

A frame is a header, `>4sBBHI`: magic, type, flags and a reserved number (both 0 in this version), length of the payload; and the
payload. Whatever does not fit is Malformed as soon as its header is there: no stream makes this side keep more than one frame.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pvedrbdstor.drbd.metadata import Range

VERSION = 2
"""Of everything that is said, the JSON documents too. Nodes with different ones do not talk."""

MAGIC = b"PDV1"
DIGEST_BYTES = 16
PAYLOAD_MAX = 16 << 20
SLICE_BLOCKS_MAX = 65536
"""Blocks that may be asked for at once."""
RANGES_MAX = 256
"""Of one request."""

_HEADER = struct.Struct(">4sBBHI")
_REQUEST = struct.Struct(">II")
_RANGE = struct.Struct(">QQ")
_COUNT = struct.Struct(">II")
_ERROR = struct.Struct(">II")
_DOCUMENT_MAX = 64 << 10
_ERRNO_MAX = 4095  # MAX_ERRNO, include/linux/err.h


class Malformed(Exception):
    """What came is not what this protocol allows; the text says why."""


class Type(enum.IntEnum):
    """HELLO, STATE and ERROR carry a JSON object; a STATE without one asks for it. DIGEST asks, DIGESTS answers. BYE carries nothing.
    PROBE carries a question about the write path, or its answer. PRIORITY carries a JSON object, and is not answered."""

    HELLO = 1
    DIGEST = 2
    DIGESTS = 3
    STATE = 4
    ERROR = 5
    BYE = 6
    PROBE = 7
    PRIORITY = 8


_MAXIMA = {
    Type.HELLO: _DOCUMENT_MAX,
    Type.DIGEST: _REQUEST.size + RANGES_MAX * _RANGE.size,
    Type.DIGESTS: PAYLOAD_MAX,
    Type.STATE: _DOCUMENT_MAX,
    Type.ERROR: _DOCUMENT_MAX,
    Type.BYE: 0,
    Type.PROBE: _DOCUMENT_MAX,
    Type.PRIORITY: _DOCUMENT_MAX,
}


@dataclass(frozen=True, slots=True)
class Frame:
    type: Type
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """Digests of ranges of the device, which are in order, one for each ``granularity`` bytes, one range's after the other's."""

    id: int
    ranges: tuple[Range, ...]
    granularity: int

    @property
    def blocks(self) -> int:
        return sum(-(-length // self.granularity) for _, length in self.ranges)

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(length for _, length in self.ranges)


@dataclass(frozen=True, slots=True)
class Answer:
    """values: DIGEST_BYTES for each block, without a meaning where it could not be read. errors: index of such a block -> errno."""

    id: int
    values: bytes
    errors: Mapping[int, int] = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """Raises ValueError for a payload that the other side would not take."""
    if len(frame.payload) > _MAXIMA[frame.type]:
        raise ValueError(f"{len(frame.payload)} bytes are too long for {frame.type.name}")
    return _HEADER.pack(MAGIC, frame.type, 0, 0, len(frame.payload)) + frame.payload


class Decoder:
    """Takes a stream in as it comes; keeps what is not a whole frame yet, at most one and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with ``data``. Raises Malformed."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _checked(bytes(self._buffer[: _HEADER.size]))
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(kind, payload)

    @property
    def cut_off(self) -> bool:
        """Whether the stream, if it ends now, ends within a frame."""
        return bool(self._buffer)


def _checked(header: bytes) -> tuple[Type, int]:
    magic, kind, flags, reserved, length = _HEADER.unpack(header)
    if magic != MAGIC:
        raise Malformed(f"it does not begin with {MAGIC.decode()}, but with {magic!r}")
    try:
        known = Type(kind)
    except ValueError:
        raise Malformed(f"frames of type {kind} are not known") from None
    if flags or reserved:
        raise Malformed(f"a frame has the flags {flags} and {reserved}, which are not known")
    if length > _MAXIMA[known]:
        raise Malformed(f"{length} bytes are too long for {known.name}")
    return known, length


def document(kind: Type, values: Mapping[str, object]) -> Frame:
    """A frame that carries a JSON object."""
    return Frame(kind, json.dumps(values, separators=(",", ":")).encode())


def read_document(frame: Frame) -> dict[str, object]:
    """Raises Malformed."""
    try:
        found = json.loads(frame.payload)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{frame.type.name} carries no JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise Malformed(f"{frame.type.name} carries no JSON object")
    return found


def request(asked: Request) -> Frame:
    parts = b"".join(_RANGE.pack(start, length) for start, length in asked.ranges)
    return Frame(Type.DIGEST, _REQUEST.pack(asked.granularity, asked.id) + parts)


def read_request(frame: Frame, size: int) -> Request:
    """What is asked of a device of ``size`` bytes. Raises Malformed, also for what lies beyond its end."""
    parts = len(frame.payload) - _REQUEST.size
    if parts < _RANGE.size or parts % _RANGE.size:
        raise Malformed("a request for digests has not its length")
    granularity, number = _REQUEST.unpack_from(frame.payload)
    asked = Request(number, tuple(_RANGE.iter_unpack(frame.payload[_REQUEST.size :])), granularity)
    if granularity & (granularity - 1) or not 4096 <= granularity <= 1 << 20:
        raise Malformed(f"{granularity} bytes are no granularity")
    before = 0
    for start, length in asked.ranges:
        if not length or start + length > size:
            raise Malformed(f"{length} bytes from {start} do not lie on a device of {size} bytes")
        if start % granularity or (length % granularity and start + length != size):
            raise Malformed(f"{length} bytes from {start} are not whole blocks of {granularity}")
        if start < before:
            raise Malformed(f"{length} bytes from {start} are asked for after what lies behind them")
        before = start + length
    if asked.blocks > SLICE_BLOCKS_MAX:
        raise Malformed(f"{asked.blocks} blocks are too many for one request")
    return asked


def answer(found: Answer) -> Frame:
    errors = sorted(found.errors.items())
    return Frame(
        Type.DIGESTS,
        _COUNT.pack(found.id, len(found.values) // DIGEST_BYTES)
        + found.values
        + len(errors).to_bytes(4, "big")
        + b"".join(_ERROR.pack(index, number) for index, number in errors),
    )


def read_answer(frame: Frame, asked: Request) -> Answer:
    """Raises Malformed for whatever does not answer exactly what was asked."""
    payload = frame.payload
    if len(payload) < _COUNT.size:
        raise Malformed("an answer is cut off")
    number, count = _COUNT.unpack_from(payload)
    if (number, count) != (asked.id, asked.blocks):
        raise Malformed(f"request {asked.id} for {asked.blocks} blocks was answered by {number} with {count}")
    at = _COUNT.size + count * DIGEST_BYTES
    values, rest = payload[_COUNT.size : at], payload[at:]
    if len(rest) < 4 or len(rest) != 4 + int.from_bytes(rest[:4], "big") * _ERROR.size:
        raise Malformed("an answer has not the length that it tells")
    errors: dict[int, int] = {}
    last = -1
    for index, failure in _ERROR.iter_unpack(rest[4:]):
        if not last < index < count or not 0 < failure <= _ERRNO_MAX:
            raise Malformed(f"an answer calls block {index} of {count} unreadable ({failure})")
        errors[index] = failure
        last = index
    return Answer(number, values, errors)
