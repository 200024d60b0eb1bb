"""What `pvedrbdstor doctor` tells of a mirror that is broken, on two real nodes, each cleared by doing what its remedy says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import splitting, storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import NEVER_COMPARED, Finding, doctor, follow, prepare, settle, told
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each, wait_whole
from tests.lab.node import Node
from tests.lab.ops import wait_until

REPRODUCES = {
    *("mirror-unknown", "mirror-split-brain", "mirror-inconsistent", "mirror-stale", "mirror-suspended"),
    *("mirror-read-only", "mirror-not-up", "mirror-degraded"),
}
DOWN, UP = f"pvedrbdstor mirror down {STORAGE}", f"pvedrbdstor mirror up {STORAGE}"
BALLAST = f"{MOUNT_POINT}/ballast"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """The shared cluster as an administrator should have it; it is left whole."""
    prepare(volumes)
    yield volumes
    volumes.network.heal()


def clean(cluster: Cluster) -> None:
    """Whole again, on both nodes, and nothing is told."""
    wait_whole(cluster.nodes)
    settle(cluster)
    wait_until(lambda: set(doctor(cluster.a)) <= NEVER_COMPARED, "nothing is told any more", 60)


def seen(node: Node, name: str, *options: str) -> Finding:
    """The finding, as soon as the monitor has seen it."""
    wait_until(
        lambda: node.sh(f"grep -q '\"{name.removeprefix('mirror-')}\"' /run/pvedrbdstor/live/{STORAGE}.json").rc == 0,
        name,
    )
    found = doctor(node, *options)
    assert name in found, found
    return found[name]


def bring_up(nodes: tuple[Node, ...]) -> None:
    on_each(nodes, lambda node: node.run(UP, 150))


@pytest.mark.soak
def test_a_lost_disk_is_attached_again(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"drbdadm detach {RESOURCE}")
    finding = told(seen(b, "mirror-degraded", "--local"), "warning", "nodeb")
    attach = f"drbdadm attach {RESOURCE}"
    assert finding["commands"] == [attach, f"drbdadm create-md {RESOURCE}"]  # the second one on a new disk alone
    other = seen(a, "mirror-degraded", "--local")
    assert other["commands"] == [attach] and "run 'drbdadm attach r0' there" in other["remedy"]
    b.run(attach)
    clean(pair)


@pytest.mark.soak
def test_a_node_that_left_comes_back(pair: Cluster) -> None:
    """In order, and by a disconnection."""
    a, b = pair.nodes
    b.run(f"{DOWN} --stop", 90)
    away = told(seen(a, "mirror-degraded", "--local"), "warning", "nodea")
    assert away["commands"] == [UP] and away["remedy"].endswith("there")
    down = told(doctor(b, "--local")["mirror-not-up"], "error", "nodeb")
    follow([b], down, [UP], 150)
    clean(pair)
    b.run(DOWN, 60)
    a.run(f"drbdadm disconnect {RESOURCE}")
    alone = told(seen(a, "mirror-degraded", "--local"), "warning", "nodea")
    follow([a], alone, [f"drbdadm connect {RESOURCE}"])
    bring_up((b,))
    clean(pair)


@pytest.mark.soak
def test_a_copy_that_may_be_old_is_not_used_until_the_other_one_is_met(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(DOWN, 60)
    splitting.part(pair)
    finding = told(seen(b, "mirror-stale", "--local"), "error", "nodeb")
    assert finding["commands"] == [UP, UP] and "on both nodes" not in finding["remedy"]
    pair.network.heal()  # "check the link"
    follow([a, b], finding, [UP, UP], 150)
    clean(pair)


@pytest.mark.soak
def test_a_copy_that_was_cut_off_in_its_resync_is_completed(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"{DOWN} --stop", 60)
    splitting.write(a, BALLAST, 96 << 10)
    on_each(
        pair.nodes,
        lambda node: node.run(
            f"cp -p /etc/drbd.d/{RESOURCE}.res /root/; sed -i 's/resync-rate 200M/resync-rate 2M/' /etc/drbd.d/{RESOURCE}.res"
        ),
    )
    a.run(f"drbdadm adjust {RESOURCE}")
    b.run(f"drbdadm up {RESOURCE}; until grep -q cs:SyncTarget /proc/drbd; do sleep 0.1; done", 60)
    splitting.part(pair)
    finding = told(seen(b, "mirror-inconsistent", "--local"), "error", "nodeb")
    on_each(pair.nodes, lambda node: node.run(f"cp -p /root/{RESOURCE}.res /etc/drbd.d/ && drbdadm adjust {RESOURCE}"))
    pair.network.heal()  # "restore the link to it"
    follow(pair.nodes, finding, [UP], 150)
    clean(pair)
    a.run(f"rm {BALLAST}")


@pytest.mark.soak
def test_a_split_brain_is_resolved_as_told(pair: Cluster) -> None:
    """b's copy is the one to be lost; its disk is no logical volume."""
    _a, b = pair.nodes
    splitting.part(pair)
    for node in pair.nodes:
        node.run(f"echo {node.name} >{MOUNT_POINT}/of-{node.name} && sync -f {MOUNT_POINT}")
    splitting.meet(pair)
    finding = seen(b, "mirror-split-brain")
    assert finding["severity"] == "error"
    show, resolve = finding["commands"][-2:]
    assert show == f"pvedrbdstor split-brain show {STORAGE}"
    assert resolve == f"pvedrbdstor split-brain resolve {STORAGE} --keep NODE"
    assert "of-b" in b.run(show, 120)
    asked = f"{resolve.replace('NODE', 'nodea')} --preserve-to {splitting.ASIDE} --yes"  # no terminal to ask on
    done = b.sh(asked, 240)
    assert done.rc == 0, done.out
    clean(pair)
    assert b.sh(f"test -e {MOUNT_POINT}/of-a").rc == 0 and b.sh(f"test -e {MOUNT_POINT}/of-b").rc == 1
    b.run(f"rm -rf {splitting.ASIDE}/*; rm {MOUNT_POINT}/of-a")


