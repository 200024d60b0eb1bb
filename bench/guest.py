"""The bench's part inside a node of the lab: `python3 -m bench.guest NAME ARGUMENT...` prints its result as JSON.

Times with a place in time are told in the node's own clock, seconds since 1970.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bench import digest, fixtures
from bench.local import reflinks
from bench.perl_side import perl_sides
from bench.rig import Rig
from bench.service import CallCost, Costs, MeasuringDispatcher
from tests.backend import start_backend

_CALLS = 30
_WRITERS = 4
_BLOCK = 4096
_AREA = 16 << 20  # bytes of its image each writer writes to
_PAUSE = 0.005  # seconds between two writes of a writer: a guest that is busy, not a benchmark


@contextmanager
def _rig(storage: str) -> Iterator[Rig]:
    """The whole line in this node, on the real mirror: the service verifies the mount as it does in production."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "costs"
        with (
            start_backend(Path(folder), lambda: MeasuringDispatcher(record)) as backend,
            perl_sides(backend.socket_path, None) as perl,
        ):
            yield Rig(perl, Costs(record), Path(storage), backend.pid)


def fill(storage: str) -> None:
    """Make 1000 raw images."""
    (Path(storage) / "images").mkdir(exist_ok=True)
    fixtures.fill_raw(Path(storage))
    os.sync()


def touch(storage: str) -> int:
    """Change every image's inode, so that this node holds all their locks exclusively: how many there are."""
    paths = list((Path(storage) / "images").glob("*/*.raw"))
    for path in paths:
        path.chmod(0o600)
        path.chmod(0o640)
    return len(paths)


def listing(storage: str, warm: str) -> list[list[float]]:
    """List everything, first cold, then ``warm`` times again: (began, seconds, seconds inside the service)."""
    with _rig(storage) as rig:
        runs = []
        for _ in range(1 + int(warm)):
            began = time.time()
            run = rig.mirror("list")
            runs.append([began, run.timing.total, float(len(run.result))])
        return runs


def write_until(storage: str, stop: str) -> list[list[float]]:
    """Guests that write: 4 KiB with O_DIRECT and O_DSYNC, until the file ``stop`` appears: (began, seconds) of each."""
    log: list[list[float]] = []
    threads = [threading.Thread(target=_write, args=(Path(storage), number, stop, log)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(log)


def _write(storage: Path, number: int, stop: str, log: list[list[float]]) -> None:
    path = storage / "images" / "900" / f"vm-900-disk-{number}.raw"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _AREA)
        file.write(bytes(_AREA))
        os.fsync(file.fileno())
    buffer = mmap.mmap(-1, _BLOCK)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    block = 0
    while not os.path.exists(stop):
        began = time.time()
        started = time.perf_counter()
        os.pwrite(fd, buffer, block * _BLOCK)
        log.append([began, time.perf_counter() - started])
        block = (block + 7919) % (_AREA // _BLOCK)
        time.sleep(_PAUSE)
    os.close(fd)


def compare_reflinks(storage: str, data_mib: str) -> dict[str, object]:
    """Snapshot and clone against the bare ioctl, and where their time goes.

    rows: (title, our (total, sync), the reference's (total, sync)). service: method -> median seconds of a call inside
    the service, of its syncing, and of the reflink itself. call: median seconds of a call that does next to nothing.
    """
    with _rig(storage) as rig:
        rows = [
            [row.title, *([[t.total, t.sync] for t in series.timings] for series in (row.ours, row.reference))]
            for row in reflinks(rig, int(data_mib))
        ]
        service = {method: _medians(rig.costs, method) for method in ("volume_snapshot", "clone_image")}
        image = str(rig.mirror("alloc", 103, "raw", 1024).result)
        calls = [rig.mirror("size_info", image).timing.total for _ in range(_CALLS)]
    return {"rows": rows, "service": service, "call": statistics.median(calls)}


def compare_digests(device: str, mib: str, rounds: str, engine: Literal["io_uring", "threads"]) -> dict[str, object]:
    """Reading and hashing the device against fio: title, and (total, cpu) in seconds of each of our runs and of fio's."""
    row = digest.compare("DRBD", device, engine, int(rounds), int(mib) << 20)
    ours, fio = ([[t.total, t.cpu] for t in series.timings] for series in (row.ours, row.reference))
    return {"title": row.title, "ours": ours, "fio": fio}


def _medians(costs: list[CallCost], method: str) -> list[float]:
    found = [cost for cost in costs if cost.method == method]
    return [statistics.median(values) for values in zip(*((c.seconds, c.sync, c.reflink) for c in found), strict=True)]


_TABLE: dict[str, Callable[..., object]] = {
    function.__name__: function for function in (fill, touch, listing, write_until, compare_reflinks, compare_digests)
}

if __name__ == "__main__":
    print(json.dumps(_TABLE[sys.argv[1]](*sys.argv[2:])))
