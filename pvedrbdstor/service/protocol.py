"""The wire format: one line of JSON-RPC 2.0 becomes a Request or a Rejection, a result or an error becomes one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol

from pvedrbdstor.call import Call
from pvedrbdstor.errors import Error

REQUEST_LIMIT = 1 << 20
"""Bytes a request line may have, without its newline."""
RESPONSE_LIMIT = 64 << 20
"""Bytes a response line may have, newline included."""
DEFAULT_TIMEOUT = 50.0
MIN_TIMEOUT = 0.05
MAX_TIMEOUT = 86400.0


class SupportsDispatch(Protocol):
    """What answers requests: raises errors.Error, returns what JSON can carry. ``stream`` is a descriptor of bulk data."""

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object: ...


class ParseError(Error):
    """The request is not JSON: {detail}."""

    code = -32700
    exit_status = 64


class InvalidRequest(Error):
    """The request is not a JSON-RPC 2.0 request: {detail}."""

    code = -32600
    exit_status = 64


class MethodNotFound(Error):
    """Method '{method}' is not known. Do the versions of the Perl plugin and of pvedrbdstor match?"""

    code = -32601
    exit_status = 64


class InvalidParams(Error):
    """Bad parameters: {detail}."""

    code = -32602
    exit_status = 64


RequestId = int | str | None


@dataclass(frozen=True)
class Request:
    """One well-formed request.

    params: as sent, without ``timeout``. timeout: seconds the caller waits. storage: the storage's name, for
    accounting only; empty when the request names none.
    """

    id: int | str
    method: str
    params: Mapping[str, object]
    timeout: float
    storage: str


@dataclass(frozen=True)
class Rejection:
    """Why a line is no request. id: the request's own where it could be read, else None."""

    id: RequestId
    error: Error


def parse_request(
    line: bytes, default_timeout: float = DEFAULT_TIMEOUT, max_timeout: float = MAX_TIMEOUT
) -> Request | Rejection:
    """Read one request line. Never raises, whatever the bytes are. Timeouts are clamped to what is sensible."""
    if len(line) > REQUEST_LIMIT:
        return Rejection(None, InvalidRequest(detail=f"it is longer than {REQUEST_LIMIT} bytes"))
    try:
        data = _decode(line)
    except RecursionError:
        return Rejection(None, ParseError(detail="it is nested too deeply"))
    except ValueError as error:
        return Rejection(None, ParseError(detail=_reason(error)))
    if not isinstance(data, dict):
        return Rejection(None, InvalidRequest(detail="it is not an object"))
    request_id = data.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, int | str):
        return Rejection(None, InvalidRequest(detail="'id' is neither text nor a whole number"))
    try:
        return _request(request_id, data, default_timeout, max_timeout)
    except Error as error:
        return Rejection(request_id, error)


def _request(request_id: int | str, data: dict[str, object], default_timeout: float, max_timeout: float) -> Request:
    if data.get("jsonrpc") != "2.0":
        raise InvalidRequest(detail="'jsonrpc' is not \"2.0\"")
    method = data.get("method")
    if not isinstance(method, str) or not method:
        raise InvalidRequest(detail="'method' is not a name")
    params = data.get("params", {})
    if not isinstance(params, dict):
        raise InvalidParams(detail="'params' is not an object")
    storage = params.get("storage")
    storage_id = storage.get("id") if isinstance(storage, dict) else None
    return Request(
        id=request_id,
        method=method,
        params={name: value for name, value in params.items() if name != "timeout"},
        timeout=_timeout(params.get("timeout"), default_timeout, max_timeout),
        storage=storage_id if isinstance(storage_id, str) else "",
    )


def _timeout(value: object, default: float, longest: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParams(detail="'timeout' is not a number of seconds")
    return float(min(max(value, MIN_TIMEOUT), longest))


def _decode(line: bytes) -> object:
    """JSON as RFC 8259 has it: no NaN, no infinity, no name twice, no half of a surrogate pair. Raises ValueError."""
    data = json.loads(
        line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )
    if b"\\u" in line:  # the only way for half a surrogate pair to come in
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    return data


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return str(error)


def encode_result(request_id: RequestId, result: object) -> bytes:
    """The response line. Raises TypeError, ValueError or RecursionError when JSON cannot carry ``result``."""
    line = _line({"jsonrpc": "2.0", "id": request_id, "result": result})
    if len(line) > RESPONSE_LIMIT:
        raise ValueError(f"the result has {len(line)} bytes, more than the {RESPONSE_LIMIT} a response may have")
    return line


def encode_error(request_id: RequestId, error: Error) -> bytes:
    """The response line for ``error``."""
    body = {
        "code": error.code,
        "message": error.message,
        "data": {"kind": error.kind, "exit_status": error.exit_status},
    }
    return _line({"jsonrpc": "2.0", "id": request_id, "error": body})


def exit_status(response: bytes) -> int:
    """What a command line ends with after this response line of ours: 0, or the error's exit status."""
    error = json.loads(response).get("error")
    return 0 if error is None else int(error["data"]["exit_status"])


def _line(response: dict[str, object]) -> bytes:
    """ASCII only, so that no reader can decode it wrongly. File names that are not UTF-8 get question marks."""
    text = json.dumps(response, allow_nan=False, separators=(",", ":"))
    if "\\ud" in text:
        whole = json.dumps(response, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
        text = json.dumps(json.loads(whole), separators=(",", ":"))
    return text.encode("ascii") + b"\n"
