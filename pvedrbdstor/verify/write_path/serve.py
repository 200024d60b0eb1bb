"""A side that is asked: answers the leader's questions with its probe, and leaves nothing behind when the leader says goodbye or is gone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import FrameType
from typing import NoReturn

from pvedrbdstor.errors import Error
from pvedrbdstor.verify import wire
from pvedrbdstor.verify.channel import Channel, Gone, Silent
from pvedrbdstor.verify.wire import Frame, Malformed, Type
from pvedrbdstor.verify.write_path.probe import Probe

IDLE_SECONDS = 180.0
"""Without a question: longer than the leader waits for the other side (side.py)."""
_SEND_SECONDS = 30.0


def serve(read_fd: int, write_fd: int, open_probe: Callable[[], AbstractContextManager[Probe]]) -> int:
    """The exit status: 0 after a goodbye. SIGTERM ends it, and the probe with it."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader hears Ctrl-C, and says goodbye
    channel = Channel(read_fd, write_fd)
    with suppress(Gone, Silent, Malformed), open_probe() as probe:
        while (frame := channel.receive(IDLE_SECONDS)).type is Type.PROBE:
            channel.send(_answer(probe, frame), _SEND_SECONDS)
        return 0 if frame.type is Type.BYE else 2
    return 2


def _answer(probe: Probe, frame: Frame) -> Frame:
    try:
        return wire.document(Type.PROBE, probe.answer(wire.read_document(frame)))
    except Error as error:
        return _error(error.message, {name: str(error.fields.get(name, "")) for name in ("cause", "remedy")})
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return _error(f"{error.strerror or error}{where}", {})
    except (ValueError, KeyError, TypeError) as error:
        return _error(f"{type(error).__name__}: {error}", {})


def _error(message: str, words: dict[str, str]) -> Frame:
    return wire.document(Type.ERROR, {"message": message[:4000], **{name: text[:2000] for name, text in words.items()}})


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
