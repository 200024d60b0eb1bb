"""`pvedrbdstor space` on OCFS2: what it says that deleting frees, beside what df then has."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops, wait_until
from tests.lab.storage import alloc, call, call_many, path

MIB = 1 << 20
GRAIN = 4 * 65536  # clusters: a folder's, and what a node keeps for its own files to grow


def space(node: Node) -> dict[str, Any]:
    return dict(json.loads(node.run(f"pvedrbdstor space {STORAGE} --json")))


def image_of(found: dict[str, Any], volid: str) -> dict[str, Any]:
    volume = volid.partition(":")[2]
    return next(image for guest in found["guests"] for image in guest["images"] if image["volume"] == volume)


def free_and_compare(node: Node, other: Node, volid: str, told: int) -> None:
    """Blocks are given back after the answer, and to the map of all nodes a moment later still (OCFS2's truncate_log)."""
    before = ops(other, "free_bytes", MOUNT_POINT)
    call(node, "vdisk_free", volid)
    node.run("sync")
    freed: list[int] = []

    def given_back() -> bool:
        freed.append(ops(other, "free_bytes", MOUNT_POINT) - before)
        return abs(freed[-1] - told) <= GRAIN

    wait_until(given_back, f"{volid} frees {told} bytes")


def test_deleting_frees_what_was_told_on_the_other_node(volumes: Cluster, vmid: int) -> None:
    """A clone of a snapshot keeps what it has of the guest that goes; then it holds that alone."""
    a, b = volumes.nodes
    disk = alloc(a, vmid, 32 * MIB)
    ops(a, "write_pattern", path(a, disk), "first", 0, 8 * MIB)
    *_, made = call_many(a, [("volume_snapshot", disk, "one"), ("vdisk_clone", disk, vmid + 1, "one")])
    ops(b, "write_pattern", path(a, disk), "second", 4 * MIB, 8 * MIB)

    found = space(b)
    image, clone = image_of(found, disk), image_of(found, made.value)
    assert (image["allocated"], image["shared"], image["frees"]) == (12 * MIB, 4 * MIB, 8 * MIB)
    assert [(snapshot["name"], snapshot["frees"]) for snapshot in image["snapshots"]] == [("one", 0)]
    assert (clone["allocated"], clone["shared"], clone["frees"], found["between"]) == (8 * MIB, 8 * MIB, 0, 8 * MIB)
    parts = [*found["guests"], *found["others"]]
    assert sum(part["frees"] for part in parts) + found["between"] + found["itself"] == found["used"]

    free_and_compare(a, b, disk, image["frees"])
    left = image_of(space(a), made.value)
    assert (left["shared"], left["frees"]) == (0, 8 * MIB)
    free_and_compare(b, a, made.value, left["frees"])
