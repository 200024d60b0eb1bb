"""The guard's words to syslog and systemd, which never wait for either, and what it leaves in /run for others and itself."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from pvedrbdstor import files
from pvedrbdstor.fencing import constants as seconds
from pvedrbdstor.fencing import paths
from pvedrbdstor.fencing.rules import Outage

_FACILITY_DAEMON = 3 << 3
NOTICE, WARNING, ERROR = 5, 4, 3


class Log:
    """Lines to syslog by datagrams that are dropped when it does not read them; also to a file, where one is named."""

    def __init__(self, file: str | None = None, address: str = "/dev/log") -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640) if file else None

    def say(self, text: str, level: int = NOTICE) -> None:
        line = f"<{_FACILITY_DAEMON | level}>pvedrbdstor-fence[{os.getpid()}]: {text}"
        try:
            self._socket.sendto(line.encode(), self._address)
        except OSError:
            pass  # nobody reads it, or not fast enough
        if self._file is not None:
            os.write(self._file, f"{time.time():.2f} {text}\n".encode())


class Notifier:
    """sd_notify(3), never waiting."""

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def tell(self, text: str) -> None:
        if self._address:
            try:
                self._socket.sendto(text.encode(), self._address)
            except OSError:
                pass


def write(path: str, content: Mapping[str, Any]) -> None:
    """Replace a small JSON file. Raises OSError."""
    files.replace(path, json.dumps(content))


def remember(now: float, outages: Mapping[str, Outage], path: str = paths.MEMORY) -> None:
    """Write down what the outages have come to, for a guard that follows this one. Raises OSError."""
    found = {
        key: {"began": outage.began, "won": outage.won, "gave_way": outage.gave_way} for key, outage in outages.items()
    }
    write(path, {"looked_at": now, "outages": found})


def remembered(now: float, path: str = paths.MEMORY) -> tuple[dict[str, Outage], float | None]:
    """What the guard before has written, and when it looked last; it has won nothing when that is so long ago that an outage may
    have ended."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(1 << 16))
        looked = float(found["looked_at"])
        recent = 0 <= now - looked <= seconds.PAUSE_SECONDS
        outages = {
            str(key): Outage(
                began=float(outage["began"]), won=outage["won"] is True and recent, gave_way=outage["gave_way"] is True
            )
            for key, outage in found["outages"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None
    return outages, min(looked, now)
