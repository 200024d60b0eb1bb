"""What `pvedrbdstor doctor` finds between two real nodes: a firewall, a port that is eaten, a link slower than the disks, and one that guests share;
each cleared by its remedy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.lab.doctoring import NEVER_COMPARED, RES_FILE, Found, doctor, findings, follow, prepare, settle, told
from tests.lab.formation import CLUSTER, MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.network import Rule
from tests.lab.node import Node
from tests.lab.ops import wait_until

REPRODUCES = {"firewall-closed", "drbd-port-blocked", "network-slower-than-disk", "network-shared"}
CLUSTER_FW = "/etc/pve/firewall/cluster.fw"
SPEED = "/sys/class/net/vec0/speed"
CONF = "/etc/ocfs2/cluster.conf"
DOWN, UP = f"pvedrbdstor mirror down {STORAGE}", f"pvedrbdstor mirror up {STORAGE}"
ANEW = [
    DOWN,
    f"drbdadm --dry-run adjust {RESOURCE}",
    f"drbdadm adjust {RESOURCE}",
    f"o2cb unregister-cluster {CLUSTER}",
    UP,
]


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
        looks: list[Found] = []

        def slower_is_told() -> bool:
            """Not while other clusters of this machine keep its disk busy."""
            looks.append(doctor(pair.a))
            return "network-slower-than-disk" in looks[-1]

        wait_until(slower_is_told, "the disks read as fast as they can", 90)
        found = looks[-1]
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


def bridged(node: Node) -> None:
    """As Proxmox has it by default: the only card is a port of vmbr0, which has its address, and so is the interface of guest 100."""
    node.run(
        f"""set -e
ip link add vmbr0 address $(cat /sys/class/net/vec0/address) type bridge forward_delay 0
ip link add tap100i0 type veth peer name guest100
ip link set tap100i0 master vmbr0
for name in tap100i0 guest100 vmbr0; do ip link set $name up; done
ip addr del {node.address}/24 dev vec0; ip addr add {node.address}/24 brd + dev vmbr0; ip link set vec0 master vmbr0"""
    )


def unbridged(node: Node) -> None:
    node.run(
        f"""ip link del repl0
ip addr del {node.address}/24 dev vmbr0; ip link set vec0 nomaster; ip addr add {node.address}/24 brd + dev vec0
ip link del tap100i0; ip link del vmbr0"""
    )


def second_card(node: Node, other: Node) -> None:
    """A stand-in for one: a tunnel, which no guest shares as far as the node's interfaces tell."""
    node.run(
        f"""set -e
ip link add repl0 type vxlan id 7 local {node.address} remote {other.address} dstport 4789
ip link set repl0 mtu 1400 up
ip addr add {of_second_card(node)}/24 dev repl0"""
    )


def of_second_card(node: Node) -> str:
    return f"10.78.0.{node.number}"


@pytest.mark.soak
def test_replication_gets_a_link_of_its_own(pair: Cluster) -> None:
    a, b = pair.nodes
    edits = [f"s/{re.escape(node.address)}\\b/{of_second_card(node)}/" for node in pair.nodes]
    on_each(pair.nodes, bridged)
    on_each(pair.nodes, lambda node: node.run(f"cp -p {RES_FILE} {CONF} /root/"))
    try:
        found = findings(a)
        shared = [each for each in found if each["id"] == "network-shared"]
        assert {each["id"] for each in found} - NEVER_COMPARED == {"network-shared", "mirror-unprotected"}, found
        assert {(each["severity"], *each["nodes"]) for each in shared} == {("hint", "nodea"), ("hint", "nodeb")}
        assert all("runs through vmbr0" in each["title"] for each in shared)

        second_card(a, b)
        second_card(b, a)
        sed = shlex.join(["sed", "-i", ";".join(edits), RES_FILE, CONF])
        on_each(pair.nodes, lambda node: node.run(sed))
        waiting = {"network-shared", "drbd-config-not-in-force", "o2cb-conf-not-in-force"}
        assert set(doctor(a)) - NEVER_COMPARED == waiting, "what was written and not taken up is told"
        follow(pair.nodes, shared[0], ANEW, 150)
        assert of_second_card(a) in a.run(f"drbdsetup show {RESOURCE}")
        settle(pair)
        assert set(doctor(a)) <= NEVER_COMPARED
    finally:
        on_each(
            pair.nodes, lambda node: node.run(f"cp -p /root/{RESOURCE}.res {RES_FILE}; cp -p /root/cluster.conf {CONF}")
        )
        for command in ANEW[:-1]:
            on_each(pair.nodes, lambda node, command=command: node.run(command, 90))  # type: ignore[misc]
        on_each(pair.nodes, unbridged)
        on_each(pair.nodes, lambda node: node.run(UP, 150))
        settle(pair)
