"""The side that is asked: it reads its copy for the other node, and ends when nobody asks any more."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from pvedrbdstor.errors import Error, VerifyStopped
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


class Ending:
    """How this side is asked to end, by a signal's handler, after which it says so and ends. node: its name."""

    def __init__(self, storage: str, node: str) -> None:
        self._storage, self._node = storage, node
        self.asked = False
        self._wake: Callable[[], None] = lambda: None

    def ask(self) -> None:
        self.asked = True
        self._wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """What is to be done then; done at once where it was asked before."""
        self._wake = wake
        if self.asked:
            wake()

    def error(self) -> VerifyStopped:
        return VerifyStopped(
            storage=self._storage,
            cause=f"{self._node} was told to end it, as its mirror is being taken down, or the node itself",
            remedy=f"'pvedrbdstor mirror up {self._storage}' there brings it up again",
        )


def serve(
    read_fd: int,
    write_fd: int,
    open_copy: Callable[[], AbstractContextManager[_C]],
    *,
    idle: float = IDLE_SECONDS,
    ending: Ending | None = None,
    end: Callable[[int], object] = os._exit,
) -> int:
    """Answer until the leader says goodbye, or is gone, or this side is asked to end: the exit status, 0 after a goodbye.

    end: ends the process where a read hangs in the kernel and nobody is there any more to wait for it.
    """
    channel = Channel(read_fd, write_fd)
    ending = ending or Ending("", "")  # nobody asks
    try:
        with open_copy() as copy:
            channel.send(wire.document(Type.HELLO, hellos.as_json(copy.hello)), SEND_SECONDS)
            return _Server(channel, copy, idle, ending, end).run()
    except Error as error:
        _tell_error(channel, error)
    except OSError as error:
        if error.errno == errno.ECANCELED:
            if ending.asked:
                _tell_error(channel, ending.error())
            return 2  # nobody is there any more
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        _tell(channel, "OSError", f"{where}{error.strerror or error}", {})
    except (Gone, Silent):
        pass
    return 2


class _Server:
    def __init__(self, channel: Channel, copy: Copy, idle: float, ending: Ending, end: Callable[[int], object]) -> None:
        self._channel, self._copy, self._idle, self._ending, self._end = channel, copy, idle, ending, end
        # a signal's handler may put in while this thread takes out
        self._asked: queue.SimpleQueue[Frame | Exception] = queue.SimpleQueue()
        self._ended = threading.Event()

    def run(self) -> int:
        threading.Thread(target=self._listen, name="verify-listen", daemon=True).start()
        self._ending.wakes(self._wake)
        try:
            while True:
                asked = self._asked.get()
                if self._ending.asked:
                    raise self._ending.error()
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

    def _wake(self) -> None:
        """For _ending: whatever this side waits for."""
        self._asked.put(Frame(Type.BYE))
        self._copy.cancel()

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


def _tell_error(channel: Channel, error: Error) -> None:
    _tell(channel, error.kind, error.message, error.fields)


def _tell(channel: Channel, kind: str, message: str, fields: Mapping[str, object]) -> None:
    """Why it ends, if anybody is there to hear it."""
    words: dict[str, object] = {"kind": kind, "message": message[:4000]}
    words.update({name: str(fields[name])[:2000] for name in ("cause", "remedy") if name in fields})
    with suppress(Gone, Silent):
        channel.send(wire.document(Type.ERROR, words), 5.0)
