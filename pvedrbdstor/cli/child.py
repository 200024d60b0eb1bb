"""One call in a child process, so that a mirror that hangs keeps neither the terminal nor Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

from pvedrbdstor.call import Call
from pvedrbdstor.cli.interrupt import Interrupt
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.errors import DeadlineExceeded, Error, InternalError
from pvedrbdstor.service.protocol import SupportsDispatch

_LOOK = 0.1  # seconds between two looks at Ctrl-C
_GRACE = 2.0  # seconds a child may take beyond its deadline to say so itself
_REPORT = 0.05  # seconds between two reports of progress


def dispatch(
    dispatcher: SupportsDispatch,
    call: Call,
    request: Mapping[str, object],
    stream: int | None,
    interrupt: Interrupt,
    progress: Progress,
    silence: float | None = None,
) -> object:
    """Let a child do ``call`` and what is left for after it; return the result. ``silence``: seconds without a word of its
    progress after which it is taken for hanging, however long the call may take.

    Raises what the method raises, DeadlineExceeded when the child hangs (it is left behind: the kernel has it), and
    InternalError when it dies.
    """
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _run(theirs, dispatcher, call, request, stream)
    theirs.close()
    try:
        result = _wait(ours, call, interrupt, progress, silence)
        _wait_for_end(ours, call)
        return result
    finally:
        ours.close()
        os.waitpid(pid, os.WNOHANG)


def _run(
    parent: Connection, dispatcher: SupportsDispatch, call: Call, request: Mapping[str, object], stream: int | None
) -> None:
    """The child. Never returns."""
    from pvedrbdstor.service.worker import finish

    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and tells us
        call.gone = parent.poll
        call.progress = _Reporter(parent)
        try:
            message: tuple[str, object] = ("result", dispatcher.dispatch(call.method, request, call, stream))
        except Error as error:
            message = ("error", error)
        except Exception as error:
            message = ("error", InternalError(where=f"'{call.method}'", detail=f"{type(error).__name__}: {error}"))
        parent.send(message)
        finish(call)
        status = 0
    finally:
        os._exit(status)


class _Reporter:
    """Reports progress to the parent, not more often than anybody can see."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _REPORT or done >= total:
            self._last = now
            self._parent.send(("progress", (done, total)))


def _wait(child: Connection, call: Call, interrupt: Interrupt, progress: Progress, silence: float | None) -> object:
    """The child's answer, while Ctrl-C is passed on and progress drawn."""
    told, heard = False, time.monotonic()
    while True:
        if interrupt.asked and not told:
            told = True
            child.send("gone")
        if not child.poll(_LOOK):
            if silence is not None and time.monotonic() > heard + silence:
                raise DeadlineExceeded(method=call.method, storage=call.storage, seconds=round(silence))
            if call.seconds_left() <= 0 and time.monotonic() > call.started + call.timeout + _GRACE:
                raise DeadlineExceeded(method=call.method, storage=call.storage, seconds=round(call.timeout))
            continue
        heard = time.monotonic()
        try:
            kind, value = child.recv()
        except EOFError:
            raise InternalError(where=f"'{call.method}'", detail="its process ended without an answer") from None
        if kind == "error":
            raise value
        if kind == "result":
            return value
        progress(*value)


def _wait_for_end(child: Connection, call: Call) -> None:
    """Blocks are given back after the answer; wait for that too, so that the space is there when the prompt is."""
    while call.seconds_left() > 0:
        if child.poll(_LOOK):
            return
