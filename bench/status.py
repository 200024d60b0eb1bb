"""`status`, which pvestatd asks of every storage every ten seconds: from the live view, against the base class's df."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.goals import Comparison, Faster, Series, Timing, percentile
from bench.perl_side import PerlSides, perl_sides, pve_tree
from bench.report import Report, milliseconds
from bench.service import open_unjudged
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.finding import Kind, Severity
from pvedrbdstor.mirror.live import view
from pvedrbdstor.mirror.live.view import Record, boot_clock, write_view
from pvedrbdstor.mirror.verdict import Verdict
from pvedrbdstor.service.methods import Dispatcher
from tests.backend import start_backend
from tests.hung_mount import hung_mount
from tests.loopback import Loopback

CALLS = 10_000
_BLOCK = 100
_KEPT = 200
_HUNG_CALLS = 3  # of the base class, each of which waits for its own deadline
_GOAL = Faster(5)
_OURS, _BASE = "plugin, service, view", "base class"
_SIZES = {"total": 300 << 30, "avail": 200 << 30, "used": 100 << 30}
_HEALTHY = Verdict(Kind.HEALTHY, True, True, True, "All is well.", "Nothing needs to be done.", Severity.OK)
_FROZEN = Verdict(Kind.SUSPENDED, False, False, False, "It does not answer.", "Wait a minute.", Severity.CRITICAL)


def measure(progress: Callable[[str], None], calls: int = CALLS) -> Report:
    """Takes about a minute with 10 000 calls of each side."""
    tree = pve_tree()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Loopback(1024, kind="xfs") as device:
        view.FOLDER = f"{folder}/live"  # the service, forked from here, reads it there
        with (
            start_backend(Path(folder), lambda: Dispatcher(open_unjudged)) as backend,
            perl_sides(backend.socket_path, tree) as perl,
        ):
            progress(f"{calls} calls of each side")
            with _monitored(str(device.path), _HEALTHY):
                well = _in_turn(perl, str(device.path), calls)
            progress(f"{calls} calls with a mount that hangs")
            with hung_mount(Path(folder) / "hung") as path, _monitored(str(path), _FROZEN):
                ours = _some(perl, "mirror", str(path), calls)
                hung = (ours, _some(perl, "dir", str(path), min(calls, _HUNG_CALLS)))
    return Report(
        title="status, from Perl to the answer",
        command="python3 -m bench --status --update-docs",
        machine={**machine.facts(), "calls": str(calls)},
        baseline="PVE's base class, re-enacted" if tree is None else "PVE's own base class",
        rows=[_row("status", well), _row("status, the mount hangs", hung)],
        extra=[_p99("status", well), _p99("the mount hangs", hung)],
    )


@contextmanager
def _monitored(path: str, verdict: Verdict) -> Iterator[None]:
    """As if a monitor watched the storage: its view is written anew every second."""
    config = StorageConfig("mirror", path, "r0")
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            write_view(Record(config, verdict, boot_clock(), 0.0, _SIZES))
            over.wait(1.0)

    heart = threading.Thread(target=beat)
    write_view(Record(config, verdict, boot_clock(), 0.0, _SIZES))
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()


Sides = tuple[list[Timing], list[Timing]]


def _in_turn(perl: PerlSides, path: str, calls: int) -> Sides:
    """A block of one side, a block of the other: both under the same load of the machine."""
    ours: list[Timing] = []
    base: list[Timing] = []
    while len(ours) < calls:
        count = min(_BLOCK, calls - len(ours))
        ours += _some(perl, "mirror", path, count)
        base += _some(perl, "dir", path, count)
    return ours, base


def _some(perl: PerlSides, side: str, path: str, count: int) -> list[Timing]:
    return [Timing(perl.call(side, path, "status").seconds) for _ in range(count)]


def _row(title: str, sides: Sides) -> Comparison:
    ours, base = sides
    return Comparison(title, Series(_OURS, _thinned(ours)), Series(_BASE, _thinned(base)), _GOAL)


def _thinned(timings: list[Timing]) -> tuple[Timing, ...]:
    """Of many, every n-th in order: the same median and percentiles in a file that stays readable."""
    step = max(1, len(timings) // _KEPT)
    return tuple(sorted(timings, key=lambda timing: timing.total)[step // 2 :: step])


def _p99(title: str, sides: Sides) -> str:
    ours, base = ([timing.total for timing in side] for side in sides)
    words = f"{title}: p99 of {len(ours)} calls {milliseconds(percentile(ours, 99))} ms, longest {milliseconds(max(ours))} ms"
    return f"{words}; base class p99 of {len(base)} calls {milliseconds(percentile(base, 99))} ms"
