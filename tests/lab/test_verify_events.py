"""What may come about while `pvedrbdstor verify` compares, and takes long to bring about: a node's death, DRBD's own verify, slow writes."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import splitting, storage
from tests.lab.cluster import Cluster
from tests.lab.formation import DRBD_PORT, RESOURCE, STORAGE, on_each
from tests.lab.network import Rule
from tests.lab.node import Node
from tests.lab.results import Results
from tests.lab.verifying import (
    MIB,
    blocks,
    found,
    image_of,
    places,
    planted,
    refused,
    served_no_more,
    size_of,
    slow_comparison,
    stopped,
    unmarked,
)

pytestmark = pytest.mark.soak


def back(pair: Cluster, node: Node) -> None:
    """A node that was killed, with all that it had."""
    pair.rejoin(node)
    storage.install([node])
    splitting.prepare(node)


def test_the_death_of_the_other_node_stops_it(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid, 4 * MIB)
    with slow_comparison(a) as running:
        b.kill()
        told = stopped(running.result())
        assert "is not connected to its peer" in told or "nodeb does not answer any more" in told
    assert a.sh("pgrep -f '[p]vedrbdstor verify'").rc == 1, "nothing is left behind"
    back(pair, b)
    refused([a], "a resync may have written what was compared before", "--resume")
    assert found(b, "--mode", "full")["verdict"] == "clean"
    different = places(a, image)[10:12]
    with planted(b, different):
        assert blocks(found(a, "--mode", "full")["diverged"]) == set(different)


def test_the_death_of_the_node_that_leads_leaves_nothing_on_the_other(pair: Cluster) -> None:
    """The link between them is gone without a word: the serving side gives up by itself."""
    a, b = pair.nodes
    with slow_comparison(a) as running:
        a.kill()
        assert running.result().rc == -1
    served_no_more(b, 120)
    back(pair, a)
    for node in pair.nodes:
        assert found(node, "--mode", "full")["verdict"] == "clean"


# --- DRBD's own verify, begun by hand --------------------------------------------------------------------------------


@contextmanager
def drbds_verify(node: Node) -> Iterator[None]:
    """DRBD's own verify runs, begun on this node, so slowly that it can be joined, until the block ends."""
    node.run(f"drbdadm disk-options --resync-rate=8M {RESOURCE}")
    try:
        node.run(f"drbdadm verify {RESOURCE} && until grep -q cs:VerifyS /proc/drbd; do sleep 0.05; done")
        yield
    finally:
        node.run(f"while grep -q cs:Verify /proc/drbd; do sleep 0.2; done; drbdadm adjust {RESOURCE}", 120)


def test_a_verify_of_drbds_that_runs_is_joined_on_the_node_where_it_was_begun(pair: Cluster, vmid: int) -> None:
    """What it has marked is copied as the report advises; while a node is down for that it is not compared."""
    a, b = pair.nodes
    different = random.Random(vmid).sample(places(a, image_of(a, vmid, 8 * MIB)), 20)
    with planted(b, different):
        with drbds_verify(a):
            refused(pair.nodes, "DRBD's own verify is running", "--mode", "full")
            document = found(a, "--mode", "kernel")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) == set(different)
        assert not document["left_out"] and document["compared"] == size_of(a)
    again = found(b, "--mode", "kernel")
    assert again["verdict"] == "clean" and again["marked_by_drbd_kib"] == 80
    b.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    refused(pair.nodes, "nodeb is Secondary, and DRBD lets nobody read there")
    refused(pair.nodes, "nodeb is Secondary", "--write-path")
    b.run(f"pvedrbdstor mirror down {STORAGE} --stop && pvedrbdstor mirror up {STORAGE}", 180)
    a.run("until grep -q oos:0 /proc/drbd; do sleep 0.1; done", 60)
    with drbds_verify(a):
        assert found(a, "--mode", "kernel")["verdict"] == "clean"


def test_a_verify_of_drbds_that_was_begun_on_the_other_node_is_joined_but_proves_no_equality(
    pair: Cluster, vmid: int
) -> None:
    """This node's log does not tell from where it began."""
    a, b = pair.nodes
    different = random.Random(vmid).sample(places(a, image_of(a, vmid, 8 * MIB)), 20)
    reason = "the log of nodea does not tell that it began with the first sector"
    with planted(b, different):
        with drbds_verify(b):
            document = found(a, "--mode", "kernel")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) == set(different)
        assert document["left_out"] and any(reason in remark for remark in document["remarks"])
    unmarked(pair, b)
    with drbds_verify(b):
        document = found(a, "--mode", "kernel")
    assert document["verdict"] == "unsettled" and any(reason in remark for remark in document["remarks"])


# --- guests first ----------------------------------------------------------------------------------------------------


@contextmanager
def slow_writes(pair: Cluster, image: str) -> Iterator[None]:
    """A guest on a writes all the time, each write takes 200 ms, and no block ever changes: so that nothing is suspected."""
    a = pair.a
    pair.network.block(*(Rule(one, other, DRBD_PORT, loss=0.0, latency=0.1) for one, other in (("a", "b"), ("b", "a"))))
    a.run(
        f"while :; do dd if={image} bs=4k count=64 iflag=direct status=none | "
        f"dd of={image} bs=4k oflag=direct iflag=fullblock conv=notrunc status=none; done >/dev/null 2>&1 & echo $! >/run/slow-writes"
    )
    try:
        yield
    finally:
        pair.network.heal()
        a.run("kill $(cat /run/slow-writes); while pgrep -x dd; do sleep 0.1; done", 60)


@pytest.fixture
def large() -> Iterator[Cluster]:
    """A device that takes longer to compare than the speed takes to change."""
    with Cluster(memory=320, disk_size=4 << 30) as formed:
        storage.install(formed.nodes)
        on_each(formed.nodes, splitting.prepare)
        yield formed


def speed(node: Node, *options: str) -> float:
    """MiB compared a second, of a comparison that is interrupted after 15 s."""
    said = node.sh(f"timeout -s INT 15 pvedrbdstor verify {STORAGE} --mode full --json {shlex.join(options)}", 90).out
    document = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert not document["diverged"], document
    return float(document["compared"] / MIB / document["seconds"])


@pytest.mark.alone
def test_it_is_slower_while_the_guests_writes_are_slow(large: Cluster, vmid: int, results: Results) -> None:
    """By halves, down to a sixteenth of the speed; not where nobody minds."""
    image = image_of(large.a, vmid, 4 * MIB)
    with slow_writes(large, image):
        heedless = speed(large.a, "--latency", "0")
        careful = speed(large.a, "--latency", "50")
        patient = speed(large.a, "--latency", "5000")
    results.row(
        "Speed of a comparison while writes take 200 ms, MiB/s",
        latency_0=f"{heedless:.0f}",
        latency_50=f"{careful:.0f}",
        latency_5000=f"{patient:.0f}",
    )
    assert 0 < 2.5 * careful < min(heedless, patient)
