"""Calling the operations of guest/ops.py in a node."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.assets import REPOSITORY
from tests.lab.errors import LabError
from tests.lab.node import Node

PROGRAM = "tests.lab.guest.ops"


def ops_command(name: str, *arguments: object, program: str = PROGRAM) -> str:
    """The shell command that runs an operation of a program like guest/ops.py."""
    words = ["/usr/bin/python3", "-m", program, name, *(str(argument) for argument in arguments)]
    return f"cd {REPOSITORY} && exec {shlex.join(words)}"


def ops(node: Node, name: str, *arguments: object, timeout: float = 60, program: str = PROGRAM) -> Any:
    """Run an operation: its result, or {"errno": NAME} when a system call failed. Raises CommandFailed."""
    return json.loads(node.run(ops_command(name, *arguments, program=program), timeout).splitlines()[-1])


@contextmanager
def running_op(node: Node, name: str, *arguments: object, program: str = PROGRAM) -> Iterator[int]:
    """While the block runs so does an operation that only ends when killed: its pid in the node.

    The operation's first argument is the file to which it writes its pid when it is ready.
    """
    started = f"/tmp/started.{time.monotonic_ns()}"
    command = ops_command(name, started, *arguments, program=program)
    node.run(f"({command}) >/dev/null 2>&1 &\nuntil [ -s {started} ]; do sleep 0.02; done")
    pid = int(node.run(f"cat {started}"))
    try:
        yield pid
    finally:
        if node.running:  # a dead one has ended it already
            node.sh(f"kill -9 {pid}")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30) -> float:
    """Ask until the condition holds: the seconds it took. Raises LabError after ``timeout`` seconds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout:
            raise LabError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return time.monotonic() - started
