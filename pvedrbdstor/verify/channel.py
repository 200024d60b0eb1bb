"""Frames over two descriptors, with a deadline for each: a peer that is silent, or gone, never holds anybody up."""

from __future__ import annotations

import os
import select
import time
from collections import deque

from pvedrbdstor.verify import wire
from pvedrbdstor.verify.wire import Decoder, Frame, Malformed

_CHUNK = 1 << 18


class Gone(Exception):
    """The other side has ended; the text says how."""


class Silent(Exception):
    """Nothing came, or nothing could be sent, for too long."""


class Channel:
    """Reads from one descriptor and writes to another; both belong to whoever made them. One thread may read while another writes."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()

    def send(self, frame: Frame, seconds: float) -> None:
        """Raises Gone, Silent."""
        data = memoryview(wire.encode(frame))
        deadline = time.monotonic() + seconds
        while data:
            try:
                data = data[os.write(self._write_fd, data) :]
            except BlockingIOError:
                if not _ready(self._write_fd, select.POLLOUT, deadline):
                    raise Silent(f"nothing could be sent for {seconds:.0f} s") from None
            except OSError as error:
                raise Gone(f"the connection ended ({error.strerror})") from error

    def receive(self, seconds: float) -> Frame:
        """The next frame. Raises Gone, Silent, Malformed."""
        deadline = time.monotonic() + seconds
        while not self._frames:
            try:
                data = os.read(self._read_fd, _CHUNK)
            except BlockingIOError:
                if not _ready(self._read_fd, select.POLLIN, deadline):
                    raise Silent(f"nothing came for {seconds:.0f} s") from None
                continue
            except OSError as error:
                raise Gone(f"the connection ended ({error.strerror})") from error
            if not data:
                raise Gone("the connection ended within a frame" if self._decoder.cut_off else "the connection ended")
            self._frames.extend(self._decoder.feed(data))
            if not self._frames and time.monotonic() >= deadline:  # a trickle is as good as silence
                raise Silent(f"no whole frame came for {seconds:.0f} s")
        return self._frames.popleft()


def _ready(fd: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


__all__ = ["Channel", "Gone", "Malformed", "Silent"]
