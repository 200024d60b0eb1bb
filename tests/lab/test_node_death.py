"""A node loses its power in the middle of an operation: its peer goes on, puts right what it left, and loses nothing."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.lab import formation, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops, running_op, wait_until
from tests.lab.results import Results
from tests.lab.storage import alloc, call, path

MIB = 1 << 20
TABLE = "A node killed in the middle of an operation, seen from the other node"
TABLE_OF_LOCKS = "Locks of a killed node"
RECOVERY_SECONDS = 150  # dead time 60 s, DLM recovery, and what a stalled call may wait for on top
JOURNAL_SECONDS = 6  # jbd2 commits every 5 s
BEATS = "/tmp/beats.json"


@dataclass(frozen=True)
class Kind:
    """An operation, where its node dies, and whether the committing step (docs/architecture.md) was done by then.

    settled: the node dies only after the file system's journal has the step for sure. Without that either outcome is right.
    """

    name: str
    method: str
    params: dict[str, Any]
    point: str
    done: bool = False
    snapshot: bool = False
    settled: bool = True
    case: dict[str, Any] = field(default_factory=dict)


RENAME = Kind("rename with snapshots", "rename_volume", {"target_name": None}, "rename.image-moved", True, True)
KINDS = [
    replace(RENAME, name="rename, at once", settled=False),
    Kind("allocation", "alloc_image", {"format": "raw", "name": None, "size_kib": 4096}, "publish.synced"),
    Kind(
        "full preallocation",
        "alloc_image",
        {"format": "raw", "name": None, "size_kib": 131072},
        "half",
        case={"preallocation": "full"},
    ),
    Kind("snapshot", "volume_snapshot", {"snap": "new"}, "snapshot.marked"),
    Kind("rollback", "volume_snapshot_rollback", {"snap": "old"}, "replace.synced", snapshot=True),
    Kind("snapshot removal", "volume_snapshot_delete", {"snap": "old"}, "snapshot-delete.gone", True, True),
    Kind("free with snapshots", "free_image", {"is_base": False}, "free.image-gone", True, True),
    Kind("template", "create_base", {}, "template.renamed", True),
    Kind("clone of a snapshot", "clone_image", {"snap": "old"}, "clone.copied", snapshot=True),
    Kind(
        "import",
        "volume_import",
        {"format": "raw+size", "with_snapshots": False, "allow_rename": True},
        "import.received",
        case={"stream": 4 * MIB},
    ),
    Kind("qcow2 snapshot", "volume_snapshot", {"snap": "new"}, "qcow2.changed", case={"format": "qcow2"}),
    Kind("resize", "volume_resize", {"size": 32 * MIB}, "resize.grown", True, True),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of this module alone. In the end its file system is taken down and checked: deaths have not hurt it."""
    with Cluster() as formed:
        yield formed
        formation.on_each(formed.nodes, storage.stop_service)
        formation.check(formed.nodes)


@pytest.fixture(scope="module")
def storage_service(cluster: Cluster) -> Cluster:
    """The cluster with the service running on both nodes."""
    storage.install(cluster.nodes)
    return cluster


@pytest.fixture
def revived(volumes: Cluster) -> Iterator[Cluster]:
    """The cluster; a node that is dead in the end is brought back, so that the next test has two again."""
    yield volumes
    for node in volumes.nodes:
        if not node.running:
            volumes.rejoin(node)
            storage.install([node])


def command_of(module: str, vmid: int, kind: Kind, *words: str) -> str:
    """The shell command for guest/crash.py or guest/stall.py with this operation."""
    extra = dict(kind.case)
    settings = {"id": STORAGE, "path": MOUNT_POINT, "resource": RESOURCE, "volume": 0, "uuid": None}
    settings["preallocation"] = extra.pop("preallocation", None)
    case = {
        "storage": settings,
        "vmid": vmid,
        "snapshot": kind.snapshot,
        "method": kind.method,
        "params": kind.params,
        **extra,
    }
    line = ["/usr/bin/python3", "-m", f"tests.lab.guest.{module}", *words, json.dumps(case)]
    return f"cd {REPOSITORY} && exec {shlex.join(line)}"


def state(node: Node, vmid: int) -> dict[str, Any]:
    """All there is of a guest: image -> its size, content, and its snapshots' content."""
    return dict(ops(node, "guest_state", f"{MOUNT_POINT}/images/{vmid}", timeout=120))


def stall(node: Node, vmid: int, kind: Kind) -> None:
    """Have an operation stop in its middle."""
    reached = node.share / "reached"
    reached.unlink(missing_ok=True)
    node.run(f"({command_of('stall', vmid, kind, '/run/lab/reached', kind.point)}) >/run/lab/stall.log 2>&1 &")
    log = node.share / "stall.log"
    wait_until(reached.exists, f"{kind.name} has reached {kind.point} ({log.read_text() if log.exists() else ''})")


