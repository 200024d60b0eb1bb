"""Calls of the plugin class and of the base class in Perl processes under -T, as in Proxmox's daemons.

Each side has a process of its own: one that forks for every image pays for it afterwards, too, by a page fault for each
page it touches again.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PERL = "/usr/bin/perl"


class BenchError(Exception):
    """The bench itself cannot go on: the message says why."""


@dataclass(frozen=True)
class Answer:
    """What a call returned, and its seconds as Perl saw them."""

    result: Any
    seconds: float


def pve_tree() -> str | None:
    """The real PVE modules to measure against, colon-separated folders, where PVE_PERL5LIB names some."""
    return os.environ.get("PVE_PERL5LIB") or None


def include_folders(tree: str | None) -> list[str]:
    """What goes on @INC: a real tree, with stand-ins of its built parts, or the suite's stand-ins."""
    pve = [str(ROOT / "tests/perl/standins")]
    if tree is not None:
        pve = [str(ROOT / "tests/perl/standins-built"), *tree.split(":")]
    return [str(ROOT / "perl-shim"), *pve, str(ROOT / "bench/perl")]


class PerlSides:
    """The running drivers, one a side. Raises BenchError when a call dies."""

    def __init__(self, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        self._processes = processes

    def pid(self, side: str) -> int:
        return self._processes[side].pid

    def call(self, side: str, path: str, do: str, *args: object) -> Answer:
        """Make one call of ``side`` on the storage at ``path``: "mirror" is our plugin, "dir" PVE's base class."""
        process = self._processes[side]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"side": side, "path": path, "do": do, "args": args}).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BenchError(f"the Perl driver ended during '{do}' (status {process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"'{do}' of '{side}' failed: {answer['error'].strip()}")
        return Answer(answer["result"], answer["seconds"])


@contextmanager
def perl_sides(socket: str, tree: str | None) -> Iterator[PerlSides]:
    """Start the drivers; our plugin will ask the service on ``socket``. Their standard error goes to ours."""
    with _driver(socket, tree) as mirror, _driver(socket, tree) as base:
        yield PerlSides({"mirror": mirror, "dir": base})


@contextmanager
def _driver(socket: str, tree: str | None) -> Iterator[subprocess.Popen[bytes]]:
    includes = [word for path in include_folders(tree) for word in ("-I", path)]
    kind = "reenacted" if tree is None else "real"
    command = [PERL, "-T", *includes, str(ROOT / "bench/perl/driver.pl"), kind, socket]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
