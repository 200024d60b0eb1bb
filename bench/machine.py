"""What the numbers depend on: facts of the machine, none of which names it."""

from __future__ import annotations

import os
import platform
import re
import subprocess


def facts() -> dict[str, str]:
    """Cores, CPU, kernel, processes that wanted to run in the last minute, versions of what takes part."""
    return {
        "cores": str(os.cpu_count()),
        "cpu": _cpu(),
        "kernel": f"{platform.system()} {re.match(r'[0-9.]+', platform.release())[0]}",  # type: ignore[index]
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "perl": version("perl", "-e", "printf '%vd', $^V"),
        "qemu-img": version("qemu-img", "--version"),
    }


def _cpu() -> str:
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return found[1] if found else platform.machine()


def version(*command: str) -> str:
    """The first number with dots that a program says."""
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "?"
