"""One guest: its QEMU on a node, as Proxmox would start it, and what can be done with it from outside."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.lab import assets, storage
from tests.lab.errors import LabError
from tests.lab.guests.acknowledged import Acknowledged, gaps
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.ops import ops, wait_until

NODE_MEMORY = 800  # MiB that a node needs to run a guest beside the cluster
DISK_SIZE = 32 << 20  # bytes; room for the last 8192 numbers
# Bytes, no multiple of 64 pages: only then QEMU before 9.0 misses no write of an emulated guest while it migrates (fixed by
# "physmem: Fix migration dirty bitmap coherency with TCG memory access"; its short cut for whole words of the bitmap is at fault).
_MEMORY = (160 << 20) + (8 << 10)
_INSIDE = "tests.lab.guests.inside"
_DOWNTIME_LIMIT_MS = 100  # Proxmox's default: migrate_downtime in qm.conf(5)
_BOOT_SECONDS = 120.0


@dataclass(frozen=True)
class Migration:
    """Seconds from the first command to the end of the source's QEMU, and milliseconds QEMU says the guest stood still."""

    seconds: float
    downtime_ms: int


@dataclass(frozen=True)
class Pause:
    """Seconds a guest stood still for a snapshot, and how many of them the storage took."""

    paused: float
    storage: float