def until_it_works(work: Callable[[], bool], since: float) -> float:
    """Try until it works: the seconds from ``since`` on. What fails while the cluster recovers is tried again."""
    while True:
        try:
            if work():
                return time.monotonic() - since
        except LabError as error:
            if time.monotonic() - since > RECOVERY_SECONDS:
                raise LabError(f"still fails {RECOVERY_SECONDS} s after the node died: {error}") from error
        time.sleep(0.5)


def recovered(node: Node) -> bool:
    """Activate the storage, as Proxmox does before every use; whether work/ is empty then."""
    call(node, "activate_storage", STORAGE)
    return list(ops(node, "list_folder", storage.WORK, timeout=20)) == []


@pytest.mark.parametrize(
    "kind",
    [RENAME, *(pytest.param(kind, marks=pytest.mark.soak) for kind in [RENAME, *KINDS])],
    ids=lambda kind: kind.name,
)
def test_peer_goes_on_and_puts_right_what_the_dead_node_left(
    revived: Cluster, vmid: int, kind: Kind, results: Results
) -> None:
    a, b = revived.nodes
    before, after = outcomes(a, b, vmid, kind)
    kept = alloc(a, vmid + 1, 8 * MIB)
    call(a, "volume_snapshot", kept, "before")
    ops(a, "write_pattern", path(a, kept), "committed", 0, MIB)
    committed = state(b, vmid + 1)
    running = alloc(b, vmid + 1, 4 * MIB)
    boots = b.boots

    with running_op(b, "beat", path(b, running), BEATS):
        stall(a, vmid, kind)
        if kind.done and kind.settled:
            time.sleep(JOURNAL_SECONDS)
        a.kill()
        died = time.monotonic()
        new_disk = until_it_works(lambda: bool(alloc(b, vmid + 1, MIB)), died)
        cleaned = until_it_works(lambda: recovered(b), died)
        found = state(b, vmid)
        assert found in ((before, after) if kind.done else (before,))
        assert found == after or not (kind.done and kind.settled)
        survived = state(b, vmid + 1)
        assert {name: survived[name] for name in committed} == committed
        assert alloc(b, vmid, MIB).startswith(f"{STORAGE}:{vmid}/"), "the dead node's lock is free"
        writes = json.loads(b.run(f"cat {BEATS}"))["writes"]
        wait_until(lambda: json.loads(b.run(f"cat {BEATS}"))["writes"] > writes + 10, "the guest goes on")
        beats = json.loads(b.run(f"cat {BEATS}"))
    rejoined = revived.rejoin(a)
    storage.install([a])
    assert sorted(storage.listing(a)) == sorted(storage.listing(b))
    assert state(a, vmid) == state(b, vmid)
    assert state(a, vmid + 1)[kept.rpartition("/")[2]] == committed[kept.rpartition("/")[2]]
    assert recovered(a)
    assert b.boots == boots, "the survivor went on without a fence"
    results.row(
        TABLE,
        key=("operation", "killed at"),
        operation=kind.name,
        killed_at=kind.point,
        outcome="done" if found == after else "undone",
        longest_stall_of_a_write=f"{beats['longest']:.1f} s",
        stalls_above_1_s=", ".join(f"{stall:.1f}" for stall in beats["stalls"]) or "none",
        new_disk_after=f"{new_disk:.1f} s",
        all_put_right_after=f"{cleaned:.1f} s",
        rejoin_took=f"{rejoined:.1f} s",
    )


@pytest.mark.soak
def test_lock_of_a_dead_node_passes_to_the_waiter_once_it_is_declared_dead(revived: Cluster, results: Results) -> None:
    a, b = revived.nodes
    lock = f"{MOUNT_POINT}/lock-of-the-dead"
    ops(a, "write", lock, "")
    with ThreadPoolExecutor(1) as pool, running_op(a, "hold_flock", lock):
        waiter = pool.submit(ops, b, "wait_flock", lock, timeout=RECOVERY_SECONDS)
        time.sleep(2)
        assert not waiter.done(), "the lock was given away while it was held"
        a.kill()
        died = time.monotonic()
        waiter.result()
        seconds = time.monotonic() - died
    b.run(f"rm {lock}")
    results.row(TABLE_OF_LOCKS, what="flock() passes to a waiter on the other node", after_the_death=f"{seconds:.1f} s")


def outcomes(a: Node, b: Node, vmid: int, kind: Kind) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The guest before the operation, and after one that was done in peace. stall() begins with the same disk again."""
    nothing = Kind("nothing", "activate_volume", {"snap": None}, "none", snapshot=kind.snapshot, case=kind.case)
    a.run(command_of("crash", vmid, nothing, "none"))
    before = state(b, vmid)
    if not kind.done:
        return before, None
    a.run(command_of("crash", vmid, kind, "none"))
    after = state(b, vmid)
    assert after != before
    return before, after
