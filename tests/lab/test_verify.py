"""`pvedrbdstor verify` on the real cluster: planted differences found and nothing else, and every obstacle told with its reason."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.lab import splitting
from tests.lab.cluster import Cluster
from tests.lab.formation import RESOURCE, STORAGE, on_each
from tests.lab.node import Node, Result
from tests.lab.storage import alloc, path

MIB = 1 << 20
BLOCK = 4096
_PLANT = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
for block in map(int, sys.argv[2:]):
    old = os.pread(fd, 512, block * 4096)
    os.pwrite(fd, bytes(byte ^ 255 for byte in old), block * 4096)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
"""


def verify(node: Node, *options: str, timeout: float = 240) -> Result:
    return node.sh(f"pvedrbdstor verify {STORAGE} {shlex.join(options)}", timeout)


def found(node: Node, *options: str, timeout: float = 240) -> dict[str, Any]:
    """The document of a comparison that came to an end or was stopped."""
    result = verify(node, *options, "--json", timeout=timeout)
    lines = result.out[result.out.index("{") :]
    document, _ = json.JSONDecoder().raw_decode(lines)
    assert isinstance(document, dict)
    assert document.get("exit_status", 2) == result.rc, result.out
    return document


def blocks(ranges: Sequence[dict[str, int]]) -> set[int]:
    return {
        block for part in ranges for block in range(part["offset"] // BLOCK, (part["offset"] + part["length"]) // BLOCK)
    }


def size_of(node: Node) -> int:
    return int(node.run("cat /sys/block/drbd0/size")) * 512


def plant(node: Node, numbers: Sequence[int]) -> None:
    """Turn the first bits of blocks of the node's disk over, behind DRBD's back. Done again, it undoes it."""
    words = [node.run(f"drbdadm sh-ll-dev {RESOURCE}").strip(), *map(str, numbers)]
    node.run(f"/usr/bin/python3 -S -c {shlex.quote(_PLANT)} {shlex.join(words)}")


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    on_each(volumes.nodes, splitting.prepare)
    yield volumes
    for node in volumes.nodes:
        assert "cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate" in node.run("cat /proc/drbd")
        assert node.sh("pgrep -f 'pvedrbdstor verify'").rc == 1, "nothing is left behind"


def free_blocks(node: Node, vmid: int, count: int, seed: int) -> list[int]:
    """Random blocks of an image that nobody uses: what is planted there harms no file system."""
    image = path(node, alloc(node, vmid, 64 * MIB))
    splitting.write(node, image, 64 * 1024)
    text = node.run(f"sync; filefrag -v -b4096 {image}")
    numbers = []
    for line in text.splitlines():
        words = line.replace(":", " ").replace("..", " ").split()
        if words and words[0].isdigit():
            numbers += range(int(words[3]), int(words[4]) + 1)
    return random.Random(seed).sample(numbers, count)


def test_equal_copies_are_clean_on_both_nodes(pair: Cluster) -> None:
    for node in pair.nodes:
        document = found(node, "--mode", "full")
        assert document["verdict"] == "clean", document
        assert document["compared"] == document["size"] == size_of(node)


def test_what_differs_is_found_exactly(pair: Cluster, vmid: int) -> None:
    planted = free_blocks(pair.a, vmid, 40, vmid)
    on_a, on_b = planted[:5], planted[5:]
    plant(pair.a, on_a)
    plant(pair.b, on_b)
    try:
        for node in pair.nodes:
            document = found(node, "--mode", "full")
            assert document["verdict"] == "diverged" and document["exit_status"] == 1
            assert blocks(document["diverged"]) == set(planted)
            assert not document["unsettled"]
    finally:
        plant(pair.a, on_a)
        plant(pair.b, on_b)
    assert found(pair.a)["verdict"] == "clean"
