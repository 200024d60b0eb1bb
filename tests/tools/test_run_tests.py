"""How ./dev test counts, and that it never calls a failure a success."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "run_tests.py"
    spec = importlib.util.spec_from_file_location("run_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_tests"] = module
    spec.loader.exec_module(module)
    return module


def test_junit_counts_errors_as_failed_and_skipped_as_neither(runner: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text('<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>')
    assert runner.count_junit(report, "") == runner.Counts(passed=4, failed=3, skipped=3)


def test_no_junit_counts_nothing(runner: ModuleType, tmp_path: Path) -> None:
    assert runner.count_junit(tmp_path / "missing.xml", "") == runner.Counts()


def test_prove_is_counted_over_all_its_runs(runner: ModuleType, tmp_path: Path) -> None:
    output = (
        "Failed 1/2 test programs. 3/40 subtests failed.\nFiles=2, Tests=40, 1 wallclock secs\nResult: FAIL\n"
        "Files=1, Tests=7,  0 wallclock secs\nResult: PASS\n"
    )
    assert runner.count_prove(tmp_path, output) == runner.Counts(passed=44, failed=3)


def test_node_counts_cancelled_as_failed_and_todo_as_skipped(runner: ModuleType, tmp_path: Path) -> None:
    output = "FAILED x\n# tests 11\n# suites 0\n# pass 5\n# fail 2\n# cancelled 1\n# skipped 2\n# todo 1\n"
    assert runner.count_node(tmp_path, output) == runner.Counts(passed=5, failed=3, skipped=3)


def test_no_summary_of_node_counts_nothing(runner: ModuleType, tmp_path: Path) -> None:
    assert runner.count_node(tmp_path, "node: bad option\n") == runner.Counts()


JAVASCRIPT = """
const test = require('node:test');
test('holds', () => {});
test('breaks', async (t) => {
    await t.test('breaks within', () => { throw new Error('the reason'); });
    await t.test('holds within', () => {});
});
test('hangs', { timeout: 50 }, () => new Promise((done) => setTimeout(done, 500)));
test('is for later', { todo: true }, () => { throw new Error('no matter yet'); });
test('is left out', { skip: true }, () => {});
"""


def test_javascript_names_what_failed_and_why_and_nothing_that_passed(
    runner: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.test.js").write_text(JAVASCRIPT)
    (tmp_path / "broken.test.js").write_text("what is this(")
    files = (str(tmp_path / "some.test.js"), str(tmp_path / "broken.test.js"))
    outcome = runner.run(runner.Stage("javascript", runner.javascript(*files), 60, runner.count_node), tmp_path / "no")
    said = capfd.readouterr().out
    assert (outcome.status, outcome.counts) == (1, runner.Counts(passed=2, failed=4, skipped=2))
    for words in ("FAILED breaks within", "Error: the reason", "FAILED hangs", "broken.test.js", "SyntaxError"):
        assert words in said
    for words in ("holds", "later", "no matter yet", "left out", "FAILED breaks ("):
        assert words not in said


def test_javascript_is_tested_without_the_lab_too(runner: ModuleType, tmp_path: Path) -> None:
    (stage,) = (stage for stage in runner.test_stages(tmp_path, fast=True) if stage.name == "javascript")
    assert any(argument.endswith(".test.js") for argument in stage.command)


def test_a_stage_that_dies_without_a_failed_case_counts_as_one(runner: ModuleType, tmp_path: Path) -> None:
    outcome = runner.run(runner.Stage("dies", ["false"], 10), tmp_path / "report")
    assert (outcome.status, outcome.failed) == (1, 1)


def test_a_stage_that_cannot_start_fails(runner: ModuleType, tmp_path: Path) -> None:
    outcome = runner.run(runner.Stage("missing", ["/nonexistent/program"], 10), tmp_path / "report")
    assert outcome.failed == 1


def test_a_stage_that_takes_too_long_is_ended_with_its_children(runner: ModuleType, tmp_path: Path) -> None:
    mark = tmp_path / "still-alive"
    script = f"(sleep 2; touch {mark}) & sleep 60"
    started = time.monotonic()
    outcome = runner.run(runner.Stage("slow", ["sh", "-c", script], 0.3), tmp_path / "report")
    assert (outcome.status, outcome.failed) == (None, 1)
    assert time.monotonic() - started < 5
    time.sleep(2.2)
    assert not mark.exists()


def test_a_stage_that_succeeds_counts_what_its_report_says(runner: ModuleType, tmp_path: Path) -> None:
    script = 'echo "Files=1, Tests=5,  0 wallclock secs"'
    outcome = runner.run(runner.Stage("perl", ["sh", "-c", script], 10, runner.count_prove), tmp_path / "report")
    assert (outcome.status, outcome.counts.passed, outcome.failed) == (0, 5, 0)


def test_an_unknown_option_is_refused(runner: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--fats"]) == 64
    assert "--fast" in capsys.readouterr().err
