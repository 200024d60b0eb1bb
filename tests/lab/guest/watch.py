"""What one node knows of DRBD, of corosync's quorum and of its own pauses, each change with its time, logged outside of it."""

from __future__ import annotations

import os
import re
import sys
import threading
import time

from tests.lab.guest.quorum import Quorum

_INTERVAL = 0.1  # seconds between two looks at /proc/drbd
_PAUSE = 2.0  # seconds without a look that are worth a line
_LINE = re.compile(r"cs:(\S+) ro:(\S+) ds:(\S+) \S+ (\S+)")


class Log:
    """Lines of CLOCK_REALTIME seconds, a word and a text."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def line(self, word: str, text: str) -> None:
        os.write(self._descriptor, f"{time.time():.3f} {word} {text}\n".encode())


def drbd_state() -> str:
    """Connection, roles, disks and flags of device 0 (/proc/drbd of 8.4); the first flag is "s" while I/O stands still."""
    try:
        with open("/proc/drbd") as file:
            found = _LINE.search(file.read())
    except OSError:
        found = None
    return " ".join(found.groups()) if found else "down"


def watch_drbd(log: Log) -> None:
    said, looked = "", time.monotonic()
    while True:
        now = time.monotonic()
        if now - looked > _PAUSE:
            log.line("PAUSE", f"{now - looked:.1f}")
        looked = now
        state = drbd_state()
        if state != said:
            log.line("DRBD", state)
            said = state
        time.sleep(_INTERVAL)


def watch_quorum(log: Log) -> None:
    said = ""
    while True:
        try:
            quorum = Quorum()
            while True:
                for heard in quorum.wait(1.0):
                    members = ",".join(str(member) for member in heard.members)
                    log.line("QUORUM", f"{'yes' if heard.quorate else 'no'} ring={heard.ring} members={members}")
                    said = ""
        except OSError as error:
            if str(error) != said:
                log.line("QUORUM", f"silent: {error}")
            said = str(error)
            time.sleep(0.5)


def main() -> None:
    log = Log(sys.argv[1])
    threading.Thread(target=watch_quorum, args=(log,), daemon=True).start()
    watch_drbd(log)


if __name__ == "__main__":
    main()
