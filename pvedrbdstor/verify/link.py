"""The other node's copy, as the leader has it: a process there that answers over ssh, or over whatever runs it."""

from __future__ import annotations

import shlex
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from pvedrbdstor.errors import VerifyRefused, VerifyStopped
from pvedrbdstor.nodes import asking, way
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify import priority as priorities
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify import wire
from pvedrbdstor.verify.channel import Gone, Silent
from pvedrbdstor.verify.hello import Hello
from pvedrbdstor.verify.priority import Priority
from pvedrbdstor.verify.remote import Remote, last_line, same_version, told
from pvedrbdstor.verify.state import NodeState
from pvedrbdstor.verify.wire import Answer, Frame, Malformed, Request, Type

START_SECONDS = 30.0
ALIVE_SECONDS = 15
"""Silence of ssh's own after which it takes the connection for dead."""
_SEND_SECONDS = 10.0
_LAST_WORDS_SECONDS = 0.5


class Link:
    """A context manager; ``argv`` is run for its length and ended with it. Answers come in the order of the questions.

    node: the other one's name. Raises VerifyStopped where it is gone, silent or does not keep to the protocol, and VerifyRefused where
    it says that its copy cannot be read.
    """

    def __init__(self, argv: Sequence[str], storage: str, node: str) -> None:
        self._argv, self._storage, self.node = list(argv), storage, node
        self._open: deque[Request | None] = deque()
        self._answers: deque[Answer | NodeState] = deque()

    def __enter__(self) -> Link:
        try:
            self._remote = Remote(self._argv)
        except OSError as error:
            raise VerifyRefused(
                storage=self._storage,
                cause=f"{shlex.quote(self._argv[0])} could not be started ({error.strerror})",
                remedy=f"Can '{asking(way(self.node), 'true')}' be run here?",
            ) from error
        self._channel = self._remote.channel
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Goodbye where that is possible; the other process ends with its standard input in any case."""
        with suppress(Gone, Silent, ValueError):
            self._channel.send(Frame(Type.BYE), 0.5)
        self._remote.end()

    def greet(self, own: Hello) -> Hello:
        """The other side's own words. Raises VerifyRefused where they do not fit ours."""
        try:
            frame = self._channel.receive(START_SECONDS)
        except (Gone, Silent, Malformed) as error:
            raise VerifyRefused(
                storage=self._storage,
                cause=f"{self.node} does not answer: {self._why(error)}",
                remedy=same_version(self.node),
            ) from error
        if frame.type is Type.ERROR:
            self._error(frame, VerifyRefused)
        try:
            words = wire.read_document(frame)
            found = hellos.another_version(own, words)
            hello = hellos.from_json(words) if found is None else None
        except (Malformed, ValueError) as error:
            self._broken(error)
        if hello is not None:
            found = hellos.obstacle(own, hello, self._storage)
        if found is not None:
            raise VerifyRefused(storage=self._storage, cause=found.cause, remedy=found.remedy)
        assert hello is not None
        return hello

    def prioritise(self, own: Priority) -> None:
        """Have the other side read with our own priority."""
        self._give(wire.document(Type.PRIORITY, priorities.as_json(own)))

    def ask(self, asked: Request) -> None:
        """The answer comes with answer(), in the order of the questions."""
        self._send(wire.request(asked), asked)

    def ask_state(self) -> None:
        self._send(Frame(Type.STATE), None)

    def poll(self, seconds: float) -> bool:
        """Whether the first of the open questions is answered, waiting so long at most."""
        if self._answers:
            return True
        try:
            frame = self._channel.receive(seconds)
        except Silent:
            return False
        except (Gone, Malformed) as error:
            self._broken(error)
        self._take(frame)
        return True

    def answer(self) -> Answer | NodeState:
        """After poll() has said that there is one."""
        return self._answers.popleft()

    def _take(self, frame: Frame) -> None:
        if frame.type is Type.ERROR:
            self._error(frame, VerifyStopped)
        try:
            if not self._open:
                raise Malformed(f"{frame.type.name} answers nothing")
            asked = self._open.popleft()
            expected = Type.STATE if asked is None else Type.DIGESTS
            if frame.type is not expected:
                raise Malformed(f"{frame.type.name} came instead of {expected.name}")
            if asked is None:
                self._answers.append(states.from_json(wire.read_document(frame)))
            else:
                self._answers.append(wire.read_answer(frame, asked))
        except (Malformed, ValueError) as error:
            self._broken(error)

    def _send(self, frame: Frame, asked: Request | None) -> None:
        self._give(frame)
        self._open.append(asked)

    def _give(self, frame: Frame) -> None:
        try:
            self._channel.send(frame, _SEND_SECONDS)
        except (Gone, Silent) as error:
            self._last_words()
            self._broken(error)

    def _last_words(self) -> None:
        """Raises VerifyStopped with what it says of why it takes no more, where it does so before long."""
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        with suppress(Gone, Silent, Malformed):
            while (left := deadline - time.monotonic()) > 0:
                said = self._channel.receive(left)
                if said.type is Type.ERROR:
                    self._error(said, VerifyStopped)

    def _error(self, frame: Frame, kind: type[VerifyRefused] | type[VerifyStopped]) -> NoReturn:
        try:
            words = wire.read_document(frame)
        except Malformed as error:
            self._broken(error)
        cause, remedy = told(self.node, words)
        raise kind(storage=self._storage, cause=cause, remedy=remedy)

    def _broken(self, error: Exception) -> NoReturn:
        raise VerifyStopped(
            storage=self._storage,
            cause=f"{self.node} does not answer any more: {self._why(error)}"
            if isinstance(error, Gone | Silent)
            else f"{self.node} does not keep to the protocol: {error}",
            remedy=same_version(self.node),
        ) from error

    def _why(self, error: Exception) -> str:
        lines = self._remote.said(gone=isinstance(error, Gone))
        if any("No such command 'verify'" in line for line in lines):
            return "its pvedrbdstor is older and has no 'verify'"
        return last_line(lines, error)
