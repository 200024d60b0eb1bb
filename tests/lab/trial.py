"""One freshly formed cluster with corosync, fencing and writers on both nodes, and the services that bring a node back after a boot."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.lab import formation
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import MEMORY_WITH_COROSYNC, Cluster
from tests.lab.corosync import Corosync, Witness
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT, RESOURCE, on_each
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.ops import wait_until
from tests.lab.protection import Protection, wins

KINDS = ("cached", "direct")  # of writers, see guest/writer.py
WATCH_LOG = "watch.log"
IN_SYNC = "Connected Primary/Primary UpToDate/UpToDate"
_CALM_WRITES = 10  # acknowledged by each writer before anything happens
_SYNC_SECONDS = 150
_DISK_SIZE = 384 << 20  # bytes; fsck.ocfs2 wants as much memory as a disk has bytes, and several run at once
_BOOT_SECONDS = 20.0  # of a real machine, whose firmware alone takes longer than all of a boot here
_LOOK_SECONDS = 1.0


class Trial:
    """A cluster under trial. Made by running().

    eager: a node that comes back asks to be primary as soon as it is quorate, without having seen its peer, as a careless
    administrator or unit would. served is where the storage is mounted and written to.
    """

    corosync: Corosync

    def __init__(self, cluster: Cluster, witness: Witness, protection: Protection, eager: bool) -> None:
        self.cluster = cluster
        self.network = cluster.network
        self.witness = witness
        self.protection = protection
        self.eager = eager
        self.served: set[str] = set()
        self.away: set[str] = set()  # nodes that nothing brings back for the time being
        self.notes: list[str] = []
        self.killed: set[str] = set()
        self._asked_for: set[tuple[str, int]] = set()  # boots: node, its how many-eth
        self.background = ThreadPoolExecutor(4, thread_name_prefix="lab-trial")
        self._ended = threading.Event()

    def node(self, name: str) -> Node:
        return next(node for node in self.cluster.machines if node.name == name)

    def note(self, text: str) -> None:
        self.notes.append(f"{time.time():.3f} {text}")

    def won(self) -> int:
        """How often any node was told to go on."""
        return sum(wins(node) for node in self.cluster.nodes)

    def switch_off(self, node: Node) -> None:
        self.killed.add(node.name)
        node.kill()

    def switch_on(self, node: Node) -> None:
        self._asked_for.add((node.name, node.boots))
        node.start()

    def resets(self, node: Node) -> list[float]:
        """When the node booted though nobody had asked for it (time.time())."""
        return [
            when
            for index, when in enumerate(node.boot_times)
            if index > 0 and (node.name, index) not in self._asked_for
        ]

    def equip(self) -> None:
        """Corosync, and what decides by it, on nodes that have booted. Raises LabError."""
        assert self.cluster.c is not None
        self.corosync = Corosync(self.cluster.nodes, self.cluster.c, self.witness)
        self.corosync.form()
        on_each(self.cluster.nodes, self._equip)

    def begin(self) -> None:
        """Calm writing on both nodes, until the guards trust what they see. Raises LabError."""
        on_each(self.cluster.nodes, self.start_writers)
        self.served = {node.name for node in self.cluster.nodes}
        wait_until(self._calm, "both nodes write", 60)
        wait_until(self._ready, "the guards have seen enough", 90)
        for node in self.cluster.nodes:
            threading.Thread(target=self._serve, args=(node,), name=f"lab-serve-{node.name}", daemon=True).start()

    def start_writers(self, node: Node) -> None:
        """Start the writers, each with the number after its last."""
        for kind in KINDS:
            said = node.share / f"{kind}.log"
            tried = (
                [line.split()[2] for line in said.read_text().splitlines() if " try " in line] if said.exists() else []
            )
            first = int(tried[-1]) + 1 if tried else 1
            words = f"{kind} {data_file(kind, node.name)} {GUEST_SHARE}/{said.name} {first}"
            self.spawn(node, f"writer-{kind}", f"tests.lab.guest.writer {words}")

    def stop_writers(self, node: Node) -> None:
        for kind in KINDS:
            self.end_spawned(node, f"writer-{kind}", signal.SIGTERM)

    def spawn(self, node: Node, name: str, module: str) -> None:
        """Run a module of guest/, unless it runs, until the node ends; what it complains of is in the shared folder."""
        node.run(
            f"""kill -0 $(cat /run/lab-{name}.pid 2>/dev/null) 2>/dev/null && exit 0
