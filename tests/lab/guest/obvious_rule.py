"""A WRONG fence-peer handler, for tests only: "quorate and the peer not among the members: go on". It ends in split brain.

It is the rule that everybody thinks of first. The scenarios that break it show that the lab sees a split brain when there is one.
"""

from __future__ import annotations

import os
import re
import sys
import time

from tests.lab.guest.quorum import Quorum

_GO_ON, _STAY_FROZEN = 7, 1
_PATIENCE = 120.0  # seconds
_IDS = {"nodea": 1, "nodeb": 2}


def connected() -> bool:
    with open("/proc/drbd") as file:
        found = re.search(r"cs:(\S+)", file.read())
    return found is not None and found[1] == "Connected"


def decide(peer: int) -> int:
    deadline = time.monotonic() + _PATIENCE
    quorum, newest = None, None
    while time.monotonic() < deadline and not connected():
        try:
            quorum = quorum or Quorum()
            for heard in quorum.wait(0.2):
                newest = heard
        except OSError:
            quorum, newest = None, None
            time.sleep(0.5)
            continue
        if newest and newest.quorate and peer not in newest.members:
            return _GO_ON
    return _STAY_FROZEN


def main() -> None:
    """Argument: the log, outside of the node."""
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(text: str) -> None:
        os.write(log, f"{time.time():.3f} obvious rule [{os.getpid()}]: {text}\n".encode())

    say("asked")
    answer = decide(3 - _IDS[os.uname().nodename])
    say("WIN, go on" if answer == _GO_ON else "stay frozen")
    sys.exit(answer)


if __name__ == "__main__":
    main()
