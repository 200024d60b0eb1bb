"""Activation from nothing: what it brings up, and how long that takes.

Each test begins with both nodes mounted by activation alone, whatever the test before has left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import bringing_up, formation, storage
from tests.lab.bringing_up import (
    activate_as_pvestatd,
    limit,
    mounted,
    mounts_so_far,
    refusal,
    stop,
    until_up,
)
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.storage import call


@pytest.fixture(scope="module")
def unformed() -> Iterator[Cluster]:
    with bringing_up.booted() as cluster:
        yield cluster


@pytest.fixture
def cluster(unformed: Cluster) -> Cluster:
    return bringing_up.both_up(unformed)


def test_one_activation_per_node_brings_two_booted_nodes_up(unformed: Cluster) -> None:
    for node in unformed.nodes:
        assert "r0" not in node.run("drbdsetup events2 --now")
        assert not mounted(node)
    answers = on_each(unformed.nodes, lambda node: call(node, "activate_storage", STORAGE))
    for node, answer in zip(unformed.nodes, answers, strict=True):
        last = json.loads(node.run(f"cat /run/pvedrbdstor/bringup/{STORAGE}.json"))
        mounting = last["finished"] - last["since"]
        print(f"\n  cold to mounted on {node.name}: {answer.seconds:.1f} s, of which the mount {mounting:.1f} s")
        assert last["step"] == "mounting the file system"
    for node, answer in zip(unformed.nodes, answers, strict=True):
        assert answer.seconds < limit()
        options = node.run(f"findmnt -no OPTIONS {MOUNT_POINT}")
        assert all(option in options for option in ("noatime", "data=ordered", "errors=remount-ro"))
        assert node.run("cat /sys/kernel/config/cluster/pve/heartbeat/dead_threshold").strip() == "31"
    unformed.a.run(f"echo shared >{MOUNT_POINT}/seen")
    assert unformed.b.run(f"cat {MOUNT_POINT}/seen") == "shared\n"


def test_ten_activations_at_once_do_the_work_once(cluster: Cluster) -> None:
    stop(cluster.b)
    before = mounts_so_far(cluster.b)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: call(cluster.b, "activate_storage", STORAGE), range(10)))
    print(f"\n  ten at once: {max(answer.seconds for answer in answers):.1f} s for the last")
    assert mounted(cluster.b)
    assert mounts_so_far(cluster.b) == before + 1
    cluster.b.run("while pgrep -f '[m]irror up' >/dev/null; do sleep 0.1; done", 10)


def test_pvestatd_is_told_within_two_seconds_that_it_is_still_coming_up_and_later_that_it_is_up(
    cluster: Cluster,
) -> None:
    stop(cluster.b)
    answer = activate_as_pvestatd(cluster.b)
    print(f"\n  {answer.value}")
    assert "is still coming up" in answer.value
    assert answer.seconds < 2.5
    assert call(cluster.b, "activate_storage", STORAGE).seconds < limit()
    assert activate_as_pvestatd(cluster.b).value is None


def test_a_node_that_lost_its_power_comes_back_by_activation_alone(cluster: Cluster) -> None:
    a, b = cluster.nodes
    b.kill()
    time.sleep(15)  # until DRBD has noticed: what is written now is written to one copy
    a.run(f"dd if=/dev/urandom of={MOUNT_POINT}/meanwhile bs=1M count=64 oflag=direct 2>/dev/null", 120)
    digest = a.run(f"md5sum <{MOUNT_POINT}/meanwhile")
    started = time.monotonic()
    b.start()
    b.wait_ready()
    formation.configure(b, cluster.nodes)
    storage.install([b])
    booted = time.monotonic() - started
    print(f"\n  after the loss of power: booted in {booted:.1f} s, mounted {until_up(b):.1f} s later")
    assert b.run(f"md5sum <{MOUNT_POINT}/meanwhile") == digest
    b.run("until grep -q 'ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done", 60)
    assert "oos:0" in b.run("cat /proc/drbd")


def test_a_storage_in_use_stays_up_and_the_user_is_named(cluster: Cluster) -> None:
    node = cluster.b
    node.run(f"exec 9>{MOUNT_POINT}/open; sleep 60 & echo $! >/run/holder")
    pid = node.run("cat /run/holder").strip()
    result = node.sh(f"pvedrbdstor mirror down {STORAGE}")
    node.run(f"kill {pid}; rm {MOUNT_POINT}/open")
    print(f"\n  {result.out.strip()}")
    assert result.rc == 75
    assert f"in use by sleep (process {pid})" in result.out
    assert mounted(node)
    assert call(node, "activate_storage", STORAGE).seconds < 2


def test_what_an_administrator_took_down_stays_down_until_they_say_so(cluster: Cluster) -> None:
    cluster.b.run(f"pvedrbdstor mirror down {STORAGE}")
    assert "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate" in cluster.b.run("cat /proc/drbd")
    assert "an administrator took it down" in refusal(cluster.b)
    cluster.b.run(f"pvedrbdstor mirror up {STORAGE}")
    assert mounted(cluster.b)
