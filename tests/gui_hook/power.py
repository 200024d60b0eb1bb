"""The power switch of a test: kills a program instead of its call number N that changes a file system."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("power_cut.c")


def build_switch(folder: Path) -> Path:
    """Compile power_cut.c into a folder; the shared library."""
    library = folder / "power_cut.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        ["gcc", "-O1", *warnings, "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True, timeout=60
    )
    return library


def switch(library: str, log: str, at: int = 0) -> dict[str, str]:
    """The environment in which gui-hook notes its calls in a file, and is killed at number ``at``; 0 is never."""
    return {
        "LD_PRELOAD": library,
        "POWER_CUT_WHO": "gui-hook",
        "POWER_CUT_LOG": log,
        "POWER_CUT_AT": str(at),
    }
