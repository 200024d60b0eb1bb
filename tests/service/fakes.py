"""Dispatchers that misbehave on request, and what tests synchronise with: named pipes in the test's folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pvedrbdstor.call import Call
from pvedrbdstor.errors import VolumeMissing
from pvedrbdstor.service.protocol import MethodNotFound


class Gates:
    """Named pipes: one side waits until the other opens the gate, whichever process it is in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str) -> None:
        os.mkfifo(self._folder / name)

    def wait(self, name: str) -> str:
        """Block until somebody opens the gate; what was written to it."""
        with (self._folder / name).open() as pipe:
            return pipe.read()

    def open(self, name: str, text: str = "") -> None:
        """Let the waiting process go on; block until there is one."""
        with (self._folder / name).open("w") as pipe:
            pipe.write(text)

    def release(self, name: str) -> None:
        """Let all go on that look whether the file ``name``.open is there."""
        (self._folder / f"{name}.open").touch()

    def released(self, name: str) -> bool:
        return (self._folder / f"{name}.open").exists()

    def mark(self, name: str) -> None:
        (self._folder / name).touch()

    def files(self, prefix: str) -> list[str]:
        return [path.name for path in self._folder.iterdir() if path.name.startswith(prefix)]


class Fake:
    """Each method does what its name says."""

    def __init__(self, folder: Path) -> None:
        self.gates = Gates(folder)

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        action = getattr(self, f"do_{method}", None)
        if action is None:
            raise MethodNotFound(method=method)
        return action(params, call)

    def do_echo(self, params: Mapping[str, object], call: Call) -> object:
        return {"params": dict(params), "pid": os.getpid(), "timeout": call.timeout, "storage": call.storage}

    def do_fail(self, params: Mapping[str, object], call: Call) -> object:
        raise VolumeMissing(volume="vm-1-disk-0.raw", storage="ha")

    def do_bug(self, params: Mapping[str, object], call: Call) -> object:
        raise KeyError("a bug of ours")

    def do_unserialisable(self, params: Mapping[str, object], call: Call) -> object:
        return {"set": {1, 2}}

    def do_die(self, params: Mapping[str, object], call: Call) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def do_huge(self, params: Mapping[str, object], call: Call) -> object:
        return "x" * int(str(params["size"]))

    def do_gate(self, params: Mapping[str, object], call: Call) -> object:
        """Hang, deaf to everything, until the gate named ``gate`` is opened; first say so on ``started``."""
        if "started" in params:
            self.gates.open(str(params["started"]), str(os.getpid()))
        return self.gates.wait(str(params["gate"]))

    def do_until_opened(self, params: Mapping[str, object], call: Call) -> object:
        """Work, mindful of the caller and the deadline, until the gate is released; leave a mark at the start."""
        self.gates.mark(f"running.{time.monotonic_ns()}.{os.getpid()}")
        while not self.gates.released(str(params["gate"])):
            call.check()
            time.sleep(0.01)
        return None

    def do_until_gone(self, params: Mapping[str, object], call: Call) -> object:
        """Work until the caller is gone, then say so on the gate ``gone``."""
        before = call.gone()
        self.gates.open("started")
        while not call.gone():
            pass
        self.gates.open("gone", f"{before} {call.gone()}")
        return None

    def do_later(self, params: Mapping[str, object], call: Call) -> object:
        """Leave a failing piece, and one that waits at the gate ``later``, for after the answer."""
        call.after.append(lambda: 1 // 0)
        call.after.append(lambda: self.gates.open("done", self.gates.wait("later")))
        return os.getpid()

    def do_inspect(self, params: Mapping[str, object], call: Call) -> object:
        """What this worker has open."""
        return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _open(fd))


def _open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
