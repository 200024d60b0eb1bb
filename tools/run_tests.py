"""Run the stages of ./dev test (or, with --lint, the linters alone), all of them whatever fails, and count.

The last line printed is `N passed, N failed`: test cases of all stages; a stage that fails without naming a case
counts as one failed. Exits 0 when nothing failed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
VENV = ROOT / ".venv" / "bin"
OUTAGES = "tests/lab/test_fencing.py"
"""It runs four clusters side by side by itself."""
ESLINT = ROOT / ".cache" / "js" / "node_modules" / ".bin" / "eslint"


@dataclass(frozen=True)
class Counts:
    """Test cases by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Outcome:
    """How one stage ended: its exit status (None: it took too long), its cases, and its seconds."""

    name: str
    status: int | None
    counts: Counts
    seconds: float

    @property
    def failed(self) -> int:
        """Failed cases; a stage that failed otherwise counts as one."""
        return max(self.counts.failed, 0 if self.status == 0 else 1)

    def __str__(self) -> str:
        word = "too slow, ended" if self.status is None else "ok" if not self.failed else "FAILED"
        cases = f"{self.counts.passed} passed, {self.failed} failed, {self.counts.skipped} skipped"
        return f"{self.name:<14} {word:<16} {self.seconds:6.1f} s   {cases}"


@dataclass(frozen=True)
class Stage:
    """One command, the seconds it may take, and how its cases are counted from the junit file or its output."""

    name: str
    command: list[str]
    limit: float
    count: Callable[[Path, str], Counts] = lambda _report, _output: Counts()


def count_junit(report: Path, _output: str) -> Counts:
    """Cases in pytest's junit file; none when pytest ended before it wrote one."""
    if not report.exists() or not report.stat().st_size:
        return Counts()
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 written by our own pytest
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return Counts(total - failed - skipped, failed, skipped)


def count_prove(_report: Path, output: str) -> Counts:
    """Cases in the summaries of prove(1), one or more."""
    total = sum(int(n) for n in re.findall(r"^Files=\d+, Tests=(\d+),", output, re.MULTILINE))
    failed = sum(int(n) for n in re.findall(r"\b(\d+)/\d+ subtests failed\.", output))
    return Counts(total - failed, failed)


def count_node(_report: Path, output: str) -> Counts:
    """Cases in the summary of `node --test`, as tools/js/reporter.js passes it on."""
    said = dict(re.findall(r"^# (pass|fail|cancelled|skipped|todo) (\d+)$", output, re.MULTILINE))
    of = {word: int(number) for word, number in said.items()}
    return Counts(
        of.get("pass", 0), of.get("fail", 0) + of.get("cancelled", 0), of.get("skipped", 0) + of.get("todo", 0)
    )


def shell_files() -> list[str]:
    """Every shell script of ours: by its name, its first line, or its place among the package's scripts."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if relative.parts[0] in (".git", ".venv", ".cache", "artifacts", "build") or not path.is_file():
            continue
        with path.open("rb") as file:
            first = file.readline(64)
        if path.suffix == ".sh" or re.match(rb"#!\s*/(usr/)?bin/(env )?(ba|da)?sh\b", first):
            found.append(str(relative))
    return found


def lint_stages() -> list[Stage]:
    return [
        Stage("ruff", [str(VENV / "ruff"), "check", "--quiet", "."], 120),
        Stage("ruff format", [str(VENV / "ruff"), "format", "--check", "--quiet", "."], 120),
        Stage("mypy", [str(VENV / "mypy"), "--python-executable", PYTHON], 300),
        Stage("shellcheck", ["shellcheck", "--external-sources", *shell_files()], 120),
        Stage("perl lint", ["tests/perl/lint"], 300),
        Stage("eslint", [str(ESLINT), "--config", "tools/js/eslint.config.js", "--max-warnings=0", "."], 120),
    ]


def pytest(report: Path, *arguments: str) -> list[str]:
    return [PYTHON, "-m", "pytest", "-q", "--durations=5", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]


def side_by_side(workers: int) -> list[str]:
    """Arguments that share a suite's files out among so many processes (pytest-xdist).

    The lab and the package's machines wait for most of their time, so two of them fit on any machine.
    """
    return ["-n", str(workers), "--dist", "loadfile"]


def javascript(*files: str) -> list[str]:
    """Says what failed and the counts, where node's own reporters name every test."""
    return ["node", "--test", f"--test-reporter={ROOT}/tools/js/reporter.js", *files]


def javascript_tests() -> list[str]:
    """By name: versions of node differ in what a folder means to `node --test`."""
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/gui/*.test.js"))]


def test_stages(report: Path, *, fast: bool) -> list[Stage]:
    stages = [
        Stage(
            "python",
            pytest(
                report,
                *side_by_side(os.cpu_count() or 1),
                "tests",
                *(f"--ignore=tests/{suite}" for suite in ("browser", "lab", "packaging")),
            ),
            1500,
            count_junit,
        ),
        Stage("perl", ["tests/perl/run"], 600, count_prove),
        Stage("javascript", javascript(*javascript_tests()), 120, count_node),
    ]
    if not fast:
        stages += [
            Stage("lab outages", pytest(report, OUTAGES), 1500, count_junit),
            Stage("lab", pytest(report, *side_by_side(2), "tests/lab", f"--ignore={OUTAGES}"), 3600, count_junit),
            Stage("browser", pytest(report, "tests/browser"), 900, count_junit),
            Stage("packaging", pytest(report, *side_by_side(2), "tests/packaging"), 1200, count_junit),
        ]
    return stages


@contextmanager
def own_process_group(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process group of its own, which is gone afterwards whatever happens."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield child
    finally:
        for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                break
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                pass


def run(stage: Stage, report: Path) -> Outcome:
    """Run one stage with its output passed on as it comes."""
    print(f"\n== {stage.name}", flush=True)
    report.unlink(missing_ok=True)
    started = time.monotonic()
    output: list[str] = []
    timed_out = False

    def end(_signal: int, _frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, end)
    status: int | None = None
    try:
        with own_process_group(stage.command) as child:
            signal.setitimer(signal.ITIMER_REAL, stage.limit)
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    output.append(line)
                    print(line, end="", flush=True)
                status = child.wait()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        timed_out = True
        print(f"{stage.name} took more than {stage.limit:.0f} s and was ended", flush=True)
    except OSError as error:
        status = 127
        print(f"{stage.name} did not start: {error}", flush=True)
    counts = stage.count(report, "".join(output))
    return Outcome(stage.name, None if timed_out else status, counts, time.monotonic() - started)


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - {"--fast", "--lint"}
    if unknown:
        print(f"unknown: {' '.join(sorted(unknown))}; there are --fast and --lint", file=sys.stderr)
        return 64
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="pvedrbdstor-tests-") as scratch:
        report = Path(scratch) / "junit.xml"
        stages = lint_stages()
        if "--lint" not in arguments:
            stages += test_stages(report, fast="--fast" in arguments)
        outcomes = [run(stage, report) for stage in stages]

    print("\n== summary")
    for outcome in outcomes:
        print(outcome)
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed:
        print("failed:", ", ".join(outcome.name for outcome in failed))
    print(f"{sum(o.counts.passed for o in outcomes)} passed, {sum(o.failed for o in outcomes)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