cd {REPOSITORY} || exit 1
setsid /usr/bin/python3 -m {module} </dev/null >>{GUEST_SHARE}/{name}.out 2>&1 &
echo $! >/run/lab-{name}.pid"""
        )

    def end_spawned(self, node: Node, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End what spawn() has started, where it runs, with its children, and wait until all are gone: their files keep the mount
        busy."""
        end = f"kill -{int(number)} -- -$pid; while kill -0 -- -$pid; do sleep 0.05; done"
        node.sh(f"pid=$(cat /run/lab-{name}.pid) || exit 0; {end}", 60)

    def take_down(self, node: Node) -> None:
        """Take the storage down in good order. It comes back when ``away`` no longer names the node."""
        self.away.add(node.name)
        self.served.discard(node.name)
        self.stop_writers(node)
        node.run(f"umount {MOUNT_POINT} && drbdadm down {RESOURCE}", 60)

    def in_sync(self) -> bool:
        """Whether both nodes are served, primary, connected and up to date."""
        return self.served == {"a", "b"} and all(drbd_state(node).startswith(IN_SYNC) for node in self.cluster.nodes)

    def end(self) -> None:
        """Nothing is brought back any more."""
        self._ended.set()
        self.background.shutdown(wait=False, cancel_futures=True)

    def _calm(self) -> bool:
        logs = [node.share / f"{kind}.log" for node in self.cluster.nodes for kind in KINDS]
        return all(log.exists() and log.read_text().count(" ack ") >= _CALM_WRITES for log in logs)

    def _ready(self) -> bool:
        return all(self.protection.ready(node) for node in self.cluster.nodes)

    def _equip(self, node: Node) -> None:
        self.protection.install(node)
        self.spawn(node, "watch", f"tests.lab.guest.watch {GUEST_SHARE}/{WATCH_LOG}")

    def _serve(self, node: Node) -> None:
        """What init and the storage's services do on a node: after each boot, bring it back, until it is."""
        boots = node.boots
        while not self._ended.wait(_LOOK_SECONDS):
            if node.boots != boots:
                boots = node.boots
                self.served.discard(node.name)
                self.note(f"node {node.name} has booted")
                self._ended.wait(max(0.0, node.boot_times[-1] + _BOOT_SECONDS - time.time()))
            if node.name in self.served or node.name in self.away or not node.running:
                continue
            try:
                self._bring_back(node)
            except LabError as error:  # it has died again, or its peer is not there: tried again
                self.note(f"node {node.name} is not back: {str(error)[:300]}")
            else:
                if node.boots == boots:
                    self.served.add(node.name)
                    self.note(f"node {node.name} is back")

    def _bring_back(self, node: Node) -> None:
        self.corosync.start(node)
        self._equip(node)
        if drbd_state(node) == "down":
            formation.bring_up(node, self.cluster.nodes, f"drbdadm up {RESOURCE}", self.protection.fencing)
        if self.eager:
            self.corosync.wait_for_votes(node, votes=2)
            ready = f"timeout 60 drbdadm primary {RESOURCE}"
        else:
            ready = "until grep -q 'cs:Connected .* ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done"
        node.run(ready, _SYNC_SECONDS)
        formation.promote(node)
        if node.sh(f"mountpoint -q {MOUNT_POINT}").rc != 0:
            formation.mount(node)
        self.start_writers(node)


@contextmanager
def running(
    protection: Protection, witness: Witness, memory: int | None = None, eager: bool = False
) -> Iterator[Trial]:
    """A trial on a cluster of its own, calmly written to on both nodes, that ends with the block. Raises LabError."""
    cluster = Cluster(
        memory=memory,
        witness=True,
        witness_memory=MEMORY_WITH_COROSYNC if witness.full else None,
        fencing=protection.fencing,
        booted=lambda _: trial.equip(),
        disk_size=_DISK_SIZE,
    )
    trial = Trial(cluster, witness, protection, eager)
    with cluster:
        try:
            trial.begin()
            yield trial
        finally:
            trial.end()


def data_file(kind: str, name: str) -> str:
    """The file that a node's writer writes."""
    return f"{MOUNT_POINT}/{kind}.node{name}"


def drbd_state(node: Node) -> str:
    """As guest/watch.py has it: connection, roles, disks, flags; "down", or "silent" where the node does not answer."""
    program = r"""s/.*cs:\(\S*\) ro:\(\S*\) ds:\(\S*\) \S* \(\S*\).*/\1 \2 \3 \4/p"""
    if not node.running:
        return "silent"
    try:
        result = node.sh(f"sed -n '{program}' /proc/drbd 2>/dev/null", 10)
    except LabError:  # it has ended just now
        return "silent"
    return (result.out.strip() or "down") if result.rc in (0, 2) else "silent"
