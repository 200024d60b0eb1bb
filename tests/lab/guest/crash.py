"""A crash of the backend: a disk is prepared, then one request answered in a process that is killed at a fault point.

`python3 -m tests.lab.guest.crash POINT CASE`, the case as JSON: {"storage", "vmid", "snapshot", "method", "params"}, and
"format" if it is not raw; the request's params get the volume's name and guest. The guest's old volumes are freed first. With the POINT `none` nothing
is killed. Printed as JSON: the fault points that were reached, and whether the process was killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pvedrbdstor import faultpoints
from pvedrbdstor.call import Call
from pvedrbdstor.service.methods import Dispatcher
from tests.lab.guest.ops import write_pattern

DISK = 4 << 20
WRITTEN = 65536


def request(
    storage: Mapping[str, Any],
    method: str,
    *,
    stream: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **params: object,
) -> Any:
    """Answer a request in this process, and do what it left for after the answer."""
    call = Call(method=method, storage=storage["id"], progress=progress)
    result = Dispatcher().dispatch(method, {"storage": storage, "timeout": 50, **params}, call, stream)
    call.run_after()
    return result


def prepare(case: Mapping[str, Any]) -> str:
    """The guest's only volume: with the snapshot `old`, if one is wanted, which the content has left since."""
    storage, vmid = case["storage"], case["vmid"]
    for image in request(storage, "list_images", vmid=vmid, volids=None):
        volname = image["volid"].partition(":")[2]
        request(storage, "free_image", volname=volname, is_base="/base-" in volname)
    fmt = case.get("format", "raw")
    volname = str(request(storage, "alloc_image", vmid=vmid, format=fmt, name=None, size_kib=DISK // 1024))
    path = f"{storage['path']}/images/{volname}"
    fill(path, fmt, "old")
    if case["snapshot"]:
        request(storage, "volume_snapshot", volname=volname, snap="old")
        fill(path, fmt, "new")
    return volname


def fill(path: str, fmt: str, seed: str) -> None:
    """Write to the disk in an image as a guest does: data that follow from ``seed``."""
    if fmt == "raw":
        write_pattern(path, seed, "0", str(WRITTEN))
    else:
        write = f"write -P {ord(seed[0])} 0 {WRITTEN}"
        subprocess.run(["qemu-io", "-t", "none", "-f", fmt, "-c", write, path], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    point, case = sys.argv[1], json.loads(sys.argv[2])
    volname = prepare(case)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:

        def hook(name: str) -> None:
            os.write(write_end, f"{name}\n".encode())
            if name == point:
                os.kill(os.getpid(), signal.SIGKILL)

        faultpoints.hook = hook
        vmid = case["vmid"]
        request(case["storage"], case["method"], volname=volname, vmid=vmid, target_vmid=vmid, **case["params"])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        reached = pipe.read().split()
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if ended not in (0, -signal.SIGKILL):
        raise SystemExit(f"the request failed with exit status {ended}")
    print(json.dumps({"reached": reached, "killed": ended != 0}))


if __name__ == "__main__":
    main()
