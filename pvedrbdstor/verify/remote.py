"""The process of the other side, started by ssh or whatever runs it: its line, its last words, its end."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pvedrbdstor import command
from pvedrbdstor.nodes import asking, host_key, way
from pvedrbdstor.verify.channel import Channel

_SAID_MAX = 4096
_TEXT_MAX = 2000
_END_SECONDS = 5.0


class Remote:
    """``argv`` runs from here on, with ``channel`` on its standard input and output, until end(). Raises OSError."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._said = bytearray()
        self._child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": command.PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
            start_new_session=True,
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self.channel = Channel(self._child.stdout.fileno(), self._child.stdin.fileno())
        self._listener = threading.Thread(target=self._listen, name="verify-stderr", daemon=True)
        self._listener.start()

    def end(self) -> None:
        """The process there ends with its standard input; what runs it here is ended after a while in any case."""
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_END_SECONDS)
            self._listener.join(1.0)
        command.stop(self._child)

    @property
    def status(self) -> int | None:
        """As of subprocess.Popen.returncode."""
        return self._child.returncode

    def said(self, *, gone: bool) -> list[str]:
        """The last lines on its standard error. gone: it has ended, or is about to, and more may come until then."""
        if gone:
            self._listener.join(1.0)
        return self._said.decode(errors="replace").strip().splitlines()

    def _listen(self) -> None:
        """Standard error, of which the end matters and little is kept."""
        assert self._child.stderr is not None
        fd = self._child.stderr.fileno()
        with suppress(OSError, ValueError):
            while data := os.read(fd, 4096):
                self._said += data
                del self._said[:-_SAID_MAX]


def last_line(lines: Sequence[str], error: Exception) -> str:
    """Why it does not answer: what ssh or the other program said last, where it said anything."""
    return printable(lines[-1]) if lines else str(error)


def told(node: str, words: Mapping[str, object]) -> tuple[str, str]:
    """The cause and the remedy of an error that the other side tells."""
    message, cause, remedy = (printable(words.get(name)) for name in ("message", "cause", "remedy"))
    return cause or f"{node} says: {message or 'nothing'}", remedy or f"Look at 'dmesg' on {node}"


def same_version(node: str) -> str:
    """What to do about one that does not answer."""
    line = asking(way(node), "pvedrbdstor --version")
    return f"Is the same version of pvedrbdstor on both nodes? Try '{line}'; {host_key(node)}"


def printable(text: object) -> str:
    """Another's text as one line of ours, without a full stop at its end; empty for anything else."""
    if not isinstance(text, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_TEXT_MAX]).strip().rstrip(".")