@pytest.mark.soak
def test_frozen_io_is_told_in_time_with_the_command_that_ends_it(pair: Cluster) -> None:
    """What cannot be read then is told, too, and nothing waits for it."""
    a = pair.a
    a.run(f"drbdadm suspend-io {RESOURCE}")
    # and not for long: OCFS2 resets a node whose disk heartbeat stands still for 60 s
    resume = f"drbdadm resume-io {RESOURCE}"
    try:
        finding = told(seen(a, "mirror-suspended", "--local"), "error", "nodea")
        follow([a], finding, [resume])
    finally:
        a.sh(resume)
    clean(pair)


@pytest.mark.soak
def test_a_read_only_file_system_is_checked_and_comes_back(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"mount -o remount,ro {MOUNT_POINT}")
    finding = told(seen(b, "mirror-read-only", "--local"), "error", "nodeb")
    dmesg, down, primary, fsck, secondary, up = finding["commands"]
    assert (down, up) == (DOWN, UP)
    b.run(dmesg)
    on_each(pair.nodes, lambda node: node.run(down, 60))
    b.run(primary)
    checked = b.run(fsck, 120)
    assert "Pass 4" in checked, checked
    b.run(secondary)
    bring_up((a, b))
    clean(pair)


@pytest.mark.soak
def test_a_drbd_that_does_not_answer_is_unknown(pair: Cluster) -> None:
    """Its tool hangs, as it does when the kernel's lock is held. The lab has no systemd: the service is restarted as it starts it."""
    a = pair.a
    tools = a.run("for tool in drbdsetup drbdsetup-84; do command -v $tool; done; true").split()
    for tool in tools:
        a.run(f"mv {tool} {tool}.kept; printf '#!/bin/sh\\nexec sleep 600\\n' >{tool}; chmod +x {tool}")
    try:
        storage.stop_service(a)
        storage.start_service(a)
        found = doctor(a, "--local")
        finding = told(found["mirror-unknown"], "error", "nodea")
        assert "unread" in found
    finally:
        for tool in tools:
            a.run(f"mv {tool}.kept {tool}")
    ask, restart = finding["commands"]
    assert "exists" in a.run(ask) and restart == "systemctl restart pvedrbdstor"
    storage.stop_service(a)
    storage.start_service(a)
    clean(pair)
