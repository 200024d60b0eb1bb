"""Both nodes at once on the same guests: no name lost or given out twice, no content mixed up, nothing left over."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import ops
from tests.lab.results import Results

SECONDS = 10
LEAST_OPERATIONS = 10  # a node, on a machine that is busy with other things
SOAK_SECONDS = 60
SOAK_LEAST_OPERATIONS = 300


def run_load(node: Node, vmids: list[int], seconds: float) -> dict[str, Any]:
    """guest/load.py in a node: what it counted, its errors, and the volumes it owns in the end."""
    words = " ".join(str(vmid) for vmid in vmids)
    command = f"cd {REPOSITORY} && /usr/bin/python3 -m tests.lab.guest.load {seconds} {node.name} {words}"
    report: dict[str, Any] = json.loads(node.run(command, timeout=seconds + 60).splitlines()[-1])
    return report


def assert_content(node: Node, owned: dict[str, Any]) -> None:
    """What has to be in the volumes of guest/load.py, as this node reads them: in the volumes and their snapshots."""
    expected = {(volid, None): volume["tag"] for volid, volume in owned.items()}
    for volid, volume in owned.items():
        expected |= {(volid, name): tag for name, tag in volume["snapshots"].items()}
    files = [answer.value for answer in storage.call_many(node, [("path", *wanted) for wanted in expected])]
    assert dict(zip(expected, ops(node, "tags", *files), strict=True)) == expected


def race(cluster: Cluster, vmid: int, seconds: float, least: int) -> list[Counter[str]]:
    """Both nodes work on two guests' volumes for so long, at least ``least`` operations each: what each node counted.

    Afterwards every volume is there once, of its owner, with its owner's content, and nothing else is.
    """
    a, b = cluster.nodes
    on_a, on_b = on_each(cluster.nodes, lambda node: run_load(node, [vmid, vmid + 1], seconds))
    assert on_a["errors"] == on_b["errors"] == []
    counts = [Counter(report["counts"]) for report in (on_a, on_b)]
    assert min(count.total() for count in counts) >= least, counts
    assert not set(on_a["volumes"]) & set(on_b["volumes"]), "both nodes own the same volume"
    owned = {**on_a["volumes"], **on_b["volumes"]}
    for node in cluster.nodes:
        listed = storage.listing(node)
        assert {volid: image["size"] for volid, image in listed.items()} == {
            volid: volume["size"] for volid, volume in owned.items()
        }
    assert_content(b, on_a["volumes"])
    assert_content(a, on_b["volumes"])
    snapshots = {volid: sorted(volume["snapshots"]) for volid, volume in owned.items()}
    found = storage.call_many(a, [("volume_snapshot_info", volid) for volid in owned])
    assert [sorted(answer.value) for answer in found] == list(snapshots.values())
    assert ops(a, "list_folder", storage.WORK) == []
    return counts


def test_operations_racing_from_both_nodes_lose_and_double_nothing(volumes: Cluster, vmid: int) -> None:
    race(volumes, vmid, SECONDS, LEAST_OPERATIONS)


@pytest.mark.soak
@pytest.mark.alone
def test_operations_racing_for_a_minute_lose_and_double_nothing(volumes: Cluster, vmid: int, results: Results) -> None:
    on_a, on_b = race(volumes, vmid, SOAK_SECONDS, SOAK_LEAST_OPERATIONS)
    table = f"Operations racing from both nodes on the same guests for {SOAK_SECONDS} s"
    for name in sorted(on_a | on_b):
        results.row(table, operation=name, node_a=on_a[name], node_b=on_b[name])
    results.row(table, operation="in all", node_a=on_a.total(), node_b=on_b.total())


def test_allocations_raced_from_both_nodes_get_every_number_once(volumes: Cluster, vmid: int) -> None:
    each = 20

    def allocate(node: Node) -> list[str]:
        answers = storage.call_many(node, [("vdisk_alloc", STORAGE, vmid, "raw", None, 64)] * each)
        return [answer.value for answer in answers]

    on_a, on_b = on_each(volumes.nodes, allocate)
    expected = [f"{STORAGE}:{vmid}/vm-{vmid}-disk-{number}.raw" for number in range(2 * each)]
    assert sorted(on_a + on_b) == sorted(expected)
    assert sorted(storage.listing(volumes.b)) == sorted(expected)
