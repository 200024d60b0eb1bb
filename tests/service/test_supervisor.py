"""The program that runs beside the server: started, restarted, ended with it, never in the way of calls."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pvedrbdstor.service import supervisor
from pvedrbdstor.service.loop import Loop
from pvedrbdstor.service.supervisor import Supervisor

PATIENCE = 5.0


def program(folder: Path, then: str) -> list[str]:
    """Leaves its pid in a file of its own, then does what is said."""
    return [sys.executable, "-S", "-c", f"import os,time\nopen(f'{folder}/{{os.getpid()}}','w').close()\n{then}"]


def started(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds. Fails after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE

    def look() -> None:
        if condition() or time.monotonic() > deadline:
            loop.stop()
        else:
            loop.after(0.02, look)

    loop.after(0, look)
    loop.run()
    assert condition()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.05)


def test_a_program_that_is_killed_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    one = Supervisor(loop, program(tmp_path, "time.sleep(60)"))
    one.start()
    run_until(loop, lambda: len(started(tmp_path)) == 1)
    os.kill(started(tmp_path)[0], signal.SIGKILL)
    run_until(loop, lambda: len(started(tmp_path)) == 2)
    one.stop()
    assert "is started again" in caplog.text


def test_the_pause_grows_while_it_does_not_last(tmp_path: Path) -> None:
    loop = Loop()
    one = Supervisor(loop, program(tmp_path, "raise SystemExit(3)"))
    one.start()
    began = time.monotonic()
    run_until(loop, lambda: len(started(tmp_path)) >= 4)
    assert time.monotonic() - began >= 0.05 + 0.1 + 0.2
    one.stop()


def test_a_program_that_does_not_exist_is_tried_again_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    loop = Loop()
    one = Supervisor(loop, ["/nonexistent/program"])
    one.start()
    run_until(loop, lambda: len(caplog.records) >= 2)
    assert "cannot be started" in caplog.text
    one.stop()


def test_stopping_ends_it_and_starts_no_other(tmp_path: Path) -> None:
    loop = Loop()
    one = Supervisor(loop, program(tmp_path, "time.sleep(60)"))
    one.start()
    run_until(loop, lambda: len(started(tmp_path)) == 1)
    (pid,) = started(tmp_path)
    ended = os.pidfd_open(pid)
    one.stop()
    assert select.select([ended], [], [], 10)[0] == [ended]
    os.close(ended)
    loop.after(0.3, loop.stop)
    loop.run()
    assert started(tmp_path) == [pid]
