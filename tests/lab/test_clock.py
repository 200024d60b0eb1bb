"""Alarms keep a machine's clock going, and end none that does not expect them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab import clock

_COUNTS = """
import signal
print("waits", flush=True)
for number in range(3):
    signal.pause()
    print("alarm", flush=True)
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_PERIOD", 0.02)


def test_a_machine_that_catches_alarms_gets_them() -> None:
    program = f"import signal; signal.signal(signal.SIGALRM, lambda *_: None)\n{_COUNTS}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as machine:
        clock.keep_ticking(machine)
        output, _ = machine.communicate(timeout=30)
    assert output.split() == [b"waits", b"alarm", b"alarm", b"alarm"] and machine.returncode == 0


def test_a_machine_that_does_not_catch_them_yet_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "0.5"]) as machine:
        clock.keep_ticking(machine)
        assert machine.wait(30) == 0
