"""What fdatasync(2) is worth on OCFS2 when the node loses its power: QEMU's cache modes come down to these two.

cache=none and directsync are O_DIRECT and fdatasync, cache=writeback and writethrough the page cache and fdatasync
(QEMU, block/file-posix.c).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.ops import ops, running_op
from tests.lab.results import Results

SIZE = 64 << 20  # bytes
SECONDS = 4.0  # of writing; OCFS2 commits its journal every 5
RECOVERY_SECONDS = 150  # dead time 60 s, and the replay of the journal
INSIDE = "tests.lab.guest.flushed"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster for one test, which kills its node a."""
    with Cluster() as formed:
        storage.install(formed.nodes)
        yield formed


def sparse(node: Node, volume: str) -> None:
    """As it was allocated."""


def preallocated(node: Node, volume: str) -> None:
    ops(node, "falloc", storage.path(node, volume), SIZE)


def written(node: Node, volume: str) -> None:
    node.run(f"dd if=/dev/zero of={storage.path(node, volume)} bs=1M count={SIZE >> 20} conv=notrunc,fsync status=none")


def snapshotted(node: Node, volume: str) -> None:
    written(node, volume)
    storage.call(node, "volume_snapshot", volume, "before")


DISKS = [sparse, preallocated, written, snapshotted]


@pytest.mark.soak
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "page cache"])
@pytest.mark.parametrize("disk", DISKS, ids=lambda disk: disk.__name__)
def test_flushed_writes_after_the_death_of_their_node(
    cluster: Cluster, disk: Callable[[Node, str], None], direct: bool, results: Results
) -> None:
    """Through the page cache none is lost. With O_DIRECT the kernel decides (docs/lab.md): measured, and lost only where
    a block had no place of its own yet."""
    a, b = cluster.nodes
    volume = storage.alloc(a, 100, SIZE)
    disk(a, volume)
    path = storage.path(a, volume)
    a.run("sync -f " + path)
    acknowledged = a.share / "acknowledged"
    said = (path, f"{GUEST_SHARE}/{acknowledged.name}", "yes" if direct else "no")
    with running_op(a, "write_flushed", *said, program=INSIDE):
        time.sleep(SECONDS)
        a.kill()
    last = int(acknowledged.read_text().split()[-1])
    missing = ops(b, "numbers_missing", path, last, timeout=RECOVERY_SECONDS, program=INSIDE)
    results.row(
        "Flushed writes after the death of their node",
        key=("written", "disk"),
        written="with O_DIRECT" if direct else "through the page cache",
        disk=disk.__name__,
        acknowledged=last,
        lost=len(missing),
    )
    assert last > 20
    if not direct or disk is written:
        assert missing == []
