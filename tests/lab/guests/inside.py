"""Operations on a guest's QEMU and its disk, for the node it runs on: more of guest/ops.py, called in the same way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import Any

from tests.lab.guest.ops import main, operation

BLOCK = 4096  # as counter.c has it
_ANSWER_SECONDS = 30.0
_MIGRATION_SECONDS = 120.0


class Qmp:
    """A connection to QEMU's monitor (docs/interop/qmp-spec in QEMU's source). Raises OSError, or RuntimeError for an error
    that QEMU answers."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rw")
        self._stream.readline()  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> Any:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            line = self._stream.readline()
            if not line:
                raise RuntimeError(f"{command}: QEMU has ended")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:  # else an event
                return answer["return"]


@operation
def qmp(path: str, command: str, arguments: str) -> Any:
    """One command and its answer."""
    return Qmp(path)(command, **json.loads(arguments))


@operation
def migrate(path: str, uri: str, downtime_ms: str) -> dict[str, Any]:
    """Migrate to the QEMU that listens at ``uri``, and end this one: what query-migrate said at the end.

    Raises RuntimeError when it failed.
    """
    monitor = Qmp(path)
    monitor("migrate-set-parameters", **{"downtime-limit": int(downtime_ms)})
    monitor("migrate", uri=uri)
    deadline = time.monotonic() + _MIGRATION_SECONDS
    while True:
        state: dict[str, Any] = monitor("query-migrate")
        if state.get("status") == "completed":
            monitor("quit")
            return state
        if state.get("status") == "failed" or time.monotonic() > deadline:
            raise RuntimeError(f"the migration did not complete: {state}")
        time.sleep(0.02)


@operation
def snapshot_while_paused(path: str, plugin: str, volume: str, snapshot: str) -> dict[str, Any]:
    """Pause the guest, have the plugin take a snapshot, let the guest go on, as Proxmox does in one process.

    ``plugin`` is the command that calls PVE::Storage; it is started, and the storage asked once, before the pause.
    Seconds: how long the guest stood still, and how much of that the storage took.
    """
    monitor = Qmp(path)
    with subprocess.Popen(plugin.split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pve:
        _ask(pve, "volume_size_info", volume)
        stopping = time.monotonic()
        monitor("stop")
        try:
            answer = _ask(pve, "volume_snapshot", volume, snapshot)
        finally:
            monitor("cont")
        paused = time.monotonic() - stopping
        assert pve.stdin is not None
        pve.stdin.close()
    return {"paused": paused, "storage": answer["seconds"]}


def _ask(pve: subprocess.Popen[str], function: str, *arguments: str) -> dict[str, Any]:
    assert pve.stdin is not None and pve.stdout is not None
    pve.stdin.write(json.dumps({"call": function, "args": arguments}) + "\n")
    pve.stdin.flush()
    answer: dict[str, Any] = json.loads(pve.stdout.readline())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


@operation
def counted(path: str) -> dict[str, Any]:
    """What a guest's disk holds: the last number, how many numbers back from there the sequence is whole, and the blocks that are torn."""
    numbers: dict[int, int] = {}
    torn = []
    with open(path, "rb") as disk:
        blocks = os.fstat(disk.fileno()).st_size // BLOCK
        for block in range(blocks):
            data = disk.read(BLOCK)
            if data != data[:8] * (BLOCK // 8):
                torn.append(block)
            numbers[block] = int.from_bytes(data[:8], "little")
    last = max(numbers.values(), default=0)
    whole = 0
    while whole < min(blocks, last) and numbers[(last - whole) % blocks] == last - whole:
        whole += 1
    return {"last": last, "whole": whole, "torn": torn, "blocks": blocks}


if __name__ == "__main__":
    main()
