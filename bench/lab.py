"""The bench on two nodes with OCFS2 on dual-primary DRBD: what costs something only in a cluster."""

from __future__ import annotations

import json
import shlex
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import digest, local, machine
from bench.goals import Comparison, NoGoal, Series, Share, Timing, percentile
from bench.perl_side import BenchError
from bench.report import Report, milliseconds
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT
from tests.lab.node import Node

_STOP = "/tmp/bench-stop"
_QUIET = 5.0  # seconds of writing alone before the first listing
_ROUNDS, _WARM = 3, 10
_CLOCK_TRIES = 5
_DIGEST_MIB, _DIGEST_ROUNDS = 512, 6


def measure(progress: local.Progress) -> Report:
    """Boot the cluster and measure; two to three minutes. Raises BenchError."""
    facts = machine.facts()
    try:
        with Cluster(progress=progress) as cluster:
            progress("1000 images, writers on one node, listings on the other")
            list_rows, extra = _lists(cluster)
            progress("snapshots and clones")
            reflink_rows, reflink_words = _reflinks(cluster.a)
            progress("digests of the device")
            digest_rows, digest_words = _digests(cluster.b)
            rows = [*list_rows, *reflink_rows, *digest_rows]
            extra = [*extra, *reflink_words, *digest_words]
            kind = {"uml": "User Mode Linux", "tcg": "qemu TCG"}[cluster.backend.kind]
    except LabError as error:
        raise BenchError(str(error)) from error
    return Report(
        title=f"On two nodes with OCFS2 on dual-primary DRBD ({kind})",
        command="python3 -m bench --lab --update-docs",
        machine={**facts, "file system": f"OCFS2 on DRBD 8.4, two nodes in {kind}"},
        baseline="the same listing again; for snapshot and clone the bare FICLONE call; for digests fio, as above",
        rows=rows,
        extra=extra,
    )


def guest(node: Node, name: str, *arguments: object, timeout: float = 150) -> Any:
    """Run an operation of bench/guest.py in the node: its result."""
    words = ["/usr/bin/python3", "-m", "bench.guest", name, *(str(argument) for argument in arguments)]
    environment = f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache exec"
    return json.loads(node.run(f"{environment} {shlex.join(words)}", timeout).splitlines()[-1])


def _lists(cluster: Cluster) -> tuple[list[Comparison], list[str]]:
    """Cold listings on B of images whose locks A holds, while guests write on A; and what the writers feel of it."""
    a, b = cluster.nodes
    guest(a, "fill", MOUNT_POINT)
    offset = clock_offset(b) - clock_offset(a)
    with ThreadPoolExecutor(1) as pool:
        writers = pool.submit(guest, a, "write_until", MOUNT_POINT, _STOP)
        try:
            time.sleep(_QUIET)
            runs = []
            for _ in range(_ROUNDS):
                guest(a, "touch", MOUNT_POINT)
                b.run("sync; echo 3 >/proc/sys/vm/drop_caches")
                runs.append(guest(b, "listing", MOUNT_POINT, _WARM))
        finally:
            a.run(f"touch {_STOP}")
        log = [(began, seconds) for began, seconds in writers.result()]
    cold = Series("cold", tuple(Timing(run[0][1]) for run in runs))
    warm = Series("warm", tuple(Timing(seconds) for run in runs for _, seconds, _ in run[1:]))
    windows = [(run[0][0] - offset, run[0][0] - offset + run[0][1]) for run in runs]
    rows = [Comparison("list 1000 raw images, cold", cold, warm, NoGoal())]
    return rows, _writers_words(log, windows)


def clock_offset(node: Node) -> float:
    """How many seconds the node's clock is ahead of this machine's, from the fastest of some exchanges."""
    exchanges = []
    for _ in range(_CLOCK_TRIES):
        before = time.time()
        theirs = float(node.run("echo $EPOCHREALTIME"))
        after = time.time()
        exchanges.append((after - before, theirs - (before + after) / 2))
    return min(exchanges)[1]


def _writers_words(log: Sequence[tuple[float, float]], windows: Sequence[tuple[float, float]]) -> list[str]:
    """The latency of the writes that were under way during a window, and of those before the first."""
    first = windows[0][0]
    alone = [seconds for began, seconds in log if began + seconds < first - 1]
    during = [
        seconds for began, seconds in log if any(began < end and began + seconds > start for start, end in windows)
    ]
    if not alone or not during:
        raise BenchError(f"the writers left {len(alone)} writes before and {len(during)} during the listings")
    return [
        _latency_words("4 KiB O_DSYNC writes of 4 writers on A, alone", alone),
        _latency_words("the same while B lists cold", during),
        f"a cold listing adds {milliseconds(statistics.median(during) - statistics.median(alone))} ms to the median"
        f" write, {milliseconds(percentile(during, 95) - percentile(alone, 95))} ms to the 95th percentile",
    ]


def _latency_words(what: str, values: Sequence[float]) -> str:
    median, p95 = statistics.median(values), percentile(values, 95)
    return (
        f"{what}: median {milliseconds(median)} ms, p95 {milliseconds(p95)} ms, "
        f"max {milliseconds(max(values))} ms ({len(values)} writes)"
    )


def _reflinks(node: Node) -> tuple[list[Comparison], list[str]]:
    rows = []
    found = guest(node, "compare_reflinks", MOUNT_POINT, 200)
    for title, ours, reference in found["rows"]:
        series = [tuple(Timing(*timing) for timing in timings) for timings in (ours, reference)]
        rows.append(Comparison(title, Series(local.OURS, series[0]), Series(local.BARE, series[1]), local.REFLINK_GOAL))
    words = [
        f"{method} inside the service: {milliseconds(seconds)} ms, of which {milliseconds(sync)} ms sync and"
        f" {milliseconds(reflink)} ms the reflink itself"
        for method, (seconds, sync, reflink) in found["service"].items()
    ]
    words.append(f"for scale, the size of one image through the whole line there: {milliseconds(found['call'])} ms")
    return rows, words


def _digests(node: Node) -> tuple[list[Comparison], list[str]]:
    """Of the DRBD device itself, which both nodes have mounted."""
    rows = []
    for engine in ("io_uring", "threads"):
        found = guest(node, "compare_digests", "/dev/drbd0", _DIGEST_MIB, _DIGEST_ROUNDS, engine, timeout=600)
        ours, fio = (tuple(Timing(total, cpu=cpu) for total, cpu in found[side]) for side in ("ours", "fio"))
        size = _DIGEST_MIB << 20
        rows.append(Comparison(found["title"], Series("digests", ours), Series("fio", fio), Share(0.9, size)))
    return rows, [digest.words(row, _DIGEST_MIB << 20) for row in rows]
