"""One call in progress: how long it may take, whether anyone still waits for it, and what is left to do after the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.errors import CallerGone, DeadlineExceeded


def _nobody_left() -> bool:
    return False


@dataclass
class Call:
    """The circumstances of one request.

    timeout: seconds from the making of this object until the caller gives up. gone: asks whether the caller has hung
    up. progress: told (bytes done, bytes in all) by long work. after: work to do once the answer was sent.
    """

    method: str
    storage: str
    timeout: float = 50.0
    gone: Callable[[], bool] = _nobody_left
    progress: Callable[[int, int], None] | None = None
    after: list[Callable[[], None]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        """Seconds until the deadline, never below zero."""
        return max(0.0, self.started + self.timeout - time.monotonic())

    def check(self) -> None:
        """Raise CallerGone or DeadlineExceeded when going on is of no use; long work calls this often."""
        if self.gone():
            raise CallerGone(method=self.method)
        if self.seconds_left() <= 0:
            raise DeadlineExceeded(method=self.method, storage=self.storage, seconds=round(self.timeout))

    def advance(self, done: int, total: int) -> None:
        """Report progress in bytes, and check."""
        if self.progress is not None:
            self.progress(done, total)
        self.check()

    def run_after(self) -> None:
        """Do what was put off until the answer was sent. Each piece stands alone: leftovers are found at activation."""
        while self.after:
            self.after.pop(0)()
