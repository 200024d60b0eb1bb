"""The wire format: requests from anybody, responses that every reader understands."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import VolumeExists
from pvedrbdstor.service.protocol import (
    DEFAULT_TIMEOUT,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    REQUEST_LIMIT,
    RESPONSE_LIMIT,
    Rejection,
    Request,
    encode_error,
    encode_result,
    exit_status,
    parse_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def line(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "status"} | members).encode()


def rejected(data: bytes) -> tuple[object, int]:
    rejection = parse_request(data)
    assert isinstance(rejection, Rejection), rejection
    return rejection.id, rejection.error.code


def accepted(data: bytes) -> Request:
    request = parse_request(data)
    assert isinstance(request, Request), request
    return request


@given(st.binary())
def test_arbitrary_bytes_are_a_rejection_that_can_be_sent(data: bytes) -> None:
    rejection = parse_request(data)
    assert isinstance(rejection, Rejection)
    assert json.loads(encode_error(rejection.id, rejection.error))["error"]["code"] in (-32700, -32600)


@given(st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params"]), JSON | st.just("2.0")))
def test_arbitrary_members_are_a_request_or_a_rejection(members: dict[str, object]) -> None:
    outcome = parse_request(json.dumps(members).encode())
    if isinstance(outcome, Rejection):
        assert outcome.error.code in (-32700, -32600, -32602)
        encode_error(outcome.id, outcome.error)
    else:
        assert members["jsonrpc"] == "2.0" and outcome.method == members["method"] and outcome.id == members["id"]


@given(JSON)
def test_arbitrary_parameters_arrive_as_sent(value: object) -> None:
    assert accepted(line(params={"value": value, "storage": {"id": "ha"}})).params["value"] == value


@given(JSON)
def test_arbitrary_results_survive_the_wire_in_one_ascii_line(value: object) -> None:
    response = encode_result("a", value)
    assert response.isascii() and response.count(b"\n") == 1 and response.endswith(b"\n")
    assert json.loads(response) == {"jsonrpc": "2.0", "id": "a", "result": value}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b'{"id":' * 50_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":-Infinity}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1e999}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":' + b"9" * 5000 + b"}}", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":2}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\\ud800"}}', -32700),
        (b"[]", -32600),
        (b"[" + line() + b"]", -32600),
        (line(id=None), -32600),
        (line(id=True), -32600),
        (line(id=1.5), -32600),
        (b" " * (REQUEST_LIMIT + 1), -32600),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_request_is_named_without_an_id(data: bytes, code: int) -> None:
    assert rejected(data) == (None, code)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"jsonrpc": "1.0"}, -32600),
        ({"jsonrpc": None}, -32600),
        ({"method": 5}, -32600),
        ({"method": ""}, -32600),
        ({"params": [1]}, -32602),
        ({"params": None}, -32602),
        ({"params": {"timeout": "5"}}, -32602),
        ({"params": {"timeout": True}}, -32602),
    ],
)
def test_a_bad_member_is_named_with_the_requests_id(members: dict[str, object], code: int) -> None:
    assert rejected(line(**({"id": "q-1"} | members))) == ("q-1", code)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, DEFAULT_TIMEOUT), (5, 5.0), (0, MIN_TIMEOUT), (-3, MIN_TIMEOUT), (10**300, MAX_TIMEOUT), (0.25, 0.25)],
)
def test_a_timeout_is_clamped_and_kept_from_the_method(timeout: object, seconds: float) -> None:
    request = accepted(line(params={"timeout": timeout, "vmid": 7}))
    assert math.isclose(request.timeout, seconds)
    assert request.params == {"vmid": 7}


@pytest.mark.parametrize("storage", [None, 5, [], {}, {"id": 5}])
def test_a_request_without_a_storage_name_is_accounted_to_none(storage: object) -> None:
    assert accepted(line(params={"storage": storage})).storage == ""


def test_a_request_of_exactly_the_limit_is_read() -> None:
    padding = REQUEST_LIMIT - len(line(params={"p": ""}))
    assert accepted(line(params={"p": "x" * padding})).method == "status"


def test_an_error_carries_code_message_kind_and_exit_status() -> None:
    response = encode_error(7, VolumeExists(volume="vm-1-disk-0.raw", storage="ha"))
    error = json.loads(response)["error"]
    assert error["code"] == 21 and error["message"].startswith("Volume 'vm-1-disk-0.raw' already exists")
    assert error["data"] == {"kind": "VolumeExists", "exit_status": 73}
    assert exit_status(response) == 73
    assert exit_status(encode_result(7, None)) == 0


def test_file_names_that_are_not_utf8_do_not_break_the_response() -> None:
    assert json.loads(encode_result(1, {"bad\udcff": "\U0001f600\udc80"}))["result"] == {"bad?": "\U0001f600?"}


@pytest.mark.parametrize(
    "value", [{1, 2}, float("nan"), b"x", "x" * RESPONSE_LIMIT], ids=lambda value: repr(value)[:10]
)
def test_a_result_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_result(1, value)
