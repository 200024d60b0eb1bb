"""Digests of a device, against what fio reads from the same device with O_DIRECT, the same requests and depth, in the same run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bench import machine
from bench.goals import Comparison, Series, Share, Timing
from bench.perl_side import BenchError
from bench.report import Report
from pvedrbdstor import native

SIZE = 1 << 30
REQUEST, DEPTH, GRANULARITY = 1 << 20, 8, 64 << 10
_SLICE = 256 << 20  # bytes of one run()
_WARM = 4 * DEPTH * REQUEST
_ROUNDS = 6  # even: each side is first as often as the other
_GB = 1e9

Engine = Literal["io_uring", "threads"]


def measure(progress: Callable[[str], None], rounds: int = _ROUNDS) -> Report:
    """Takes a minute. Raises BenchError."""
    rows, extra = [], []
    facts = {**machine.facts(), "fio": machine.version("fio", "--version")}
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as on_disk:
        for where, opened in (("memory", _loop_device("/dev/shm")), ("disk", _file(on_disk))):
            with opened as path:
                for engine in ("io_uring", "threads"):
                    progress(f"{SIZE >> 20} MiB on {where}, {engine}")
                    row = compare(where, path, engine, rounds)
                    rows.append(row)
                    extra.append(words(row, SIZE))
    return Report(
        title="Digests of 1 GiB, read with O_DIRECT",
        command="python3 -m bench --digest --update-docs",
        machine={
            **facts,
            "memory": "a loop device on a file in /dev/shm",
            "disk": "a file in /var/tmp",
            "requests": f"{REQUEST >> 20} MiB, {DEPTH} in flight",
            "granularity": f"{GRANULARITY >> 10} KiB",
        },
        baseline="fio, sequential reads (io_uring, direct) of the same device, requests and depth, in turn",
        ours="pvedrbdstor: read and hashed",
        rows=rows,
        extra=extra,
    )


def compare(where: str, path: str, engine: Engine, rounds: int, size: int = SIZE) -> Comparison:
    """Both sides in turn, now one first and then the other; the first round, which finds other caches, does not count.

    size: bytes to read from the beginning on.
    """
    ours, reference = [], []
    for number in range(rounds + 1):
        if number % 2:
            reference.append(_fio(path, size))
        ours.append(_ours(path, engine, size))
        if not number % 2:
            reference.append(_fio(path, size))
    return Comparison(
        f"{size >> 20} MiB on {where}, {engine}",
        Series("digests", tuple(ours[1:])),
        Series("fio", tuple(reference[1:])),
        Share(0.9, size),
    )


def words(row: Comparison, size: int) -> str:
    """The spread of both sides' rates, and their CPU."""

    def side(series: Series) -> str:
        rates = sorted(size / timing.own / _GB for timing in series.timings)
        seconds = series.cpu(50) / (size / _GB)
        return f"{rates[0]:.2f} to {rates[-1]:.2f} GB/s, {seconds:.3f} s CPU per GB"

    shares = sorted(fio.own / ours.own for ours, fio in zip(row.ours.timings, row.reference.timings, strict=True))
    pairs = f"round by round {shares[0]:.0%} to {shares[-1]:.0%}"
    return f"{row.title}: {side(row.ours)}; fio {side(row.reference)}; {pairs}"


def _ours(path: str, engine: Engine, size: int) -> Timing:
    """CPU: of this process with the threads that the kernel gives it, but not of the device's own."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with native.Digester(
            fd, granularity=GRANULARITY, request=REQUEST, depth=DEPTH, engine=engine, path=path
        ) as digests:
            digests.run(0, _WARM)  # fio has touched its buffers before its clock starts, too
            before, started = _cpu(), time.monotonic()
            for start in range(0, size, _SLICE):
                if digests.run(start, min(_SLICE, size - start)).errors:
                    raise BenchError(f"{path} cannot be read")
            return Timing(time.monotonic() - started, cpu=_cpu() - before)
    finally:
        os.close(fd)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _fio(path: str, size: int) -> Timing:
    argv = ["fio", "--name=read", f"--filename={path}", "--readonly", "--rw=read", "--direct=1", "--ioengine=io_uring"]
    argv += [f"--bs={REQUEST}", f"--iodepth={DEPTH}", f"--size={size}", "--output-format=json"]
    try:
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"fio: {error}") from error
    (job,) = json.loads(said)["jobs"]
    seconds = job["read"]["runtime"] / 1e3
    if job["read"]["io_bytes"] != size:
        raise BenchError(f"fio read {job['read']['io_bytes']} bytes, not {size}")
    return Timing(seconds, cpu=(job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1e3)


@contextmanager
def _file(folder: str) -> Iterator[str]:
    """The path of a file of SIZE with data that nothing can make smaller."""
    path = Path(folder) / "content"
    with path.open("xb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    yield str(path)


@contextmanager
def _loop_device(parent: str) -> Iterator[str]:
    """The path of a loop device on such a file."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder, _file(folder) as backing:
        attach = ["losetup", "--find", "--show", "--read-only", backing]
        device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
