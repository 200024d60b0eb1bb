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
CLUSTER = 65536
GRAIN = 4 * CLUSTER  # clusters: a folder's, and what a node keeps for its own files to grow


def space(node: Node) -> dict[str, Any]:
    return dict(json.loads(node.run(f"pvedrbdstor space {STORAGE} --json")))


def image_of(found: dict[str, Any], volid: str) -> dict[str, Any]:
    volume = volid.partition(":")[2]
    return next(image for guest in found["guests"] for image in guest["images"] if image["volume"] == volume)


def snapshots_of(image: dict[str, Any]) -> dict[str, int]:
    """What deleting each of them frees."""
    return {snapshot["name"]: snapshot["frees"] for snapshot in image["snapshots"]}


def free_and_compare(node: Node, other: Node, told: int, *requests: tuple[object, ...]) -> None:
    """Blocks are given back after the answer, and to the map of all nodes a moment later still (OCFS2's truncate_log)."""
    before = ops(other, "free_bytes", MOUNT_POINT)
    call_many(node, requests)
    node.run("sync")
    freed: list[int] = []

    def given_back() -> bool:
        freed.append(ops(other, "free_bytes", MOUNT_POINT) - before)
        return abs(freed[-1] - told) <= GRAIN

    wait_until(given_back, f"{requests} free {told} bytes")


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

    free_and_compare(a, b, image["frees"], ("vdisk_free", disk))
    left = image_of(space(a), made.value)
    assert (left["shared"], left["frees"]) == (0, 8 * MIB)
    free_and_compare(b, a, left["frees"], ("vdisk_free", made.value))


def test_each_deletion_of_a_guest_frees_what_was_told(volumes: Cluster, vmid: int) -> None:
    """One snapshot, then one that has more to give by that, all that are left at once, and the whole guest.

    In MiB, what each snapshot has alone at first: one 3 (0 to 3), two 1 (2), three 1 (4), four 1 (6); all of them 12.
    The image ends in a write of 1000 bytes, which has a whole cluster. The second one has blocks that were reserved and never
    written. A file of some bytes has its data in its inode, and no block.
    """
    a, b = volumes.nodes
    disk, second = alloc(a, vmid, 24 * MIB), alloc(b, vmid, 8 * MIB)
    note = f"{MOUNT_POINT}/images/{vmid}/note"
    a.run(f"printf small >{note}; fallocate --offset {MIB} --length {3 * MIB} {path(a, second)}")
    ops(a, "write_pattern", path(a, disk), "first", 0, 12 * MIB)
    ops(a, "write_pattern", path(a, disk), "tail", 20 * MIB, 1000)
    for at, name in enumerate(("one", "two", "three", "four")):
        call(a, "volume_snapshot", disk, name)
        ops(volumes.nodes[at % 2], "write_pattern", path(a, disk), name, at * 2 * MIB, 3 * MIB)

    found = space(b)
    image = image_of(found, disk)
    assert snapshots_of(image) == {"one": 3 * MIB, "two": MIB, "three": MIB, "four": MIB}
    assert (image["allocated"], image["snapshots_free"]) == (12 * MIB + CLUSTER, 12 * MIB)
    assert image_of(found, second)["frees"] == 3 * MIB
    assert [other["frees"] for other in found["others"] if other["what"].startswith("files in guests'")] == [0]
    a.run(f"rm {note}")

    free_and_compare(b, a, MIB, ("volume_snapshot_delete", disk, "two"))
    image = image_of(space(a), disk)
    assert snapshots_of(image) == {"one": 5 * MIB, "three": MIB, "four": MIB}
    free_and_compare(a, b, 5 * MIB, ("volume_snapshot_delete", disk, "one"))
    image = image_of(space(b), disk)
    assert image["snapshots_free"] == 6 * MIB > sum(snapshots_of(image).values())
    (guest,) = space(a)["guests"]
    assert guest["frees"] == 18 * MIB + CLUSTER + 3 * MIB
    free_and_compare(b, a, 6 * MIB, *(("volume_snapshot_delete", disk, name) for name in ("three", "four")))
    free_and_compare(a, b, guest["frees"] - 6 * MIB, ("vdisk_free", second), ("vdisk_free", disk))
