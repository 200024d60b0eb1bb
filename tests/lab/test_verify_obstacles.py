"""What is in the way of `pvedrbdstor verify`: refused, or stopped, with its reason, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.lab import splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import RESOURCE, STORAGE, wait_whole
from tests.lab.node import Node, Result
from tests.lab.verifying import (
    MIB,
    blocks,
    fill,
    found,
    image_of,
    places,
    planted,
    refused,
    served_no_more,
    size_of,
    slow_comparison,
    stopped,
    verify,
)


def test_a_disk_that_is_taken_away_stops_it_and_then_it_is_refused_until_the_resync_has_ended(
    pair: Cluster, vmid: int
) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid, 8 * MIB)
    with slow_comparison(a) as running:
        b.run(f"drbdadm detach {RESOURCE}")
        assert "Diskless" in stopped(running.result())
    try:
        refused(pair.nodes, "is Diskless: that would read the peer and prove nothing")
        refused(pair.nodes, "Diskless", "--write-path")
        fill(a, image, 8)
        a.run(f"drbdadm pause-sync {RESOURCE}")
        b.run(f"drbdadm attach {RESOURCE} && until grep -q cs:PausedSyncT /proc/drbd; do sleep 0.1; done")
        refused(pair.nodes, "a resync is running (PausedSync")
    finally:
        a.sh(f"drbdadm resume-sync {RESOURCE}")
        wait_whole(pair.nodes)


def test_a_peer_that_is_killed_stops_it(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        b.run("pkill -9 -f 'pvedrbdstor verify --serve'")
        assert "nodeb does not answer any more" in stopped(running.result())


def test_a_leader_that_is_killed_leaves_nothing_on_the_other_node(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        a.run("kill -9 $(cat /run/slow)")
        running.result()
        served_no_more(b, 20)


def test_what_is_interrupted_goes_on_where_it_was(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid, 4 * MIB)
    with planted(b, places(a, image)[3:4]):
        with slow_comparison(a) as running:
            a.run("kill -INT $(cat /run/slow)")
            result = running.result()
        assert result.rc == 130 and "--resume' goes on" in result.out, result.out
        document = found(a, "--resume")
        assert document["verdict"] == "diverged" and document["compared"] == size_of(a)
        assert blocks(document["diverged"]) == set(places(a, image)[3:4])
        refused([a], "no comparison of it was interrupted", "--resume")


def taken_down(pair: Cluster, node: Node, status: int, words: str) -> None:
    """The node's mirror, while the first node leads a comparison."""
    with slow_comparison(pair.a) as running:
        said = node.run(f"pvedrbdstor mirror down {STORAGE} 2>&1", 60)
        result = running.result()
    try:
        assert "ending the comparison that reads it (process " in said and "is down on this node" in said, said
        assert result.rc == status and words in result.out, result.out
    finally:
        node.run(f"pvedrbdstor mirror up {STORAGE}", 120)


def test_taking_the_mirror_down_ends_what_reads_there_for_the_other_node(pair: Cluster) -> None:
    taken_down(pair, pair.b, 2, "nodeb was told to end it")


@pytest.mark.soak
def test_taking_the_mirror_down_ends_the_comparison_that_leads_and_it_can_be_gone_on_with(pair: Cluster) -> None:
    taken_down(pair, pair.a, 130, "it was interrupted")
    document = found(pair.a, "--resume")
    assert document["verdict"] == "clean" and document["compared"] == size_of(pair.a)


def test_a_link_that_is_cut_stops_it_and_a_split_brain_is_refused(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        splitting.part(pair)
        assert "is not connected to its peer" in stopped(running.result())
    served_no_more(b, 90)
    splitting.meet(pair)
    for node in pair.nodes:
        result = verify(node)
        assert result.rc == 2 and ("is StandAlone" in result.out or "is not connected" in result.out), result.out
    splitting.discard(pair, b)
    assert found(a, "--mode", "full")["verdict"] == "clean"


def test_another_version_on_the_other_node_is_refused(pair: Cluster) -> None:
    other = verify_as_another_version(pair)
    assert other.rc == 2 and "they do not understand one another" in other.out, other.out


def verify_as_another_version(pair: Cluster) -> Result:
    """The other node's program says that it is of another one."""
    pair.b.run(
        f"""cat >/usr/bin/pvedrbdstor <<'PROGRAM'
#!/usr/bin/python3
import sys
sys.path.insert(0, "{REPOSITORY}")
sys.dont_write_bytecode = True
from pvedrbdstor.verify import copy
copy.VERSION, copy.__version__ = 99, "9.9"
from pvedrbdstor.cli.main import main
main()
PROGRAM"""
    )
    try:
        return verify(pair.a)
    finally:
        storage.write_program(pair.b)
