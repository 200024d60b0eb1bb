"""A worker process: takes one request at a time from the server, answers it, then does what was left for later."""

from __future__ import annotations

import logging
import signal
import socket

from pvedrbdstor.call import Call
from pvedrbdstor.errors import CallerGone, Error, InternalError
from pvedrbdstor.service import channel
from pvedrbdstor.service.protocol import (
    Request,
    SupportsDispatch,
    encode_error,
    encode_result,
    parse_request,
)

log = logging.getLogger(__name__)


def ignore_signals() -> None:
    """Leave it to the server when to end: systemd signals the whole control group, a terminal its process group.

    Ignored, not handled: the programs we run are spared, too.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run(control: socket.socket, dispatcher: SupportsDispatch) -> None:
    """Serve until the server closes its end of ``control``; work that is under way is finished first."""
    reader = channel.FrameReader()

    def gone() -> bool:
        return reader.pending or _readable(control)

    while (received := channel.receive(control, reader)) is not None:
        kind, payload = received
        if kind == channel.REQUEST:  # GONE may come just after the answer it was meant to spare us
            came, line = channel.split_request(payload)
            request = parse_request(line)
            assert isinstance(request, Request), "the server passes on only what it could parse"
            call = Call(request.method, request.storage, request.timeout, gone, started=came)
            _reply(control, channel.frame(channel.ANSWER, answer(dispatcher, request, call)), call)


def answer(dispatcher: SupportsDispatch, request: Request, call: Call, stream: int | None = None) -> bytes:
    """The response line for ``request``, whatever happens in the dispatcher."""
    try:
        return encode_result(request.id, dispatcher.dispatch(request.method, request.params, call, stream))
    except InternalError as error:
        log.exception("%s on storage '%s' failed", request.method, request.storage)
        return encode_error(request.id, error)
    except Error as error:
        log.info("%s on storage '%s': %s", request.method, request.storage, error)
        return encode_error(request.id, error)
    except Exception as error:
        if stream is not None and isinstance(error, BrokenPipeError):
            return encode_error(request.id, CallerGone(method=request.method))
        log.exception("%s on storage '%s' failed", request.method, request.storage)
        return encode_error(
            request.id, InternalError(where=f"'{request.method}'", detail=f"{type(error).__name__}: {error}")
        )


def finish(call: Call) -> None:
    """Do what the call left for after its answer. A failure is only logged: activation finds what is left over."""
    while call.after:
        try:
            call.run_after()
        except Exception:
            log.exception("Clearing up after %s on storage '%s' failed", call.method, call.storage)


def _reply(control: socket.socket, reply: bytes, call: Call) -> None:
    """Send the answer, finish, say so; in one go when there is nothing to finish."""
    idle = channel.frame(channel.IDLE)
    try:
        if not call.after:
            control.sendall(reply + idle)
            return
        control.sendall(reply)
    except OSError:
        pass  # the server is gone, which the next receive() sees; what is to be cleared up still is
    finish(call)
    try:
        control.sendall(idle)
    except OSError:
        pass


def _readable(control: socket.socket) -> bool:
    """Word from the server while a call is in progress: its caller is gone, or the server is."""
    try:
        control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
