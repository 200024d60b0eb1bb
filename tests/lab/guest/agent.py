"""PID 1 of a node: runs the commands that the host asks for over a serial port, and reaps what is left behind.

The host writes ``RUN id`` and finds the command in the shared folder as ``cmd.id``; the output goes to ``out.id``; the
answer is ``DONE id rc``. ``KILL id`` ends the command's process group. ``READY`` is said once per boot. When the port
closes the host has gone: the node switches itself off, so that no node ever outlives its owner.

It runs without the site packages (python3 -I -S): start-up counts.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import tty

_SYS_REBOOT_POWER_OFF = 0x4321FEDC  # reboot(2), LINUX_REBOOT_CMD_POWER_OFF
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONPYCACHEPREFIX": "/run/pycache",
}


class Agent:
    """The running commands of one node."""

    def __init__(self, port: int, share: str) -> None:
        self.port = port
        self.share = share
        self.running: dict[int, tuple[str, int]] = {}  # pid -> id, descriptor of its output

    def serve(self) -> None:
        """Answer requests until the port closes."""
        wakeup, wake = os.pipe()
        for fd in (wakeup, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.say("READY")
        pending = b""
        while True:
            readable, _, _ = select.select([self.port, wakeup], [], [])
            if wakeup in readable:
                os.read(wakeup, 4096)
                self.reap()
            if self.port in readable:
                data = os.read(self.port, 4096)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.obey(line.decode(errors="replace").split())

    def obey(self, words: list[str]) -> None:
        if len(words) == 2 and words[0] == "RUN":
            self.start(words[1])
        elif len(words) == 2 and words[0] == "KILL":
            for pid, (name, _) in self.running.items():
                if name == words[1]:
                    os.killpg(pid, signal.SIGKILL)

    def start(self, name: str) -> None:
        output = os.open(f"{self.share}/out.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.execve("/bin/bash", ["bash", f"{self.share}/cmd.{name}"], _ENVIRONMENT)
            finally:
                os._exit(127)
        self.running[pid] = (name, output)

    def reap(self) -> None:
        """Collect every dead child: our commands, and the orphans that any PID 1 inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.running:
                name, output = self.running.pop(pid)
                os.fsync(output)  # the host reads it the moment it sees DONE
                os.close(output)
                code = os.waitstatus_to_exitcode(status)
                self.say(f"DONE {name} {code if code >= 0 else 128 - code}")

    def say(self, line: str) -> None:
        os.write(self.port, line.encode() + b"\n")


def main() -> None:
    port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(port):
        tty.setraw(port)
    try:
        Agent(port, sys.argv[2]).serve()
    finally:
        ctypes.CDLL(None).reboot(_SYS_REBOOT_POWER_OFF)


if __name__ == "__main__":
    main()
