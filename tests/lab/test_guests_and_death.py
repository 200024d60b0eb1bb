"""Real guests when a node loses its power: what was acknowledged is there afterwards (docs/lab.md tells where it is not)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.formation import STORAGE
from tests.lab.guests.machine import DISK_SIZE, NODE_MEMORY, Guest, guest
from tests.lab.node import Node
from tests.lab.results import Results

TAKEOVER = 150.0  # seconds from a node's death to its guest's first write on the other; 60 until o2cb gives it up
SETTLED = 90.0  # seconds after a death: o2cb has given the node up, and its journal is replayed


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster for one test, which may kill its nodes."""
    with Cluster(memory=NODE_MEMORY) as formed:
        storage.install(formed.nodes)
        yield formed


def start_again_and_again(dead: Guest, survivor: Node) -> None:
    """Start a guest as often as it takes, as Proxmox's HA does: the storage stands still until o2cb gives a dead node up,
    and says so to those who cannot wait."""
    deadline = time.monotonic() + TAKEOVER
    survivor.run(f"pvedrbdstor mirror peer-off {STORAGE} --yes")  # what fencing knows, and the lab does not have
    while True:
        try:
            dead.start(survivor)
            return
        except storage.PluginError as error:
            waits = ("did not finish within", "is suspended", "only guests that were running here")
            if not any(words in str(error) for words in waits) or time.monotonic() > deadline:
                raise


@pytest.mark.soak
@pytest.mark.parametrize(("cache", "written_before"), [("writeback", False), ("none", True)])
def test_guest_of_a_killed_node_goes_on_from_its_last_write_on_the_survivor(
    cluster: Cluster, results: Results, cache: str, written_before: bool
) -> None:
    """With cache=none only on a disk that was written before: OCFS2 (docs/lab.md, test_flushed_writes.py)."""
    a, b = cluster.nodes
    disk = storage.alloc(a, 100, DISK_SIZE)
    if written_before:
        path = storage.path(a, disk)
        a.run(f"dd if=/dev/zero of={path} bs=1M count={DISK_SIZE >> 20} conv=notrunc,fsync status=none")
    with guest(100, disk, cache) as made:
        made.start(a)
        made.wait_for_writes(time.monotonic(), 200)
        a.kill()
        killed = time.monotonic()
        made.lost_with_its_node()
        acknowledged = made.acknowledged.last()
        start_again_and_again(made, b)
        stood_still = time.monotonic() - killed
        results.row(
            "A guest's node killed, the guest started on the other",
            key=("cache",),
            cache=cache,
            disk="written before" if written_before else "new",
            last_acknowledged_number=acknowledged,
            found_on_disk=made.found(),
            seconds_until_it_writes_again=f"{stood_still:.1f}",
        )
        assert made.found() >= acknowledged
        assert stood_still < TAKEOVER
        made.stop()
        made.check_disk(b, made.acknowledged.last())


@pytest.mark.soak
def test_guest_goes_on_when_the_other_node_is_killed(cluster: Cluster, results: Results) -> None:
    with guest(100, storage.alloc(cluster.a, 100, DISK_SIZE)) as made:
        made.start(cluster.a)
        cluster.b.kill()
        killed = time.monotonic()
        made.wait_for_writes(killed + SETTLED, timeout=SETTLED + 60)
        said = made.acknowledged.said()
        silences = sorted(after.when - before.when for before, after in itertools.pairwise(said))
        results.row(
            "The other node killed: a guest's longest times without a write, in ms",
            longest=round(silences[-1] * 1000),
            second=round(silences[-2] * 1000),
            third=round(silences[-3] * 1000),
        )
        made.check_console()
        made.stop()
        made.check_disk(cluster.a, made.acknowledged.last())
