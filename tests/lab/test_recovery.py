"""The backend killed in the middle of its work on one node: the other node's activation leaves before or after."""

from __future__ import annotations

import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops, wait_until
from tests.lab.storage import alloc, call, path

MIB = 1 << 20
KILLED = 137
KILLER_SECONDS = 8

KILL_WORKERS = """
server=$(cat /run/pvedrbdstor/serve.pid) killed=0 end=$(($(date +%s) + SECONDS_TO_KILL))
while [ $(date +%s) -lt $end ]; do
    for process in $(cat /proc/$server/task/$server/children); do
        kill -9 $process && killed=$((killed + 1))
    done
    sleep 0.2
done
echo $killed
""".replace("SECONDS_TO_KILL", str(KILLER_SECONDS))


@dataclass(frozen=True)
class Operation:
    """A request to be killed in; params besides the storage, with {vmid} for the guest's number."""

    method: str
    params: dict[str, Any]


OPERATIONS = [
    Operation("alloc_image", {"format": "raw", "name": None, "size_kib": 4096}),
    Operation("volume_snapshot", {"snap": "new"}),
    Operation("volume_snapshot_rollback", {"snap": "old"}),
    Operation("volume_snapshot_delete", {"snap": "old"}),
    Operation("clone_image", {"snap": "old"}),
    Operation("volume_resize", {"size": 32 * MIB}),
    Operation("rename_volume", {"target_name": None}),
    Operation("free_image", {"is_base": False}),
    Operation("create_base", {}),
]


def crash(node: Node, point: str, operation: Operation, vmid: int, volid: str) -> tuple[int, str]:
    """Run an operation to be killed at a fault point: exit status and output of guest/crash.py."""
    config = {"id": STORAGE, "path": MOUNT_POINT, "resource": RESOURCE, "volume": 0, "uuid": None}
    params = {"storage": config, "timeout": 50, "vmid": vmid, "target_vmid": vmid, **operation.params}
    params["volname"] = volid.partition(":")[2]
    request = json.dumps({"method": operation.method, "params": params})
    command = f"cd {REPOSITORY} && /usr/bin/python3 -m tests.lab.guest.crash {point} {shlex.quote(request)}"
    result = node.sh(command, timeout=60)
    return result.rc, result.out


def state(node: Node, vmid: int) -> dict[str, Any]:
    """All there is of a guest: volume -> size, content, and content of every snapshot."""
    found = {}
    for volid, image in storage.listing(node, vmid).items():
        names = sorted(call(node, "volume_snapshot_info", volid).value)
        snapshots = {name: ops(node, "digest", path(node, volid, name)) for name in names}
        found[volid] = {
            "size": image["size"],
            "content": ops(node, "digest", path(node, volid)),
            "snapshots": snapshots,
        }
    return found


def disk_with_snapshot(node: Node, vmid: int, operation: Operation) -> str:
    """A disk with content that has changed since its snapshot `old` (none where a template is to be made)."""
    volid = alloc(node, vmid, 4 * MIB)
    ops(node, "write_pattern", path(node, volid), "old", 0, 65536)
    if operation.method != "create_base":
        call(node, "volume_snapshot", volid, "old")
        ops(node, "write_pattern", path(node, volid), "new", 0, 65536)
    return volid


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.method)
def test_other_node_recovers_an_operation_killed_at_any_step(volumes: Cluster, vmid: int, operation: Operation) -> None:
    a, b = volumes.nodes
    volid = disk_with_snapshot(a, vmid, operation)
    before = state(b, vmid)
    rc, out = crash(a, "list", operation, vmid, volid)
    assert rc == 0, out
    points = list(dict.fromkeys(json.loads(out.splitlines()[-1])))
    after = state(b, vmid)
    assert points and after != before
    outcomes = []
    for point in points:
        for old in storage.listing(a, vmid):
            call(a, "vdisk_free", old)
        assert disk_with_snapshot(a, vmid, operation) == volid
        rc, out = crash(a, point, operation, vmid, volid)
        assert rc == KILLED, out
        call(b, "activate_storage", STORAGE)
        assert ops(b, "list_folder", storage.WORK) == [], f"left in work/ by a crash at {point}"
        found = state(b, vmid)
        assert found in (before, after), f"neither before nor after a crash at {point}"
        outcomes.append(found == after)
    assert outcomes == sorted(outcomes), f"after must stay after: {list(zip(points, outcomes, strict=True))}"


def test_killed_import_leaves_a_file_that_the_other_node_removes(volumes: Cluster, vmid: int) -> None:
    """Its stream stalls in the middle, so that the kill hits it there for sure."""
    a, b = volumes.nodes
    target = f"{STORAGE}:{vmid}/vm-{vmid}-disk-0.raw"
    header = (64 * MIB).to_bytes(8, "little")
    (a.share / "begun").write_bytes(header + b"x" * 2 * MIB)
    stalled = f"(cat /run/lab/begun; sleep 60) | {storage.PLUGIN_COMMAND} import {target} raw+size"
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(a.sh, stalled, 90)
        wait_until(lambda: ops(b, "list_folder", storage.WORK) != [], "the import has begun")
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
    volid = alloc(a, vmid, 4 * MIB)
    rc, _ = crash(a, "rollback.copied", Operation("volume_snapshot_rollback", {"snap": "old"}), vmid, volid)
    assert rc == 1, "there is no such snapshot"
    call(a, "volume_snapshot", volid, "old")
    rc, out = crash(a, "rollback.copied", Operation("volume_snapshot_rollback", {"snap": "old"}), vmid, volid)
    assert rc == KILLED, out
    assert call(b, "volume_snapshot", volid, "second").seconds < 5
