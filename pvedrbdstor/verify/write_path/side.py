"""One of the two sides, as the leader has it: a process here or there that is asked, and never waited for longer than it may take."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.nodes import asking, way
from pvedrbdstor.verify import wire
from pvedrbdstor.verify.channel import Channel, Gone, Silent
from pvedrbdstor.verify.remote import Remote, last_line, printable, same_version, told
from pvedrbdstor.verify.wire import Frame, Malformed, Type

ANSWER_SECONDS = 30.0
_SEND_SECONDS = 10.0
_END_SECONDS = 5.0


class Side:
    """A context manager. node: its name. Raises WritePathUnchecked with the reason where it does not answer, or answers with an error."""

    def __init__(self, node: str, storage: str) -> None:
        self.node = node
        self._storage = storage
        self._channel: Channel | None = None
        self._lost: WritePathUnchecked | None = None

    def __enter__(self) -> Side:
        self._channel = self._start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Goodbye where that is possible; the process removes its files and ends when nobody asks any more."""
        if self._channel is not None:
            with suppress(Gone, Silent):
                self._channel.send(Frame(Type.BYE), 0.5)
        self._hang_up()

    def ask(self, do: str, *, seconds: float = ANSWER_SECONDS, **words: object) -> dict[str, Any]:
        """One that has not answered once is not asked again: its answer to something else might still come."""
        if self._lost is not None:
            raise self._lost
        try:
            frame, found = self._answer(do, seconds, words)
        except WritePathUnchecked as error:
            self._lost = error
            raise
        if frame.type is Type.ERROR:
            raise self.unchecked(*told(self.node, found))
        if frame.type is not Type.PROBE:
            raise self._broken(f"{frame.type.name} answers nothing")
        return found

    def _answer(self, do: str, seconds: float, words: Mapping[str, object]) -> tuple[Frame, dict[str, Any]]:
        assert self._channel is not None
        try:
            self._channel.send(wire.document(Type.PROBE, {"do": do, **words}), _SEND_SECONDS)
            frame = self._channel.receive(seconds)
            return frame, wire.read_document(frame)
        except Silent as error:
            raise self.unchecked(
                f"{self.node} did not answer within {seconds:.0f} s (asked to {do})",
                f"Its mount or its disk may hang: look at 'dmesg' on {self.node}",
            ) from error
        except Gone as error:
            raise self.unchecked(
                f"{self.node} does not answer: {self._why(error)}",
                same_version(self.node),
            ) from error
        except Malformed as error:
            raise self._broken(str(error)) from error

    def text(self, answer: dict[str, Any], name: str) -> str:
        """A text of an answer. Raises WritePathUnchecked for anything else, as do the others."""
        value = answer.get(name)
        if not isinstance(value, str) or len(value) > 4096:
            raise self._broken(f"'{name}' is no text")
        return printable(value)

    def number(self, answer: dict[str, Any], name: str) -> float:
        value = answer.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise self._broken(f"'{name}' is no number")
        return float(value)

    def items(self, answer: dict[str, Any], name: str, kind: type, count: int | None = None) -> list[Any]:
        value = answer.get(name)
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self._broken(f"'{name}' is no list")
        if count is not None and len(value) != count:
            raise self._broken(f"'{name}' has {len(value)} values instead of {count}")
        return value

    def unchecked(self, cause: str, remedy: str) -> WritePathUnchecked:
        return WritePathUnchecked(storage=self._storage, cause=cause, remedy=remedy)

    def _broken(self, detail: str) -> WritePathUnchecked:
        return self.unchecked(
            f"{self.node} does not keep to the protocol: {detail}", "Install the same version of pvedrbdstor on both"
        )

    def _start(self) -> Channel:
        raise NotImplementedError

    def _hang_up(self) -> None:
        raise NotImplementedError

    def _why(self, error: Exception) -> str:
        return str(error)


class Here(Side):
    """This node, in a child process, which may hang in the kernel without us. serve: what it does with its end of the line."""

    def __init__(self, node: str, storage: str, serve: Callable[[int, int], int]) -> None:
        super().__init__(node, storage)
        self._serve = serve

    def _start(self) -> Channel:
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            status = 2
            try:
                self._socket.close()
                status = self._serve(theirs.fileno(), theirs.fileno())
            finally:
                os._exit(status)
        theirs.close()
        return Channel(self._socket.fileno(), self._socket.fileno())

    def _hang_up(self) -> None:
        self._socket.close()
        deadline = time.monotonic() + _END_SECONDS
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGTERM)  # what hangs in the kernel goes on until that lets it go
                return
            time.sleep(0.01)


class There(Side):
    """The other node: what ``argv`` starts, with the line on its standard input and output."""

    def __init__(self, node: str, storage: str, argv: Sequence[str]) -> None:
        super().__init__(node, storage)
        self._argv = list(argv)

    def _start(self) -> Channel:
        try:
            self._remote = Remote(self._argv)
        except OSError as error:
            raise self.unchecked(
                f"{self._argv[0]} could not be started ({error.strerror})",
                f"Can '{asking(way(self.node), 'true')}' be run here?",
            ) from error
        return self._remote.channel

    def _hang_up(self) -> None:
        self._remote.end()

    def _why(self, error: Exception) -> str:
        return last_line(self._remote.said(gone=True), error)
