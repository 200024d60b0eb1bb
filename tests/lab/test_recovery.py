"""The backend killed in the middle of its work on one node: the other node's activation leaves before or after."""

from __future__ import annotations

import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops, wait_until
from tests.lab.storage import alloc, call, call_many

MIB = 1 << 20
KILLER_SECONDS = 8

KILL_WORKERS = """
server=$(cat PID_FILE) killed=0 end=$(($(date +%s) + SECONDS_TO_KILL))
while [ $(date +%s) -lt $end ]; do
    for process in $(cat /proc/$server/task/$server/children); do
        kill -9 $process && killed=$((killed + 1))
    done
    sleep 0.2
done
echo $killed
""".replace("SECONDS_TO_KILL", str(KILLER_SECONDS)).replace("PID_FILE", storage.PID_FILE)


@dataclass(frozen=True)
class Operation:
    """A request to be killed in; params besides the storage, with {vmid} for the guest's number."""

    method: str
    params: dict[str, Any]
    needs_snapshot: bool = True


OPERATIONS = [
    Operation("alloc_image", {"format": "raw", "name": None, "size_kib": 4096}),
    Operation("volume_snapshot", {"snap": "new"}),
    Operation("volume_snapshot_rollback", {"snap": "old"}),
    Operation("volume_snapshot_delete", {"snap": "old"}),
    Operation("clone_image", {"snap": "old"}),
    Operation("volume_resize", {"size": 32 * MIB}),
    Operation("rename_volume", {"target_name": None}),
    Operation("free_image", {"is_base": False}),
    Operation("create_base", {}, needs_snapshot=False),
]


def crash(node: Node, point: str, operation: Operation, vmid: int) -> list[str]:
    """Prepare a disk and have an operation on it killed at a fault point: the points it reached (guest/crash.py)."""
    case = {
        "storage": {"id": STORAGE, "path": MOUNT_POINT, "resource": RESOURCE, "volume": 0, "uuid": None},
        "vmid": vmid,
        "snapshot": operation.needs_snapshot,
        "method": operation.method,
        "params": operation.params,
    }
    command = (
        f"cd {REPOSITORY} && exec /usr/bin/python3 -m tests.lab.guest.crash {point} {shlex.quote(json.dumps(case))}"
    )
    report = json.loads(node.run(command).splitlines()[-1])
    assert report["killed"] == (point != "none")
    return list(report["reached"])


def state(node: Node, vmid: int) -> dict[str, Any]:
    """All there is of a guest: image -> its size, content, and its snapshots' content."""
    found = ops(node, "guest_state", f"{MOUNT_POINT}/images/{vmid}")
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.method)
def test_other_node_recovers_an_operation_killed_at_any_step(volumes: Cluster, vmid: int, operation: Operation) -> None:
    a, b = volumes.nodes
    crash(a, "none", replace(operation, method="activate_volume", params={"snap": None}), vmid)
    before = state(b, vmid)
    points = list(dict.fromkeys(crash(a, "none", operation, vmid)))
    after = state(b, vmid)
    assert points and after != before
    outcomes = []
    for point in points:
        crash(a, point, operation, vmid)
        listed = call_many(b, [("activate_storage", STORAGE), ("vdisk_list", STORAGE, vmid)])[1]
        assert ops(b, "list_folder", storage.WORK) == [], f"left in work/ by a crash at {point}"
        found = state(b, vmid)
        assert sorted(image["volid"] for image in listed.value[STORAGE]) == [
            f"{STORAGE}:{vmid}/{name}" for name in found
        ]
        assert found in (before, after), f"neither before nor after a crash at {point}"
        outcomes.append(found == after)
    assert outcomes == sorted(outcomes), f"after must stay after: {list(zip(points, outcomes, strict=True))}"
    assert outcomes[-1], "the last step comes after the committing one"


def test_killed_import_leaves_a_file_that_the_other_node_removes(volumes: Cluster, vmid: int) -> None:
    """Its stream stalls in the middle, so that the kill hits it there for sure."""
    a, b = volumes.nodes
    target = f"{STORAGE}:{vmid}/vm-{vmid}-disk-0.raw"
    header = (64 * MIB).to_bytes(8, "little")
    (a.share / "begun").write_bytes(header + b"x" * 2 * MIB)
    stalled = f"(cat /run/lab/begun; sleep 60) | {storage.PLUGIN_COMMAND} import {target} raw+size"
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(a.sh, stalled, 90)
        wait_until(lambda: importing.done() or ops(b, "list_folder", storage.WORK) != [], "the import has begun")
        assert not importing.done(), importing.result().out
        call(b, "activate_storage", STORAGE)
        assert ops(b, "list_folder", storage.WORK) != [], "a live import must be left alone"
        a.run("pkill -9 -f -- '--stream --request'; pkill sleep; true")
        assert importing.result(90).rc != 0
    call(b, "activate_storage", STORAGE)
    assert ops(b, "list_folder", storage.WORK) == []
    assert storage.listing(b, vmid) == {}


def test_workers_killed_under_load_lose_nothing_that_was_answered(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    made: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(a.run, KILL_WORKERS)
        end = time.monotonic() + KILLER_SECONDS
        refused = 0
        while time.monotonic() < end:
            try:
                made.append(alloc(a, vmid, MIB))
                call(a, "volume_snapshot", made[-1], "one")
            except storage.PluginError:
                refused += 1
        killed = int(killer.result(60))
    assert killed > 0, "no worker was hit"
    call(b, "activate_storage", STORAGE)
    assert ops(b, "list_folder", storage.WORK) == []
    listed = storage.listing(b, vmid)
    assert len(set(made)) == len(made)
    assert set(made) <= set(listed), f"{killed} workers killed, {refused} calls refused"
    assert len(listed) <= len(made) + refused
    assert alloc(a, vmid, MIB) not in listed, "the service still works"


def test_lock_of_a_killed_operation_is_free_on_the_other_node(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    crash(a, "rollback.copied", Operation("volume_snapshot_rollback", {"snap": "old"}), vmid)
    assert call(b, "volume_snapshot", f"{STORAGE}:{vmid}/vm-{vmid}-disk-0.raw", "second").seconds < 5
