"""Run in a node: how long after the kernel found a split brain each of those who are to tell of it did.

    python3 -m tests.lab.guest.split_watch LOG NOTIFIED    prints a JSON object of seconds, or fails after 60 s

LOG is the service's log, NOTIFIED the file that the double of PVE's notification system writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pvedrbdstor.fencing.split import kernel_log
from pvedrbdstor.mirror.finding import Kind
from pvedrbdstor.mirror.live.view import read_view
from tests.lab.formation import RESOURCE, STORAGE

_PATIENCE = 60.0
STATUS = ["pvedrbdstor", "mirror", "status", STORAGE, "--json"]


def main(log: str, notified: str) -> None:
    began = time.monotonic()
    already = len(_text(log)), len(_text(notified))
    before = _found()
    seen: dict[str, float] = {}
    tellers: dict[str, Callable[[], bool]] = {
        "view": lambda: read_view(STORAGE).fresh and read_view(STORAGE).verdict.what in ("found", "refused"),
        "log": lambda: any(words in _text(log)[already[0] :] for words in ("met the other node", "which hung up")),
        "notification": lambda: Kind.SPLIT_BRAIN.value in _text(notified)[already[1] :],
    }
    found: float | None = None
    status: subprocess.Popen[str] | None = None
    while time.monotonic() - began < _PATIENCE:
        found = found or (now if (now := _found()) not in (None, before) else None)
        if found is not None:
            for name, told in tellers.items():
                if name not in seen and told():
                    seen[name] = time.clock_gettime(time.CLOCK_MONOTONIC) - found
            if status is None and "view" in seen:
                status = subprocess.Popen(STATUS, stdout=subprocess.PIPE, text=True)
            if len(seen) == len(tellers):
                break
        time.sleep(0.02)
    if found is None or status is None:
        raise SystemExit(f"the kernel found no split brain, or the view had it not: {kernel_log.records()[-30:]}")
    if json.loads(status.communicate()[0])["verdict"]["kind"] == Kind.SPLIT_BRAIN.value:
        seen["status"] = time.clock_gettime(time.CLOCK_MONOTONIC) - found
    print(json.dumps(seen))


def _found() -> float | None:
    """When the kernel found a split brain, or was hung up on by the node that did: seconds of its clock."""
    seen = kernel_log.moments(kernel_log.records(), RESOURCE, 0)
    return min((moment for moment in (seen.found, seen.refused) if moment is not None), default=None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
