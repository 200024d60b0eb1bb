"""One request on its way through the pool: its deadline, and its one answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.errors import DeadlineExceeded, Error
from pvedrbdstor.service.loop import Timer
from pvedrbdstor.service.protocol import Request, encode_error


@dataclass(eq=False)
class Job:
    """A request on its way through the pool. answer: called once at most, with the response line."""

    request: Request
    line: bytes
    answer: Callable[[bytes], None]
    came: float = field(default_factory=time.monotonic)
    deadline: Timer | None = None
    answered: bool = False

    def reply(self, response: bytes) -> None:
        if not self.answered:
            self.answered = True
            self.answer(response)

    def fail(self, error: Error) -> None:
        self.reply(encode_error(self.request.id, error))

    def give_up(self) -> None:
        """Answer that the deadline has passed."""
        self.fail(
            DeadlineExceeded(
                method=self.request.method, storage=self.request.storage, seconds=f"{self.request.timeout:g}"
            )
        )

    def settle(self) -> None:
        """Its deadline is of no interest any more."""
        if self.deadline is not None:
            self.deadline.cancel()
