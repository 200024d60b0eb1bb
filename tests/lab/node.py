"""One node: a machine that this process owns, with a way to run commands in it that no network failure touches."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import clock
from tests.lab.backends import Backend, Machine, address_of
from tests.lab.errors import TIMED_OUT, CommandFailed, LabError
from tests.lab.network import Network

GUEST_SHARE = "/run/lab"
_BOOT_SECONDS = 120.0
_AFTER_KILL_SECONDS = 2.0


@dataclass(frozen=True)
class Result:
    """What a command did: exit status (124 when its time was over), standard output and error together, seconds."""

    rc: int
    out: str
    seconds: float


@dataclass
class _Running:
    done: threading.Event = field(default_factory=threading.Event)
    rc: int = -1


class Node:
    """A machine and its agent (guest/agent.py). sh() may be called from several threads at once.

    first: what is PID 1 there, see Machine. boots counts how often the agent reported ready: a fence is a boot nobody asked for;
    boot_times says when (time.time()).
    """

    def __init__(
        self,
        name: str,
        number: int,
        backend: Backend,
        network: Network,
        folder: Path,
        memory: int,
        first: str = "agent",
    ) -> None:
        self.name = name
        self.number = number
        self.backend = backend
        self.network = network
        self.folder = folder
        self.share = folder / "share"
        self.disk = folder / "disk.img"
        self.console = folder / "console.log"
        self.memory = memory
        self.first = first
        self.boot_times: list[float] = []
        self.share.mkdir(parents=True)
        self._ready = threading.Event()
        self._commands: dict[str, _Running] = {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._serial: socket.socket | None = None

    def start(self) -> None:
        """Switch the machine on; returns at once. sh() waits until it is ready."""
        if self.running:
            raise LabError(f"node {self.name} is already running")
        self._ready.clear()
        serial, guest_serial = socket.socketpair()
        ethernet = self.network.attach(self.name)
        machine = Machine(
            name=self.name,
            number=self.number,
            folder=self.folder,
            disk=self.disk,
            share=self.share,
            memory=self.memory,
            serial=guest_serial.fileno(),
            ethernet=ethernet.fileno(),
            first=self.first,
        )
        with guest_serial, ethernet, self.console.open("ab") as console:
            self._process = subprocess.Popen(
                self.backend.command(machine),
                env={**os.environ, **self.backend.environment()},
                pass_fds=[guest_serial.fileno(), ethernet.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        if self.backend.kind == "uml":
            clock.keep_ticking(self._process)
        self._serial = serial
        threading.Thread(target=self._listen, args=(serial,), name=f"lab-{self.name}", daemon=True).start()

    @property
    def address(self) -> str:
        return address_of(self.number)

    @property
    def boots(self) -> int:
        return len(self.boot_times)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, timeout: float = _BOOT_SECONDS) -> None:
        """Wait until the agent answers. Raises LabError when the machine ends or ``timeout`` seconds pass."""
        deadline = time.monotonic() + timeout
        while not self._ready.wait(0.2):
            if not self.running or time.monotonic() > deadline:
                what = "did not get ready" if self.running else "ended"
                raise LabError(f"node {self.name} {what}; the end of {self.console}:\n{self.console_tail()}")

    def kill(self) -> None:
        """Take the power away: nothing is flushed, nothing says goodbye."""
        process = self._process
        if process is None:
            return
        try:  # the group, as UML runs its processes in children of its own which would stay behind, stopped
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        _wait_for_group_end(process.pid)
        self._process = None
        self._ready.clear()
        if self._serial is not None:
            self._serial.close()
            self._serial = None
        self._give_up()

    def stop(self) -> None:
        """Let the machine stand still from now on, as a hypervisor does that pauses it."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """End stop(): the machine goes on, and its clock is right again."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def disk_held(self) -> Iterator[None]:
        """Within it the machine's disk takes and gives nothing, and all else goes on (UML): what does its I/O on the host stands still."""
        assert self._process is not None
        threads = [pid for pid in _children(self._process.pid) if not _is_traced(pid)]  # traced: processes of the guest
        for pid in threads:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in threads:
                os.kill(pid, signal.SIGCONT)

    def sh(self, command: str, timeout: float = 60) -> Result:
        """Run ``command`` with bash in the node and wait at most ``timeout`` seconds, then end it (rc 124).

        A node that dies meanwhile gives rc -1. Output is at most what the command wrote when it ended: what it left
        running in the background does not hold this up.
        """
        started = time.monotonic()
        self.wait_ready()
        name = f"{next(self._numbers):06d}"
        running = self._commands[name] = _Running()
        (self.share / f"cmd.{name}").write_text(command + "\n")
        self._send(f"RUN {name}")
        if not running.done.wait(max(0.1, timeout)):
            self._send(f"KILL {name}")
            running.done.wait(_AFTER_KILL_SECONDS)
            running.rc = TIMED_OUT
        del self._commands[name]
        return Result(running.rc, self._output(name), time.monotonic() - started)

    def run(self, command: str, timeout: float = 60) -> str:
        """sh() for a command that has to succeed: its output. Raises CommandFailed."""
        result = self.sh(command, timeout)
        if result.rc != 0:
            raise CommandFailed(self.name, command, result.rc, result.out)
        return result.out

    def console_tail(self, length: int = 2000) -> str:
        return self.console.read_text(errors="replace")[-length:] if self.console.exists() else ""

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)  # UML's kernel alone: without it its processes get nowhere

    def _give_up(self) -> None:
        for running in list(self._commands.values()):
            running.done.set()

    def _output(self, name: str) -> str:
        try:
            return (self.share / f"out.{name}").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _send(self, line: str) -> None:
        if self._serial is None:
            return
        try:
            self._serial.sendall(line.encode() + b"\n")
        except OSError:  # it has died; the waiting side finds out
            pass

    def _listen(self, serial: socket.socket) -> None:
        pending = b""
        while True:
            try:
                data = serial.recv(4096)
            except OSError:
                data = b""
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").split())

    def _hear(self, words: list[str]) -> None:
        match words:
            case ["READY"]:
                self._give_up()  # what ran when the machine reset itself
                self.boot_times.append(time.time())
                self._ready.set()
            case ["DONE", name, rc] if name in self._commands:
                self._commands[name].rc = int(rc)
                self._commands[name].done.set()


def _wait_for_group_end(group: int) -> None:
    """Wait until the killed process group runs no more, as its disks and memory files are removed next."""
    deadline = time.monotonic() + _AFTER_KILL_SECONDS
    while _group_runs(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _group_runs(group: int) -> bool:
    """Whether the group has a process that is not a zombie: those wait for the host's init, which may be slow."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def _children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]


def _is_traced(pid: int) -> bool:
    """Or gone meanwhile."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    return "TracerPid:\t0\n" not in status
