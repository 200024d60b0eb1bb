"""Two ends of a link, for what measures it: real processes, on loopback or in network namespaces of their own with a switch between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pvedrbdstor import nodes
from pvedrbdstor.setup import stream
from pvedrbdstor.setup.listen import Request
from pvedrbdstor.setup.measure import Route

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "pvedrbdstor")
OWN, PEER, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PORT = 20000 + os.getpid() % 12000  # of this run alone, below those that connections get by themselves
TOKEN = bytes(range(stream.TOKEN_BYTES))
ROUTE = Route("pve1", "pve2", OWN, PEER, PORT, 65536)
_CLIENT = """import json, sys
from dataclasses import asdict
from pvedrbdstor import nodes
from pvedrbdstor.setup.measure import Route, measure
nodes.line = lambda node, words, alive=None: ["nsenter", "--target", sys.argv[1], "--net", sys.executable, "-m", "pvedrbdstor", *words]
print(json.dumps(asdict(measure(Route("pve1", "pve2", "10.9.0.1", "10.9.0.2", 7789, 9000)))))
"""


def by_program(monkeypatch: pytest.MonkeyPatch, *program: str) -> None:
    """In place of ssh: our own program here, or another."""

    def line(node: str, words: Sequence[str], *, alive: int | None = None) -> list[str]:
        return list(program) or [*PROGRAM, *words]

    monkeypatch.setattr(nodes, "line", line)


@contextmanager
def listening(**changes: object) -> Iterator[subprocess.Popen[bytes]]:
    """The listener as the other node would have started it; its first line was read."""
    child = subprocess.Popen(
        [*PROGRAM, "setup", "listen"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        request = {**asdict(Request(PEER, PORT, OWN, TOKEN.hex())), **changes}
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline()) == {"ready": True}
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            pipe.close()


@dataclass(frozen=True)
class Switched:
    """Two namespaces, each with 10.9.0.1 or 10.9.0.2 and an MTU of 9000, and a switch."""

    one: int
    other: int

    def measure(self) -> dict[str, object]:
        """From the one, as a node of its own."""
        words = ["nsenter", "--target", str(self.one), "--net", sys.executable, "-c", _CLIENT, str(self.other)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def run(self, script: str) -> None:
        """On the one."""
        subprocess.run(["nsenter", "--target", str(self.one), "--net", "sh", "-euc", script], check=True, timeout=20)


@contextmanager
def switched(mtu: int) -> Iterator[Switched]:
    """With a switch that drops without a word what is longer than ``mtu``. It goes with its processes."""
    with _namespace() as switch, _namespace() as one, _namespace() as other:
        _in(switch, "ip link add br0 type bridge && ip link set br0 up")
        for at, pid in enumerate((one, other), 1):
            _in(switch, f"ip link add p{at} type veth peer name e{at} && ip link set e{at} netns {pid}")
            _in(switch, f"ip link set p{at} mtu {mtu} master br0 up")
            # Each packet on its own, as on a wire: a veth hands several on as one.
            _in(pid, f"ip link set e{at} mtu 9000 up gso_max_segs 1 && ip address add 10.9.0.{at}/24 dev e{at}")
        yield Switched(one, other)


@contextmanager
def _namespace() -> Iterator[int]:
    child = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        own, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
        while os.readlink(f"/proc/{child.pid}/ns/net") == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def _in(pid: int, script: str) -> None:
    words = ["nsenter", "--target", str(pid), "--net", "sh", "-euc", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
