"""A request that stops in the middle for ever, so that its node can be killed right there.

`python3 -m tests.lab.guest.stall STARTED POINT CASE`: prepares as guest/crash.py does, with the same CASE, answers the request
and, at the fault point POINT, or in the middle of the copying when POINT is `half`, writes its pid to the file STARTED and
stops. In addition a case may have "stream": bytes of zeros for the request to read, after the size as its header.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from pvedrbdstor import faultpoints
from tests.lab.guest.crash import prepare, request


def stop(started: str) -> NoReturn:
    Path(started).write_text(str(os.getpid()))
    while True:
        time.sleep(3600)


def stream_of(size: int) -> int:
    """A descriptor to read a raw image of ``size`` bytes from, none of them zero, in PVE's format `raw+size`."""
    with tempfile.TemporaryFile() as file:
        file.write(size.to_bytes(8, "little") + b"x" * size)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return os.dup(file.fileno())


def main() -> None:
    started, point, case = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    volname = prepare(case)

    def hook(name: str) -> None:
        if name == point:
            stop(started)

    def progress(done: int, total: int) -> None:
        if point == "half" and done >= total / 2:
            stop(started)

    faultpoints.hook = hook
    params = {"volname": volname, "vmid": case["vmid"], "target_vmid": case["vmid"], **case["params"]}
    stream = stream_of(case["stream"]) if case.get("stream") else None
    request(case["storage"], case["method"], stream=stream, progress=progress, **params)
    raise SystemExit(f"the request ended without having reached {point}")


if __name__ == "__main__":
    main()
