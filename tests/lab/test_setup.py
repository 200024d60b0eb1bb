"""`pvedrbdstor setup` on bare nodes: to the first volume without a hand on the keyboard, and on from wherever it was killed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import bare, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.node import Node

STORAGE = "ha"
NO_VOTE = "--without-third-vote-both-nodes-reset"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(bare=True, memory=bare.MEMORY, disk_size=bare.DISK) as found:
        bare.install(found)
        bare.write_corosync(found)
        yield found


def plan(cluster: Cluster, *options: str) -> dict[str, Any]:
    disk = cluster.backend.disk_device
    disks = ["--disk", f"nodea:{disk}", "--disk", f"nodeb:{disk}"]
    words = ["pvedrbdstor", "setup", "plan", STORAGE, *disks, "--no-lvm", *options, "--json"]
    found = json.loads(cluster.a.run(shlex.join(words), 90))
    assert isinstance(found, dict)
    return found


def apply(node: Node, kill_at: str | None = None) -> int:
    """The exit status; 137 where it was killed at that point."""
    if kill_at is None:
        result = node.sh(f"pvedrbdstor setup apply {STORAGE} --yes 2>&1", 400)
    else:
        program = (
            f"PYTHONPATH={REPOSITORY} PYTHONPYCACHEPREFIX=/run/pycache /usr/bin/python3 -m tests.lab.guest.setup_killed"
        )
        result = node.sh(f"cd / && {program} {kill_at} {STORAGE} 2>&1", 400)
    print(result.out)
    return result.rc


def check_first_volume(cluster: Cluster) -> None:
    """Made through Proxmox's plugin and written on a; read on b."""
    volid = storage.alloc(cluster.a, 100, 4 << 20)
    path = storage.path(cluster.a, volid)
    cluster.a.run(f"dd if=/dev/urandom of={path} bs=1M count=4 conv=notrunc,fsync status=none")
    digests = [
        node.run(f"dd if={path} bs=1M iflag=direct status=none | sha256sum").split()[0] for node in cluster.nodes
    ]
    assert digests[0] == digests[1]
    assert storage.listing(cluster.b)[volid]["size"] == 4 << 20


def test_bare_nodes_come_to_their_first_volume_without_a_hand_on_the_keyboard(cluster: Cluster) -> None:
    made = plan(cluster, NO_VOTE)
    assert {step["node"] for step in made["steps"]} == {"nodea", "nodeb"}
    assert apply(cluster.a) == 0
    check_first_volume(cluster)
    assert apply(cluster.a) == 0, "a second run finds everything done"
    check_first_volume(cluster)
