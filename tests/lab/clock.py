"""Keeps the clocks of UML's machines going.

UML has one timer of the host, which it sets anew for each event. Under load it happens that the alarm is lost, and with it the machine's time:
it stands still at full speed, timer_gettime(2) says that nothing is set, no sleep ends any more, and its peer takes it for dead (seen with
6.1, while both nodes wrote). An alarm from outside has it look at what is due, and set the timer again. One too many does nothing.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

_PERIOD = 1.0
_ALARM = 1 << (signal.SIGALRM - 1)  # in the masks of /proc/PID/status


def keep_ticking(machine: subprocess.Popen[bytes]) -> None:
    """Send a machine alarms until it ends, while it catches them: one that boots, or boots again, would die of them."""
    threading.Thread(target=_tick, args=(machine,), name=f"lab-clock-{machine.pid}", daemon=True).start()


def _tick(machine: subprocess.Popen[bytes]) -> None:
    while machine.poll() is None:
        time.sleep(_PERIOD)
        if _catches_alarms(machine.pid):
            machine.send_signal(signal.SIGALRM)


def _catches_alarms(pid: int) -> bool:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & _ALARM)
    return False
