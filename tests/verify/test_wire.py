"""Frames between two nodes: what is said arrives, and no stream, hostile or cut off, does more than be refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.verify import wire
from pvedrbdstor.verify.wire import Answer, Decoder, Frame, Malformed, Request, Type

SIZE = (1 << 30) + 512
_pieces = st.lists(st.integers(1, 64), min_size=1)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    found, at = [], 0
    for number in range(len(data)):
        size = sizes[number % len(sizes)]
        if at >= len(data):
            break
        found.append(data[at : at + size])
        at += size
    return found


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(Type))
    size = {Type.BYE: 0, Type.DIGEST: 24}.get(kind, 200)
    return Frame(kind, draw(st.binary(max_size=size)))


@given(st.lists(frames(), max_size=5), _pieces)
def test_frames_arrive_however_the_stream_is_cut_into_pieces(sent: list[Frame], sizes: list[int]) -> None:
    decoder = Decoder()
    stream = b"".join(map(wire.encode, sent))
    assert [frame for piece in cut(stream, sizes) for frame in decoder.feed(piece)] == sent
    assert not decoder.cut_off


@given(frames(), st.integers(1, 211))
def test_a_stream_that_ends_within_a_frame_is_known_to_be_cut_off(sent: Frame, missing: int) -> None:
    stream = wire.encode(sent)
    decoder = Decoder()
    assert list(decoder.feed(stream[: -min(missing, len(stream) - 1)])) == []
    assert decoder.cut_off


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_stream_is_decoded_or_refused_and_little_of_it_kept(pieces: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for piece in pieces:
            for _ in decoder.feed(piece):
                pass
    except Malformed:
        return
    assert len(decoder._buffer) <= sum(map(len, pieces))


@given(st.sampled_from(Type), st.integers(0, 255), st.integers(0, 65535), st.integers(0, (1 << 32) - 1))
def test_a_header_decides_how_much_is_kept(kind: Type, flags: int, reserved: int, length: int) -> None:
    """Of a hostile header nothing is waited for."""
    header = struct.pack(">4sBBHI", wire.MAGIC, kind, flags, reserved, length)
    decoder = Decoder()
    fits = not flags and not reserved and length <= wire._MAXIMA[kind] <= wire.PAYLOAD_MAX
    if fits:
        list(decoder.feed(header))
    else:
        with pytest.raises(Malformed):
            list(decoder.feed(header))


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 ", wire.MAGIC + bytes([9]) + bytes(7), b"Welcome to pve2", b"PDV2" + bytes(8)]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    """A login message, another version, another type."""
    with pytest.raises(Malformed):
        list(Decoder().feed(data))


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError):
        wire.encode(Frame(Type.STATE, bytes(1 << 17)))


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.none(), max_size=5))
def test_documents_arrive(values: dict[str, object]) -> None:
    assert wire.read_document(wire.document(Type.STATE, values)) == values


@pytest.mark.parametrize("payload", [b"", b"[1]", b"{", b"\xff", b"3", b"[" * 60000, b'{"a":' * 10000, b"NaN"])
def test_what_is_no_document_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_document(Frame(Type.HELLO, payload))


@given(st.binary(max_size=400))
def test_any_document_is_read_or_refused(payload: bytes) -> None:
    try:
        wire.read_document(Frame(Type.STATE, payload))
    except Malformed:
        pass


@given(st.integers(0, 2000), st.integers(1, 100), st.sampled_from([4096, 65536, 1 << 20]), st.integers(0, 9))
def test_requests_arrive(first: int, blocks: int, granularity: int, number: int) -> None:
    start = first * granularity
    length = min(blocks * granularity, SIZE - start)
    if length <= 0:
        return
    asked = Request(number, ((start, length),), granularity)
    assert wire.read_request(wire.request(asked), SIZE) == asked


@given(st.sets(st.integers(0, SIZE // 65536 - 1), min_size=1, max_size=wire.RANGES_MAX))
def test_requests_for_many_ranges_arrive(blocks: set[int]) -> None:
    asked = Request(5, tuple((number * 65536, 65536) for number in sorted(blocks)), 65536)
    assert wire.read_request(wire.request(asked), SIZE) == asked and asked.blocks == len(blocks)


def test_more_ranges_than_a_request_may_have_are_not_sent() -> None:
    asked = Request(5, tuple((number * 8192, 4096) for number in range(wire.RANGES_MAX + 1)), 4096)
    with pytest.raises(ValueError, match="too long for DIGEST"):
        wire.encode(wire.request(asked))


@pytest.mark.parametrize(
    "asked",
    [
        Request(1, ((0, 0),), 4096),
        Request(1, ((0, 4096),), 0),
        Request(1, ((0, 4096),), 2048),
        Request(1, ((0, 4096),), 12288),
        Request(1, ((0, 2 << 20),), 2 << 20),
        Request(1, ((2048, 4096),), 4096),
        Request(1, ((0, 5000),), 4096),
        Request(1, ((1 << 30, 4096),), 4096),
        Request(1, (((1 << 64) - 4096, 4096),), 4096),
        Request(1, ((0, 512 << 20),), 4096),
        Request(1, (), 4096),
        Request(1, ((0, 4096), (0, 4096)), 4096),
        Request(1, ((8192, 4096), (0, 4096)), 4096),
        Request(1, ((0, 8192), (4096, 4096)), 4096),
        Request(1, ((0, 4096), (8192, 0)), 4096),
        Request(1, ((0, 4096), (SIZE - 4096, 8192)), 4096),
        Request(1, ((0, 200 << 20), (200 << 20, 200 << 20)), 4096),
    ],
)
def test_a_request_for_what_is_not_there_is_refused(asked: Request) -> None:
    with pytest.raises(Malformed):
        wire.read_request(wire.request(asked), SIZE)


@given(st.binary(max_size=64))
def test_any_request_is_read_or_refused(payload: bytes) -> None:
    try:
        asked = wire.read_request(Frame(Type.DIGEST, payload), SIZE)
    except Malformed:
        return
    assert sum(asked.ranges[-1]) <= SIZE and asked.blocks <= wire.SLICE_BLOCKS_MAX


@given(st.integers(1, 30), st.data())
def test_answers_arrive(blocks: int, data: st.DataObject) -> None:
    asked = Request(7, ((0, blocks * 4096),), 4096)
    values = data.draw(st.binary(min_size=16 * blocks, max_size=16 * blocks))
    errors = data.draw(st.dictionaries(st.integers(0, blocks - 1), st.integers(1, 4095), max_size=blocks))
    found = Answer(7, values, errors)
    assert wire.read_answer(wire.answer(found), asked) == found


ASKED = Request(7, ((0, 4096), (8192, 4096)), 4096)
GOOD = wire.answer(Answer(7, bytes(32), {1: 5})).payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        wire.answer(Answer(8, bytes(32))).payload,
        wire.answer(Answer(7, bytes(48))).payload,
        wire.answer(Answer(7, bytes(32), {2: 5})).payload,
        wire.answer(Answer(7, bytes(32), {0: 0})).payload,
        wire.answer(Answer(7, bytes(32), {0: 4096})).payload,
        GOOD[:40] + struct.pack(">IIIII", 2, 1, 5, 0, 5),
        struct.pack(">II", 7, 2) + bytes(32) + b"\xff\xff\xff\xff",
    ],
)
def test_an_answer_to_something_else_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_answer(Frame(Type.DIGESTS, payload), ASKED)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.binary(max_size=80))
def test_any_answer_is_read_or_refused(at: int, value: int, junk: bytes) -> None:
    spoilt = bytearray(GOOD)
    spoilt[at] = value
    for payload in (bytes(spoilt), junk, GOOD[:at]):
        try:
            found = wire.read_answer(Frame(Type.DIGESTS, payload), ASKED)
        except Malformed:
            continue
        assert len(found.values) == 32 and set(found.errors) <= {0, 1}
