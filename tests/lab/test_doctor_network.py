"""What `pvedrbdstor doctor` finds between two real nodes: a firewall, a port that is eaten, a link slower than the disks; each cleared by its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.lab.doctoring import NEVER_COMPARED, doctor, findings, prepare, settle, told
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.network import Rule
from tests.lab.node import Node
from tests.lab.ops import wait_until

REPRODUCES = {"firewall-closed", "drbd-port-blocked", "network-slower-than-disk"}
CLUSTER_FW = "/etc/pve/firewall/cluster.fw"
SPEED = "/sys/class/net/vec0/speed"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    prepare(volumes)
    yield volumes


def tell_speed(node: Node, mbit: int) -> None:
    """A stand-in for a driver that tells one: the lab's does not."""
    node.run(f"umount {SPEED} 2>/dev/null; echo {mbit} >/run/speed && mount --bind /run/speed {SPEED}")


def test_a_firewall_that_opens_neither_and_a_link_slower_than_the_disks(pair: Cluster) -> None:
    on_each(pair.nodes, lambda node: node.run(f"mkdir -p {CLUSTER_FW.rpartition('/')[0]}"))
    on_each(pair.nodes, lambda node: tell_speed(node, 1000))
    on_each(pair.nodes, lambda node: node.run(f"printf '[OPTIONS]\\nenable: 1\\n' >{CLUSTER_FW}"))
    try:
        found = doctor(pair.a)
        assert set(found) - NEVER_COMPARED == {"firewall-closed", "network-slower-than-disk"}, list(found.values())
        slower = told(found["network-slower-than-disk"], "hint", "nodea nodeb")
        assert "carries 125 MB/s" in slower["title"]
        shut = [each for each in findings(pair.a) if each["id"] == "firewall-closed"]
        assert {(each["severity"], *each["nodes"]) for each in shut} == {("warning", "nodea"), ("warning", "nodeb")}
        rules = sorted({rule for each in shut for rule in re.findall("`([^`]+)`", each["remedy"])})
        assert [rule.rpartition(" ")[2] for rule in rules] == ["7777", "7789"], rules
        text = "\\n".join(["[OPTIONS]", "enable: 1", "[RULES]", *rules])
        on_each(pair.nodes, lambda node: node.run(f"printf '{text}\\n' >{CLUSTER_FW}"))  # one file, in a real cluster
        on_each(pair.nodes, lambda node: tell_speed(node, 100_000))  # a faster link
        assert set(doctor(pair.a)) <= NEVER_COMPARED
    finally:
        on_each(pair.nodes, lambda node: node.run(f"rm {CLUSTER_FW}; umount {SPEED}"))


@pytest.mark.soak
def test_drbds_port_is_eaten_on_the_way_and_nothing_else(pair: Cluster) -> None:
    """While b only mirrors, so that the copies cannot part."""
    a, b = pair.nodes
    b.run(f"umount {MOUNT_POINT} && drbdadm secondary {RESOURCE}", 60)
    pair.network.block(Rule("a", "b", 7789))
    pair.network.block(Rule("b", "a", 7789))
    try:
        for node in pair.nodes:
            wait_until(lambda node=node: "cs:WFConnection" in node.run("cat /proc/drbd"), "they wait", 60)  # type: ignore[misc]
        blocked = told(doctor(a)["drbd-port-blocked"], "error", "")
        assert "TCP 7789" in blocked["meaning"] and "'nft list ruleset'" in blocked["remedy"]
    finally:
        pair.network.heal()  # what eats it is mended
    wait_until(lambda: "cs:Connected" in a.run("cat /proc/drbd"), "DRBD connects by itself", 60)
    assert "drbd-port-blocked" not in doctor(a)
    b.run(f"pvedrbdstor mirror up {STORAGE}", 150)
    settle(pair)
