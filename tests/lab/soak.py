"""`./dev soak`: every long scenario, several clusters side by side, and the tables of docs/lab-results.md.

Arguments are passed to pytest as what to choose from: files, or `-k WORDS`. Nodes mostly wait for time-outs, so that more
clusters run than there are processors, as memory allows. What needs the machine for itself runs afterwards.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.machine import facts
from bench.report import between, replace_between
from tests.lab import results
from tests.lab.assets import REPOSITORY
from tests.lab.errors import LabError
from tests.lab.results import Table

PAGE = REPOSITORY / "docs" / "lab-results.md"
LOGS = REPOSITORY / "artifacts" / "soak"
_PYTEST = ("/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider")
_MEMORY_OF_A_CLUSTER = 3 << 30  # two nodes and their disks, which lie in memory
_CASES = 3  # of one module on one cluster: those of a long module are shared among several clusters
_OWN_CLUSTERS = ("tests/lab/test_fencing.py",)  # modules that run their cases side by side themselves: never shared out
_SECONDS = 3600
_NOTHING_COLLECTED = 5  # pytest's exit status


@dataclass(frozen=True)
class Batch:
    """Test cases that use one cluster, one after the other."""

    number: int
    cases: list[str]

    @property
    def rows(self) -> Path:
        return LOGS / f"{self.number:02d}.jsonl"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.number:02d}.log"

    @property
    def title(self) -> str:
        return f"{Path(self.cases[0].partition('::')[0]).stem}, {len(self.cases)} cases"


def collect(marks: str, chosen: Sequence[str]) -> list[str]:
    """The names of the test cases with these marks. Raises LabError."""
    files = [] if any(not word.startswith("-") and "tests/lab" in word for word in chosen) else ["tests/lab"]
    command = [*_PYTEST, "--collect-only", "-m", marks, *files, *chosen]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, _NOTHING_COLLECTED):
        raise LabError(f"pytest cannot collect the tests:\n{done.stdout}{done.stderr}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def batches(cases: Sequence[str], first: int = 1) -> list[Batch]:
    """Cases of one module in batches of equal size, numbered from ``first`` on."""
    found: list[list[str]] = []
    for name, group in itertools.groupby(cases, key=lambda case: case.partition("::")[0]):
        module = list(group)
        count = 1 if name in _OWN_CLUSTERS else -(-len(module) // _CASES)
        found += [module[start::count] for start in range(count)]
    return [Batch(number, group) for number, group in enumerate(found, start=first)]


def side_by_side(cores: int, free: int) -> int:
    """How many clusters may run at once with this many processors and bytes of memory."""
    return max(1, min(cores + 1, free // _MEMORY_OF_A_CLUSTER))


class Running:
    """The batches that run now: whoever ends the soak ends them, and their nodes with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, batch: Batch) -> bool:
        """Run a batch, its output in its log; whether all of it passed."""
        environment = {**os.environ, results.FILE: str(batch.rows)}
        command = [*_PYTEST, "-s", "-m", "soak", *batch.cases]
        with batch.log.open("w") as log:
            with self._lock:
                if self._ended:
                    return False
                process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
                self._processes.add(process)
            try:
                return process.wait(_SECONDS) == 0
            except subprocess.TimeoutExpired:
                process.kill()  # nodes end themselves when their owner is gone
                process.wait()
                return False
            finally:
                with self._lock:
                    self._processes.discard(process)

    def end(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                process.kill()


def run(batch: Batch, running: Running) -> bool:
    """Run a batch and say how it went; whether all of it passed."""
    started = time.monotonic()
    passed = running.run(batch)
    outcome = "passed" if passed else f"FAILED, see {batch.log.relative_to(REPOSITORY)}"
    print(f"{batch.title}: {outcome}, {time.monotonic() - started:.0f} s", flush=True)
    return passed


@contextmanager
def ended_with(running: Running) -> Iterator[None]:
    """End what runs when the block ends, in whatever way."""
    try:
        yield
    finally:
        running.end()


def page(text: str, tables: Mapping[str, Table], command: str, minutes: float) -> str:
    """The page ``text`` with new tables between its markers."""
    return replace_between(text, "lab", f"{_made(command, minutes)}\n\n{results.markdown(tables)}")


def page_in_part(text: str, tables: Mapping[str, Table], command: str, minutes: float) -> str:
    """The page ``text`` with its tables where they were, but for what was measured anew, and the command that did."""
    old = between(text, "lab")
    head, _, _ = old.partition("\n## ")
    kept = [line for line in head.splitlines() if line and not line.startswith(f"In part made by `{command}` ")]
    head = "\n\n".join([*kept, f"In part m{_made(command, minutes)[1:]}"])
    return replace_between(text, "lab", f"{head}\n\n{results.markdown(results.merged(results.parse(old), tables))}")


def _made(command: str, minutes: float) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in facts().items())
    return f"Made by `{command}` in {minutes:.0f} min; {machine}."


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 when everything passed; only then the page is written: where only a part was chosen, its rows alone."""
    started = time.monotonic()
    try:
        shared = batches(collect("soak and not alone", arguments))
        alone = batches(collect("soak and alone", arguments), first=len(shared) + 1)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    if not shared + alone:
        print("no test was chosen", file=sys.stderr)
        return 1
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    width = side_by_side(os.cpu_count() or 1, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    print(f"{len(shared)} batches on {width} clusters at a time, then {len(alone)} alone", flush=True)
    running = Running()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        with ThreadPoolExecutor(width) as pool, ended_with(running):
            passed = list(pool.map(lambda batch: run(batch, running), shared))
            passed += [run(batch, running) for batch in alone]
    except KeyboardInterrupt:
        print("interrupted; the nodes are gone", file=sys.stderr)
        return 130
    tables = results.read([batch.rows for batch in shared + alone])
    print(f"\n{results.markdown(tables)}\n")
    if not all(passed):
        print(f"{passed.count(False)} of {len(passed)} batches failed; {PAGE.name} stays as it was", file=sys.stderr)
        return 1
    minutes = (time.monotonic() - started) / 60
    write = page_in_part if arguments else page
    PAGE.write_text(write(PAGE.read_text(), tables, shlex.join(["./dev", "soak", *arguments]), minutes))
    print(f"written: {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
