"""Ctrl-C while the backend works, and the bar that shows how far it is."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.cli import progress
from pvedrbdstor.errors import StreamError
from tests.cli.conftest import CommandLine

DISK = "ha:100/vm-100-disk-0.raw"


def _press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_lets_the_work_undo_itself(cli: CommandLine) -> None:
    undone = []

    def work(call: Call) -> None:
        assert not call.gone()
        _press_ctrl_c()
        try:
            call.check()
        finally:
            undone.append("work")

    cli.backend.answers["volume_snapshot"] = work
    result = cli("volume", "snapshot", "create", DISK, "s1")
    assert (result.exit_code, result.stdout, undone) == (130, "", ["work"])
    assert "interrupted; the work was undone" in result.stderr


def test_ctrl_c_that_comes_too_late_says_that_the_work_was_done(cli: CommandLine) -> None:
    cli.backend.answers["volume_snapshot"] = lambda call: _press_ctrl_c()
    result = cli("volume", "snapshot", "create", DISK, "s1")
    assert result.exit_code == 130
    assert "already done" in result.stderr


def test_ctrl_c_during_work_that_then_fails_tells_why_it_failed(cli: CommandLine) -> None:
    def work(call: Call) -> None:
        _press_ctrl_c()
        raise StreamError(volume=DISK, detail="it ended too early")

    cli.backend.answers["volume_import"] = work
    result = cli("volume", "import", "ha", "100/vm-100-disk-0.raw")
    assert result.exit_code == 130
    assert "it ended too early" in result.stderr


def test_second_ctrl_c_ends_work_that_does_not_listen(cli: CommandLine) -> None:
    def deaf(call: Call) -> None:
        _press_ctrl_c()
        _press_ctrl_c()
        pytest.fail("the work went on")

    cli.backend.answers["volume_snapshot"] = deaf
    result = cli("volume", "snapshot", "create", DISK, "s1")
    assert result.exit_code == 130
    assert "pvedrbdstor volume recover ha" in result.stderr


def test_ctrl_c_is_python_s_own_again_after_the_work(cli: CommandLine) -> None:
    before = signal.getsignal(signal.SIGINT)
    cli.backend.answers["list_images"] = []
    cli("volume", "list", "ha")
    assert signal.getsignal(signal.SIGINT) is before


def _work_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bar's clock show that the work began ``seconds`` ago."""
    monkeypatch.setattr(progress, "PATIENCE", 1.0 - seconds)


def _two_steps(call: Call) -> str:
    call.advance(1 << 20, 4 << 20)
    call.advance(4 << 20, 4 << 20)
    return "100/vm-100-disk-0.raw"


@pytest.mark.usefixtures("on_a_terminal")
def test_long_work_shows_a_bar_on_standard_error(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    _work_for(2.0, monkeypatch)
    monkeypatch.setattr("click._termui_impl.isatty", lambda stream: True)
    cli.backend.answers["volume_import"] = _two_steps
    result = cli("volume", "import", "ha", "100/vm-100-disk-0.raw")
    assert result.stdout == f"Made {DISK}.\n"
    assert "Importing" in result.stderr
    assert "100%" in result.stderr


@pytest.mark.usefixtures("on_a_terminal")
def test_short_work_shows_no_bar(cli: CommandLine) -> None:
    cli.backend.answers["volume_import"] = _two_steps
    assert cli("volume", "import", "ha", "100/vm-100-disk-0.raw").stderr == ""


def test_bar_is_not_drawn_where_nobody_looks(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    _work_for(2.0, monkeypatch)
    cli.backend.answers["volume_import"] = _two_steps
    assert cli("volume", "import", "ha", "100/vm-100-disk-0.raw").stderr == ""


def test_bar_waits_until_its_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "watched", lambda: pytest.fail("it looked for a terminal too early"))
    with progress.Progress("Working") as bar:
        bar(1, 2)
        assert time.monotonic() >= bar._started


def test_bar_says_how_much_is_done_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last seconds more than of the first."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "watched", lambda: True)
    labels = []
    with progress.Progress("Comparing", rate=True) as bar:
        for done in (10, 20, 30, 230, 430):
            clock[0] += 2.5
            bar(done << 20, 1 << 30)
            labels.append(bar._bar.label.strip())
    assert labels == [f"Comparing {rate} MiB/s" for rate in (4, 4, 4, 80, 80)]
