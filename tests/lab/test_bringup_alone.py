"""Activation without the other node: when it goes on alone, and what comes of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import bringing_up
from tests.lab.bringing_up import (
    HOLD,
    fenced,
    refusal,
    role,
    stop,
    until_up,
)
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each


@pytest.fixture(scope="module")
def unformed() -> Iterator[Cluster]:
    with bringing_up.booted() as cluster:
        yield cluster


@pytest.fixture
def cluster(unformed: Cluster) -> Cluster:
    return bringing_up.both_up(unformed)


WRITER = f"""
import os, time
fd, longest, end = os.open("{MOUNT_POINT}/writer", os.O_CREAT | os.O_WRONLY), 0.0, time.monotonic() + 8
while time.monotonic() < end:
    began = time.monotonic()
    os.pwrite(fd, b"x" * 4096, 0)
    os.fsync(fd)
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.02)
print(longest)
"""


def test_a_peer_that_was_never_seen_is_not_taken_for_dead(cluster: Cluster) -> None:
    stop(cluster.b)  # first, so that the copy which goes on alone is the newest
    stop(cluster.a)
    cluster.network.cut()
    said = refusal(cluster.a)
    assert re.search("the other node cannot be reached .*no fencing is configured.*mirror up ha --without-peer", said)
    assert role(cluster.a) == "Secondary"
    cluster.a.run(f"pvedrbdstor mirror up {STORAGE} --without-peer", 120)
    cluster.a.run(f"echo alone >{MOUNT_POINT}/alone")
    cluster.network.heal()
    until_up(cluster.b)
    assert cluster.b.run(f"cat {MOUNT_POINT}/alone") == "alone\n"


def test_copies_that_have_diverged_are_not_mounted_and_the_way_out_works_as_told(cluster: Cluster) -> None:
    a, b = cluster.nodes
    on_each(cluster.nodes, stop)
    cluster.network.cut()
    for node in cluster.nodes:
        node.run(f"pvedrbdstor mirror up {STORAGE} --without-peer && echo x >{MOUNT_POINT}/only-on-{node.name}", 120)
    on_each(cluster.nodes, stop)
    cluster.network.heal()
    said = on_each(cluster.nodes, refusal)
    assert any("a split brain" in text and "split-brain show" in text for text in said)
    b.run(
        f"pvedrbdstor mirror down {STORAGE}; drbdadm disconnect {RESOURCE}; drbdadm connect --discard-my-data {RESOURCE}"
    )
    a.sh(f"drbdadm connect {RESOURCE}")
    on_each(cluster.nodes, lambda node: node.run(f"pvedrbdstor mirror up {STORAGE}", 150))
    for node in cluster.nodes:
        assert node.run(f"cd {MOUNT_POINT} && ls -d only-on-*").split() == ["only-on-a"]


def test_with_fencing_drbd_decides_whether_to_go_on_alone(cluster: Cluster) -> None:
    a = cluster.a
    stop(cluster.b)  # first, so that the copy which goes on alone is the newest
    stop(a)
    with fenced(cluster.nodes):
        cluster.network.cut()
        assert "could not make sure that the other node does not write" in refusal(a)
        assert "called" in a.run("cat /run/fenced")
        a.run("printf '#!/bin/sh\\nexit 7\\n' >/run/fence-peer")
        a.run(f"pvedrbdstor mirror up {STORAGE}", 150)
        assert "ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
        status = a.run(f"pvedrbdstor mirror status {STORAGE}")
        assert "split-brain" not in status and "holds a copy known as Outdated" in status
        stop(a)


def test_a_planned_stop_fences_nobody_and_the_other_node_writes_on(cluster: Cluster) -> None:
    """What pvedrbdstor-mirrors.service runs at shutdown."""
    a, b = cluster.nodes
    with fenced(cluster.nodes):
        on_each(cluster.nodes, lambda node: node.run(f"drbdadm adjust {RESOURCE}"))
        try:
            with ThreadPoolExecutor(1) as pool:
                writer = pool.submit(a.run, f"/usr/bin/python3 -c {shlex.quote(WRITER)}", 60)
                b.run("pvedrbdstor mirror down --all --stop", 60)
                longest = float(writer.result())
            assert longest < 4.0, f"writes on the node that stays stood still for {longest:.1f} s"
            a.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done", 10)
            assert "cs:WFConnection ro:Primary/Unknown ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
            for node in cluster.nodes:
                assert node.sh("cat /run/fenced").rc != 0, "the handler was called"
        finally:
            b.run(f"rm -f {HOLD}")
    a.run(f"drbdadm adjust {RESOURCE}")
