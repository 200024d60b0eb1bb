"""The side that is asked: it reads its copy for the other node, and ends when nobody asks any more."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from pvedrbdstor.errors import Error
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify import priority, wire
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.channel import Channel, Gone, Silent
from pvedrbdstor.verify.copy import Copy
from pvedrbdstor.verify.wire import Frame, Malformed, Type

IDLE_SECONDS = 60.0
"""Without a word of the leader, which has one to say every few seconds as long as it lives."""
SEND_SECONDS = 60.0
_OPEN_MAX = 256
"""Requests that may wait; the leader keeps far fewer open."""
_END_SECONDS = 10.0

_C = TypeVar("_C", bound=Copy)


def serve(
    read_fd: int,
    write_fd: int,
    open_copy: Callable[[], AbstractContextManager[_C]],
    *,
    idle: float = IDLE_SECONDS,
    end: Callable[[int], object] = os._exit,
) -> int:
    """Answer until the leader says goodbye, or is gone: the exit status, 0 after a goodbye.

    end: ends the process where a read hangs in the kernel and nobody is there any more to wait for it.
    """
    channel = Channel(read_fd, write_fd)
    try:
        with open_copy() as copy:
            channel.send(wire.document(Type.HELLO, hellos.as_json(copy.hello)), SEND_SECONDS)
            return _Server(channel, copy, idle, end).run()
    except Error as error:
        _tell(channel, error.kind, error.message, error.fields)
    except OSError as error:
        if error.errno == errno.ECANCELED:  # as nobody is there any more
            return 2
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        _tell(channel, "OSError", f"{where}{error.strerror or error}", {})
    except (Gone, Silent):
        pass
    return 2


class _Server:
    def __init__(self, channel: Channel, copy: Copy, idle: float, end: Callable[[int], object]) -> None:
        self._channel, self._copy, self._idle, self._end = channel, copy, idle, end
        self._asked: queue.Queue[Frame | Exception] = queue.Queue()
        self._ended = threading.Event()

    def run(self) -> int:
        threading.Thread(target=self._listen, name="verify-listen", daemon=True).start()
        try:
            while True:
                asked = self._asked.get()
                if isinstance(asked, Malformed):
                    _tell(self._channel, "Malformed", str(asked), {})
                if isinstance(asked, Exception):
                    return 2
                if asked.type is Type.BYE:
                    return 0
                self._answer(asked)
        except Malformed as error:
            _tell(self._channel, "Malformed", str(error), {})
            return 2
        finally:
            self._ended.set()

    def _answer(self, asked: Frame) -> None:
        match asked.type:
            case Type.STATE:
                reply = wire.document(Type.STATE, states.as_json(self._copy.state()))
            case Type.DIGEST:
                reply = wire.answer(self._copy.digest(wire.read_request(asked, self._copy.hello.size)))
            case Type.PRIORITY:
                _take_priority(asked)
                return
            case _:
                raise Malformed(f"{asked.type.name} is nothing to be answered")
        self._channel.send(reply, SEND_SECONDS)

    def _listen(self) -> None:
        """Hear the end also while a read goes on, and cancel that: who says goodbye does not wait for it any more."""
        try:
            while not self._ended.is_set():
                frame = self._channel.receive(self._idle)
                if self._asked.qsize() >= _OPEN_MAX:
                    raise Malformed(f"more than {_OPEN_MAX} requests at once")
                self._asked.put(frame)
                if frame.type is Type.BYE:
                    break
        except (Gone, Silent, Malformed) as error:
            self._asked.put(error)
        self._copy.cancel()
        if not self._ended.wait(_END_SECONDS):
            self._end(2)


def _take_priority(asked: Frame) -> None:
    """This thread's is that of its reads. Raises Malformed."""
    try:
        priority.take(priority.from_json(wire.read_document(asked)))
    except ValueError as error:
        raise Malformed(str(error)) from error


def _tell(channel: Channel, kind: str, message: str, fields: Mapping[str, object]) -> None:
    """Why it ends, if anybody is there to hear it."""
    words: dict[str, object] = {"kind": kind, "message": message[:4000]}
    words.update({name: str(fields[name])[:2000] for name in ("cause", "remedy") if name in fields})
    with suppress(Gone, Silent):
        channel.send(wire.document(Type.ERROR, words), 5.0)
