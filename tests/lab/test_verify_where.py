"""What verify says of the places of a real, mounted OCFS2: against blocks that say themselves where they belong, and
debugfs.ocfs2."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.ops import ops

DEVICE = "/dev/drbd0"
FOLDER = f"{MOUNT_POINT}/placed"
BLOCK = 4096
CLUSTER_SIZE = 65536
_PROGRAM = "tests.lab.guest.placed"


def ask(node: Node, *arguments: str) -> Any:
    return ops(node, *arguments, program=_PROGRAM, timeout=240)


def where(node: Node, ranges: list[tuple[int, int]]) -> Any:
    """The ranges go by a file: there are more of them than an argument holds."""
    (node.share / "ranges.json").write_text(json.dumps(ranges))
    return ask(node, "where", MOUNT_POINT, DEVICE, f"{GUEST_SHARE}/ranges.json")


@pytest.fixture(scope="module")
def placed(small: Cluster) -> Iterator[Cluster]:
    """Both nodes have written files of their own, and the other one has not looked at them."""
    for node in small.nodes:
        ask(node, "write", f"{FOLDER}/{node.name}", node.name)
    yield small
    small.a.run(f"rm -rf {FOLDER}; sync")


def test_every_block_of_every_file_is_said_to_be_where_it_says_itself(placed: Cluster) -> None:
    a, b = placed.nodes
    tagged = {
        int(at): (path.removeprefix(f"{MOUNT_POINT}/"), offset) for at, (path, offset) in ask(b, "scan", DEVICE).items()
    }
    assert len(tagged) > 500
    for node in (a, b):
        told = where(node, [(at, BLOCK) for at in sorted(tagged)])
        named: dict[int, set[tuple[str, int]]] = {}
        for found in told["found"]:
            for part in found["parts"]:
                for at in range(0, part["length"], BLOCK):
                    place = (found["path"] or found["region"], part["offset"] + at)
                    named.setdefault(part["device-offset"] + at, set()).add(place)
        removed = {at for at, (path, _) in tagged.items() if path not in told["inodes"]}
        assert removed and len(removed) < len(tagged)
        for at, (path, offset) in tagged.items():
            others = {name for name, _ in named[at]} - {path}
            if at in removed:
                assert all("free space" in name for name in others), (at, path, others)
                continue
            assert (path, offset) in named[at], (at, path, offset, named[at])
            assert others <= {re.sub("/file-", "/clone-", path)}, (at, path, others)


def test_all_of_the_device_is_something_and_as_much_is_free_as_debugfs_says(placed: Cluster) -> None:
    a, b = placed.nodes
    for node, other in ((a, b), (b, a)):
        other.run(
            f"df {MOUNT_POINT}"
        )  # takes the lock on the map, for which the node must bring its changes to the disk
        told = where(node, [])
        disk = node.run(f"df {MOUNT_POINT} >/dev/null; debugfs.ocfs2 -R 'stat //global_bitmap' {DEVICE}")
        size = int(node.run(f"blockdev --getsize64 {DEVICE}"))
        groups = re.search(r"Bitmap Total: ([0-9]+)\s+Used: ([0-9]+)\s+Free: ([0-9]+)", disk)
        assert groups is not None
        assert told["remarks"] == []
        by_region: dict[str, int] = {}
        for found in told["found"]:
            if found["path"] is None:
                by_region[found["region"]] = by_region.get(found["region"], 0) + found["bytes"]
        assert by_region["free space"] == int(groups[3]) * CLUSTER_SIZE
        assert by_region["behind the end of the file system"] == size - int(groups[1]) * CLUSTER_SIZE
        for name in ("journal:0000", "journal:0001", "the superblock", "heartbeat", "slot_map"):
            assert by_region[name] > 0


def test_inodes_and_folders_are_named(placed: Cluster) -> None:
    a = placed.a
    inodes = where(a, [(0, 512)])["inodes"]
    paths = [path for path in inodes if path.startswith("placed/")]
    told = where(a, [(inodes[path] * BLOCK, 512) for path in paths])
    named = {
        part["device-offset"] + at: found["region"]
        for found in told["found"]
        for part in found["parts"]
        for at in range(0, part["length"], BLOCK)
    }
    assert {found["harm"] for found in told["found"]} == {"metadata"}
    for path in paths:
        assert named[inodes[path] * BLOCK] == f"the inode of {path}"


def test_metadata_is_what_debugfs_calls_so(placed: Cluster) -> None:
    """Blocks that no file has, of whichever kind, whose inode debugfs.ocfs2 knows."""
    told = where(placed.a, [])
    unnamed = [
        part["device-offset"] // BLOCK
        for found in told["found"]
        if found["harm"] == "metadata"
        and found["region"] in ("an inode", "a group of the allocator", "a list of extents")
        for part in found["parts"]
    ]
    free = [
        part["device-offset"] // BLOCK
        for found in told["found"]
        if found["region"] == "free space"
        for part in found["parts"]
    ]
    assert unnamed and free
    output = placed.a.run(f"debugfs.ocfs2 -R 'icheck {' '.join(map(str, unnamed[:20]))}' {DEVICE}")
    assert "unused" not in output.lower(), output
    output = placed.a.run(f"debugfs.ocfs2 -R 'icheck {' '.join(map(str, free[:20]))}' {DEVICE}")
    assert output.lower().count("unused") >= len(free[:20]), output
