"""The whole line, ready to be measured: Perl, the service, a clock on what it spends on the disk; and the bare calls."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.goals import Timing
from bench.perl_side import BenchError, PerlSides
from bench.service import CallCost, Costs
from pvedrbdstor import native


@dataclass(frozen=True)
class Run:
    """One call: what it returned and how long it took."""

    result: Any
    timing: Timing


class Rig:
    """Calls of both sides on one storage; ``server``: the service's pid. costs: what each call of ``mirror`` took inside the service, in order."""

    def __init__(self, perl: PerlSides, costs: Costs, storage: Path, server: int) -> None:
        self._perl = perl
        self._server = server
        self._recorded = costs
        self.storage = storage
        self.costs: list[CallCost] = []

    def mirror(self, do: str, *args: object) -> Run:
        """A call of our plugin; what the service synced in it is told apart."""
        before = self._cpu()
        answer = self._perl.call("mirror", str(self.storage), do, *args)
        after = self._cpu()
        calls = self._recorded.since_last()
        if not calls:
            raise BenchError(f"the service left no record of '{do}'")
        self.costs += calls
        cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
        return Run(answer.result, Timing(answer.seconds, sum(call.sync for call in calls), cpu))

    def _cpu(self) -> dict[int, float]:
        """Of each process of our side, the CPU seconds so far (sched-stats.rst of Linux)."""
        with open(f"/proc/{self._server}/task/{self._server}/children") as file:
            pids = [self._perl.pid("mirror"), self._server, *map(int, file.read().split())]
        used = {}
        for pid in pids:
            try:
                with open(f"/proc/{pid}/schedstat") as file:
                    used[pid] = int(file.read().split()[0]) / 1e9
            except FileNotFoundError:  # a worker that has ended, or a kernel without CONFIG_SCHED_INFO
                continue
        return used

    def base(self, do: str, *args: object, then_sync: bool = False) -> Run:
        """A call of PVE's base class, which syncs nothing; ``then_sync``: what syncing the file it made would add."""
        answer = self._perl.call("dir", str(self.storage), do, *args)
        synced = sync_image(self.storage / "images" / answer.result) if then_sync else 0.0
        return Run(answer.result, Timing(answer.seconds + synced, synced))


def timed(work: Callable[[], object]) -> float:
    """The seconds ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sync_image(path: Path) -> float:
    """Sync a file and the folder it lies in: the seconds that takes."""
    fd, folder = os.open(path, os.O_RDONLY), os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return timed(lambda: native.fsync(fd)) + timed(lambda: native.fsync(folder))
    finally:
        os.close(fd)
        os.close(folder)


def bare_ficlone(source: Path, folder: Path) -> Timing:
    """The ioctl alone, into a new file that is then removed; syncing that file and its folder apart."""
    target = folder / "bare-ficlone"
    source_fd = os.open(source, os.O_RDONLY)
    target_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        seconds = timed(lambda: native.reflink_fd(source_fd, target_fd))
        synced = sync_image(target)
        return Timing(seconds + synced, synced)
    finally:
        os.close(source_fd)
        os.close(target_fd)
        target.unlink()


def qemu_img(*arguments: str) -> Timing:
    """The program alone, without any Perl."""
    command = ["qemu-img", *arguments]
    return Timing(timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
