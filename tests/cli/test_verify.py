"""`pvedrbdstor verify`: what it takes, what it prints, how it ends. The comparison itself: tests/verify."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.cli import verify_write_path
from pvedrbdstor.cli.interrupt import ENDINGS, Interrupt
from pvedrbdstor.cli.session import Session
from pvedrbdstor.errors import VerifyRefused
from pvedrbdstor.mirror import readers
from pvedrbdstor.verify import explain, job, last
from pvedrbdstor.verify.plan import Mode
from pvedrbdstor.verify.report import Outcome
from tests.cli.comparing import CLEAN, DIVERGED, GIB, Job
from tests.cli.conftest import CommandLine


def test_equal_copies_end_with_0(cli: CommandLine, played: Job) -> None:
    result = cli("verify", "ha", "--mode", "full")
    assert result.exit_code == 0
    assert result.stdout == (
        "ha: the copies of a and b are equal.\n"
        "  Compared: 1 GiB of 1 GiB (all of it) in blocks of 64 KiB, in 8 s, 128 MiB/s.\n"
    )


def test_a_difference_ends_with_1_and_says_where_it_is(cli: CommandLine, played: Job) -> None:
    played.outcome = DIVERGED
    result = cli("verify", "ha", "--mode", "full")
    assert result.exit_code == 1
    assert "16 KiB DIFFER between a and b" in result.stdout
    assert "12 KiB at byte 2396160" in result.stdout and "4 KiB at byte 1073737728" in result.stdout


@pytest.mark.parametrize("number", ENDINGS)
def test_the_findings_are_printed_though_nobody_waits_for_their_meaning(
    cli: CommandLine, played: Job, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    played.outcome = DIVERGED

    def slow(*_: object) -> None:
        os.kill(os.getpid(), number)
        pytest.fail("it went on")

    monkeypatch.setattr(explain, "explain", slow)
    result = cli("verify", "ha")
    assert result.exit_code == 1 and "12 KiB at byte 2396160" in result.stdout
    assert "could not be told: that was interrupted." in result.stdout
    assert "what lies there is looked up; Ctrl-C prints the report without it." in result.stderr
    assert played.told == [DIVERGED]


@pytest.mark.parametrize(("number", "looked_up"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_who_sends_sigterm_does_not_wait_for_what_lies_there(
    cli: CommandLine, played: Job, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, looked_up: bool
) -> None:
    """A shutdown, or 'mirror down', which waits for the device and for the mount."""
    played.outcome, played.interrupted = replace(DIVERGED, stopped="it was interrupted.", resumable=True), True
    played.signals = [number]
    asked: list[bool] = []
    monkeypatch.setattr(explain, "explain", lambda *_: asked.append(True) or explain.Explanation())
    assert cli("verify", "ha").exit_code == 1 and asked == [True] * looked_up


def test_it_is_known_as_a_reader_while_it_runs(cli: CommandLine, played: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    run = played.run
    monkeypatch.setattr(job, "run", lambda *words: names.append(os.listdir(readers.FOLDER)) or run(*words))
    cli("verify", "ha")
    assert names == [[f"ha.{os.getpid()}"]] and os.listdir(readers.FOLDER) == []


def test_what_was_found_stays_on_the_disk_until_the_report_is_out(
    cli: CommandLine, played: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("verify", "ha")
    assert played.told == [CLEAN]

    def gone(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Session, "answer", gone)
    played.outcome = DIVERGED
    assert cli("verify", "ha").exit_code == 1
    assert played.told == [CLEAN]
    kept = last.read("ha")
    assert kept is not None and kept.last.verdict == "diverged", "not that it could not be checked"


def test_ctrl_c_twice_is_not_taken_for_a_difference(cli: CommandLine, played: Job) -> None:
    played.signals = [signal.SIGINT, signal.SIGINT]
    assert cli("verify", "ha").exit_code == 130 and last.read("ha") is None


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_differs_for_certain_ends_with_1_though_it_was_stopped(
    cli: CommandLine, played: Job, interrupted: bool
) -> None:
    played.outcome = replace(DIVERGED, stopped="b is Diskless. Look.", resumable=True)
    played.interrupted = interrupted
    result = cli("verify", "ha")
    assert result.exit_code == 1 and "'pvedrbdstor verify ha --resume' goes on" in result.stdout
    assert "ha: 16 KiB DIFFER between a and b. Not compared to the end: b is Diskless. Look.\n" in result.stdout
    document = json.loads(cli("verify", "ha", "--json").stdout)
    assert (document["verdict"], document["exit_status"]) == ("diverged", 1)
    assert (document["stopped"], document["resumable"]) == ("b is Diskless. Look.", True)


def test_what_differs_though_not_all_was_compared_ends_with_1_and_says_both(cli: CommandLine, played: Job) -> None:
    played.outcome = replace(DIVERGED, much=True)
    result = cli("verify", "ha")
    assert result.exit_code == 1 and "16 KiB DIFFER between a and b. Not all of it was compared.\n" in result.stdout


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (replace(CLEAN, unsettled=((0, 8192),)), "nothing is known to differ, but 8 KiB kept changing"),
        (replace(CLEAN, much=True), "nothing is known to differ, but not all of it was compared"),
        (replace(CLEAN, unreadable_there=((0, 8192),)), "8 KiB cannot be read; the rest is equal"),
        (replace(CLEAN, stopped="a resync is running. Wait for its end."), "not compared to the end: a resync"),
    ],
)
def test_what_is_not_known_ends_with_2_and_is_never_called_equal(
    cli: CommandLine, played: Job, outcome: Outcome, words: str
) -> None:
    played.outcome = outcome
    result = cli("verify", "ha")
    assert result.exit_code == 2 and words in result.stdout
    assert "are equal" not in result.stdout
    document = json.loads(cli("verify", "ha", "--json").stdout)
    assert document["verdict"] != "clean" and document["exit_status"] == 2


def test_what_is_not_compared_at_all_ends_with_2(cli: CommandLine, played: Job) -> None:
    played.outcome = VerifyRefused(storage="ha", cause="b is Diskless", remedy="Attach it")
    result = cli("verify", "ha")
    assert result.exit_code == 2 and "were not compared: b is Diskless. Attach it." in result.stderr
    error = json.loads(cli("verify", "ha", "--json").stderr)["error"]
    assert (error["kind"], error["exit_status"]) == ("VerifyRefused", 2)
    played.outcome = PermissionError(13, "Permission denied", "/dev/drbd0")
    assert cli("verify", "ha").exit_code == 2
    assert cli("verify", "nothing").exit_code == 2


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(cli: CommandLine, played: Job) -> None:
    played.outcome = replace(CLEAN, compared=4096, stopped="it was interrupted.", resumable=True)
    played.interrupted = True
    result = cli("verify", "ha")
    assert result.exit_code == 130 and "'pvedrbdstor verify ha --resume' goes on" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_ends_programs_is_asked_as_ctrl_c_is(
    cli: CommandLine, played: Job, number: signal.Signals
) -> None:
    """A shutdown sends two of them."""
    before = [signal.getsignal(one) for one in ENDINGS]
    played.signals = [number, signal.SIGTERM, signal.SIGHUP]
    result = cli("verify", "ha")
    assert result.exit_code == 0 and played.asked
    assert [signal.getsignal(one) for one in ENDINGS] == before


def test_ctrl_c_is_heard_though_a_shell_in_the_background_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt(signals=ENDINGS) as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_nohup_is_kept() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt(signals=ENDINGS) as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.asked and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_comparison_that_was_resumed_says_when_it_began(cli: CommandLine, played: Job) -> None:
    played.outcome = replace(CLEAN, resumed=True)
    assert "It began at 1970-01-01 " in cli("verify", "ha", "--resume").stdout
    assert json.loads(cli("verify", "ha", "--resume", "--json").stdout)["resumed"] is True


def test_a_verify_of_drbds_that_was_not_whole_is_not_called_so(cli: CommandLine, played: Job) -> None:
    played.outcome = replace(CLEAN, mode="kernel", much=True)
    result = cli("verify", "ha", "--mode", "kernel")
    assert result.exit_code == 2 and "not all of it was compared" in result.stdout and "(all of it" not in result.stdout


def test_options_arrive(cli: CommandLine, played: Job) -> None:
    cli("verify", "ha", "--granularity", "4k", "--rate", "100", "--latency", "0")
    (asked,) = played.asked
    assert asked.granularity == 4096 and asked.pace.rate == 100 << 20 and asked.pace.bound is None
    cli("verify", "ha", "--resume")
    assert played.asked[1].resume
    cli("verify", "ha", "--mode", "kernel")
    assert played.asked[2].mode is Mode.KERNEL, "the latency by default is none that was asked for"


@pytest.mark.parametrize(
    "options",
    [
        ["--granularity", "1k"],
        ["--granularity", "2M"],
        ["--granularity", "12k"],
        ["--granularity", "x"],
        ["--mode", "quick"],
        ["--fraction", "0%"],
        ["--rate", "0"],
        ["--mode", "kernel", "--rate", "100"],
        ["--mode", "kernel", "--latency", "50"],
        ["--resume", "--mode", "full"],
        ["--resume", "--granularity", "4k"],
    ],
)
def test_wrong_options_are_refused(cli: CommandLine, played: Job, options: list[str]) -> None:
    assert cli("verify", "ha", *options).exit_code == 2 and not played.asked


@pytest.mark.parametrize(
    "options",
    [
        ["--mode", "full"],
        ["--resume"],
        ["--fraction", "2%"],
        ["--granularity", "4k"],
        ["--rate", "9"],
        ["--latency", "9"],
    ],
)
def test_what_a_comparison_is_told_does_not_go_with_the_write_path(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr(verify_write_path, "run", lambda *_: 0)
    result = cli("verify", "ha", "--write-path", *options)
    assert result.exit_code == 2 and f"it does not go with {options[0]}" in result.stderr
    assert cli("verify", "ha", "--write-path").exit_code == 0


def test_what_was_found_is_kept(cli: CommandLine, played: Job) -> None:
    cli("verify", "ha", "--mode", "full")
    kept = last.read("ha")
    assert kept is not None and kept.last == kept.judged
    assert (kept.last.verdict, kept.last.mode, kept.last.node, kept.last.compared) == ("clean", "full", "a", GIB)
    played.outcome = VerifyRefused(storage="ha", cause="b is Diskless", remedy="Look there")
    assert cli("verify", "ha").exit_code == 2
    again = last.read("ha")
    assert again is not None and again.judged == kept.judged
    assert (again.last.verdict, again.last.reason) == ("could not check", "b is Diskless")


def test_a_storage_that_does_not_exist_was_never_checked(cli: CommandLine, played: Job) -> None:
    assert cli("verify", "none").exit_code == 2
    assert last.read("none") is None


def test_what_cannot_be_kept_is_said_and_changes_nothing(cli: CommandLine, played: Job) -> None:
    Path(last.FOLDER).write_text("")
    result = cli("verify", "ha", "--mode", "full")
    assert result.exit_code == 0 and "cannot be written" in result.stderr
