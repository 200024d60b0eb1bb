"""What a guest said on its serial console, watched from outside the nodes: which writes it holds acknowledged, and when.

Every QEMU the guest runs in writes to a file of its own; one after the other they are one stream, as a migration may
cut it in the middle of a line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Said:
    """One line of the guest: when it was complete (monotonic seconds of the host), its word, and its number."""

    when: float
    word: str
    number: int


@dataclass
class _Console:
    path: Path
    read: int = 0
    chunks: list[tuple[float, bytes]] = field(default_factory=list)


class Acknowledged:
    """Follows the consoles of one guest in a thread, until close(). Thread-safe."""

    def __init__(self) -> None:
        self._consoles: list[_Console] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="lab-guest", daemon=True)
        self._follower.start()

    def add(self, console: Path) -> None:
        """From now on the guest speaks in this file, which need not exist yet."""
        with self._lock:
            self._consoles.append(_Console(console))

    def close(self) -> None:
        self._closed.set()
        self._follower.join()

    def said(self) -> list[Said]:
        """Everything until now."""
        with self._lock:
            self._read()
            return lines(chunk for console in self._consoles for chunk in console.chunks)

    def text(self) -> str:
        """The same as the guest wrote it, with what its kernel complained about."""
        with self._lock:
            self._read()
            data = b"".join(chunk for console in self._consoles for _, chunk in console.chunks)
        return data.decode(errors="replace")

    def last(self) -> int:
        """The last number acknowledged; 0 before the first."""
        return next((said.number for said in reversed(self.said()) if said.word == "ack"), 0)

    def _follow(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            with self._lock:
                self._read()

    def _read(self) -> None:
        for console in self._consoles:
            try:
                with console.path.open("rb") as file:
                    file.seek(console.read)
                    data = file.read()
            except FileNotFoundError:
                continue
            if data:
                console.read += len(data)
                console.chunks.append((time.monotonic(), data))


def lines(chunks: Iterable[tuple[float, bytes]]) -> list[Said]:
    """The guest's lines in a stream that came in pieces; a line is as old as the piece that completed it."""
    found = []
    pending = b""
    for when, chunk in chunks:
        *complete, pending = (pending + chunk).split(b"\n")
        for line in complete:
            match line.decode(errors="replace").split():
                case ["ack" | "found" as word, number] if number.isdecimal():
                    found.append(Said(when, word, int(number)))
    return found


def gaps(said: Iterable[Said]) -> list[tuple[Said, Said]]:
    """Neighbours that do not follow one another: a number left out or said twice. A start of the guest goes on from
    what it found."""
    return [(one, other) for one, other in pairwise(said) if other.word == "ack" and other.number != one.number + 1]


def longest_silence(said: Iterable[Said], since: float) -> float:
    """The longest time in seconds between two lines of which the second one came after ``since``."""
    return max((other.when - one.when for one, other in pairwise(said) if other.when > since), default=0.0)
