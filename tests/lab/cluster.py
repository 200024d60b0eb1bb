"""Two nodes with one OCFS2 on dual-primary DRBD, and perhaps a witness, owned by a `with` block that leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from tests.lab import formation
from tests.lab.backends import Backend, choose, scratch_root
from tests.lab.network import Network
from tests.lab.node import Node

_PREFIX = "drbdocfs2-lab-"
_DISK_SIZE = 1 << 30
MEMORY_WITH_COROSYNC = 400  # MiB of a node: corosync locks 157 of them
_WITNESS_MEMORY = 160  # MiB; enough for corosync-qnetd
_WITNESS_DISK = 1 << 20  # which it does not use


class Cluster:
    """A running pair of nodes a and b. Use as a context manager.

    folder holds disks, consoles and shared folders and is removed at the end, unless the environment variable LAB_KEEP
    is set. uuid is the file system's, 32 upper case hex digits. memory is a node's, in MiB; without it, as much as the
    backend needs. formed: DRBD up, the file system mounted; without it the nodes are booted and configured, no more.
    first: what is PID 1 in the nodes, "agent" or "systemd". witness: there is a third node c with so much memory, which
    has no part in DRBD. fencing: how DRBD is to fence, if at all. booted: called when the nodes have booted, before DRBD
    is there. disk_size: bytes of a lower disk. layout: of its file system. bare: the disks are empty, and nothing is configured or done.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        progress: Callable[[str], None] = lambda _: None,
        memory: int | None = None,
        *,
        formed: bool = True,
        first: str = "agent",
        witness: bool = False,
        witness_memory: int | None = None,
        fencing: formation.Fencing | None = None,
        booted: Callable[[Cluster], None] = lambda _: None,
        disk_size: int = _DISK_SIZE,
        layout: formation.Layout | None = None,
        bare: bool = False,
    ) -> None:
        self.backend = backend or choose()
        self.memory = memory or (MEMORY_WITH_COROSYNC if witness else self.backend.memory)
        self.fencing = fencing
        self.network = Network()
        self.uuid = uuid.uuid4().hex.upper()
        self._booted = booted
        self._disk_size = disk_size
        self._layout = layout
        self._bare = bare
        self._formed = formed
        self._first = first
        self._witness_memory = (witness_memory or _WITNESS_MEMORY) if witness else 0
        self._progress = progress
        self._exit = ExitStack()
        self.folder = Path()
        self.a: Node
        self.b: Node
        self.c: Node | None = None

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Those with the file system."""
        return self.a, self.b

    @property
    def machines(self) -> tuple[Node, ...]:
        """All nodes, the witness too."""
        return (*self.nodes, self.c) if self.c else self.nodes

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            stack.enter_context(_sigterm_unwinds())
            self.folder = stack.enter_context(_folder())
            stack.enter_context(self.network)
            self.a, self.b = (self._node(name, number, self.memory) for number, name in enumerate("ab", start=1))
            if self._witness_memory:
                self.c = self._node("c", 3, self._witness_memory)
            stack.callback(self._kill)
            self._boot()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def rejoin(self, node: Node) -> float:
        """Boot a node that was killed and bring it back: DRBD in sync, promoted, mounted. The seconds it took.

        The service is not started (storage.install does that). Raises LabError.
        """
        started = time.monotonic()
        node.start()
        node.wait_ready()
        formation.rejoin(node, self.nodes, self.fencing)
        return time.monotonic() - started

    def _boot(self) -> None:
        if self._bare:
            formation.make_empty_disks(self.nodes, self._disk_size)
        else:
            formation.make_disks(self.nodes, self._disk_size, self.uuid, self._layout)
        if self.c:
            with self.c.disk.open("wb") as disk:
                disk.truncate(_WITNESS_DISK)
        for node in self.machines:
            node.start()
        formation.on_each(self.machines, lambda node: node.wait_ready())
        self._progress(f"{len(self.machines)} nodes booted ({self.backend.kind})")
        self._booted(self)
        if self._bare:
            return
        if not self._formed:
            formation.leave_unformed(self.nodes, self.fencing)
            self._progress("nothing is up: DRBD has its metadata, the volume its file system")
            return
        formation.form(self.nodes, self.fencing)
        self._progress(f"DRBD dual-primary, OCFS2 mounted on {formation.MOUNT_POINT} of both")

    def _node(self, name: str, number: int, memory: int) -> Node:
        return Node(name, number, self.backend, self.network, self.folder / name, memory, self._first)

    def _kill(self) -> None:
        for node in self.machines:
            node.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of this cluster alone; removes what owners that were killed have left (their nodes end themselves)."""
    root = scratch_root()
    for old in root.glob(f"{_PREFIX}*"):
        with _owned(old / "owner") as owned:
            if owned and not (old / "kept").exists():
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    with (folder / "owner").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        owner.write(f"{os.getpid()}\n")
        owner.flush()
        try:
            yield folder
        finally:
            if os.environ.get("LAB_KEEP"):
                (folder / "kept").touch()
            else:
                shutil.rmtree(folder)


@contextmanager
def _owned(path: Path) -> Iterator[bool]:
    """Whether the lock at ``path`` could be had, which is then held; False also for one that is just being made."""
    try:
        lock: IO[str] = path.open("r+")
    except OSError:
        yield False
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, as SIGINT does, so that every `with` cleans up."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