class Guest:
    """A guest with one disk. node is where it runs; acknowledged is what it has said since it was made.

    cache and werror: the disk's options in qm.conf(5), by Proxmox's and QEMU's default "none" and "enospc".
    """

    _runs = count(1)

    def __init__(self, vmid: int, volume: str, cache: str = "none", werror: str = "enospc") -> None:
        self.vmid = vmid
        self.volume = volume
        self.cache = cache
        self.werror = werror
        self.acknowledged = Acknowledged()
        self._kernel = assets.prepare_guest()
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        if self._node is None:
            raise LabError(f"guest {self.vmid} runs nowhere")
        return self._node

    def start(self, node: Node) -> float:
        """Boot on ``node`` and wait until the first write is acknowledged: seconds. Raises LabError."""
        begun = time.monotonic()
        self._launch(node)
        self._node = node
        self.wait_for_writes(begun, 1, _BOOT_SECONDS)
        return time.monotonic() - begun

    def found(self) -> int:
        """The last number that the guest found on its disk when it last started."""
        return next(said.number for said in reversed(self.acknowledged.said()) if said.word == "found")

    def wait_for_writes(self, since: float, number: int = 20, timeout: float = 60) -> None:
        """Wait until so many writes were acknowledged after ``since`` (monotonic seconds). Raises LabError."""

        def enough() -> bool:
            said = self.acknowledged.said()
            return sum(line.when > since and line.word == "ack" for line in said) >= number

        try:
            wait_until(enough, f"{number} writes of guest {self.vmid}", timeout)
        except LabError as error:
            raise LabError(f"{error}\n{self._complaints()}") from error

    def migrate(self, target: Node, port: int = 60000) -> Migration:
        """Move to ``target`` while running, over the nodes' network. Raises CommandFailed."""
        begun = time.monotonic()
        source = self.node
        self._launch(target, "-incoming", f"tcp:{target.address}:{port}")
        self._inside(target, "qmp", "query-status", "{}")  # it answers only when it listens for the guest
        state = self._inside(source, "migrate", f"tcp:{target.address}:{port}", _DOWNTIME_LIMIT_MS)
        self._node = target
        return Migration(time.monotonic() - begun, int(state["downtime"]))

    def snapshot(self, name: str) -> Pause:
        """Take a snapshot of the disk with the guest paused."""
        took = self._inside(self.node, "snapshot_while_paused", storage.PLUGIN_COMMAND, self.volume, name)
        return Pause(took["paused"], took["storage"])

    def qmp(self, command: str, **arguments: object) -> Any:
        """What QEMU's monitor answers."""
        return self._inside(self.node, "qmp", command, json.dumps(arguments))

    def stop(self) -> None:
        """End QEMU, as pulling the guest's plug does, and wait until it has gone."""
        self.qmp("quit")
        self.node.run(f"while kill -0 $(cat {self._run_file('pid')} 2>/dev/null) 2>/dev/null; do sleep 0.05; done")
        self._node = None

    def lost_with_its_node(self) -> None:
        """Its node was killed, and the guest with it."""
        self._node = None

    def check_disk(self, node: Node, at_least: int, snapshot: str | None = None) -> int:
        """The last number on the disk, or in a snapshot of it, as ``node`` reads it.

        Raises LabError when it is below ``at_least``, or a number before it is missing, or a block is torn.
        """
        disk = ops(node, "counted", storage.path(node, self.volume, snapshot), program=_INSIDE)
        last = int(disk["last"])
        if last < at_least or disk["whole"] != min(last, disk["blocks"]) or disk["torn"]:
            raise LabError(f"guest {self.vmid} has {at_least} writes acknowledged, its disk on {node.name}: {disk}")
        return last

    def check_console(self) -> None:
        """Raises LabError when the guest left out a number or said one twice."""
        broken = gaps(self.acknowledged.said())
        if broken:
            raise LabError(f"guest {self.vmid} did not count on: {broken}")

    def _launch(self, node: Node, *more: str) -> None:
        """Start QEMU on a node whose storage says where the disk is, as Proxmox asks it before every start."""
        _, answer = storage.call_many(node, [("activate_volumes", [self.volume]), ("path", self.volume)])
        console = f"vm-{self.vmid}.{next(self._runs)}.console"
        self.acknowledged.add(node.share / console)
        errors = self._run_file("log")
        command = shlex.join([*self._qemu(str(answer.value)), *more])
        # Through dd, so that what the guest says is outside the node at once, whatever happens to the node.
        node.run(
            f"rm -f {self._run_file('qmp')}\n"
            f"{command} </dev/null 2>{errors} |\n"
            f"    dd of={GUEST_SHARE}/{console} bs=4096 oflag=sync,append conv=notrunc status=none 2>/dev/null &\n"
            f"for try in $(seq 200); do [ -S {self._run_file('qmp')} ] && exit 0; sleep 0.05; done\n"
            f"cat {errors}; exit 1"
        )

    def _qemu(self, path: str) -> list[str]:
        append = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"
        return [
            *("qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "qemu64", "-m", f"size={_MEMORY >> 10}K"),
            *("-display", "none", "-nodefaults", "-no-user-config", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(self._kernel.kernel), "-initrd", str(self._kernel.initramfs), "-append", append),
            *("-drive", f"file={path},if=none,id=disk,format=raw,cache={self.cache},werror={self.werror},aio=io_uring"),
            *("-device", "virtio-blk-pci,drive=disk", "-pidfile", self._run_file("pid")),
            *("-qmp", f"unix:{self._run_file('qmp')},server=on,wait=off"),
        ]

    def _run_file(self, kind: str) -> str:
        return f"/run/vm-{self.vmid}.{kind}"

    def _inside(self, node: Node, operation: str, *arguments: object) -> Any:
        return ops(node, operation, self._run_file("qmp"), *arguments, timeout=180, program=_INSIDE)

    def _complaints(self) -> str:
        log = self.node.sh(f"cat {self._run_file('log')}").out if self._node and self._node.running else ""
        return f"{self.acknowledged.text()[-2000:]}\n{log}"


@contextmanager
def guest(vmid: int, volume: str, cache: str = "none", werror: str = "enospc") -> Iterator[Guest]:
    """A guest that runs nowhere yet; at the end it runs nowhere again."""
    made = Guest(vmid, volume, cache, werror)
    try:
        yield made
    finally:
        made.acknowledged.close()
        if made._node is not None and made._node.running:
            made.stop()
