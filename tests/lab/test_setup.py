"""`pvedrbdstor setup` on bare nodes: to the first volume without a hand on the keyboard, and on from wherever it was killed."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pvedrbdstor.setup.paths import FIREWALL
from pvedrbdstor.setup.steps import ONCE, Kind
from tests.lab import assets, bare, lower_lvm, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.corosync import Corosync
from tests.lab.errors import CommandFailed
from tests.lab.formation import DRBD_PORT, on_each
from tests.lab.node import Node
from tests.lab.protection import Protection

STORAGE = "ha"
NO_VOTE = "--without-third-vote-both-nodes-reset"
SLOW_MKFS = """#!/bin/sh
echo begins >>/run/mkfs.log
sleep 4
/run/mkfs.ocfs2 "$@"
status=$?
echo ends >>/run/mkfs.log
exit $status
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(bare=True, memory=bare.MEMORY, disk_size=bare.DISK) as found:
        bare.install(found)
        bare.write_corosync(found)
        yield found


def plan(cluster: Cluster, *options: str) -> dict[str, Any]:
    disk = cluster.backend.disk_device
    disks = ["--disk", f"nodea:{disk}", "--disk", f"nodeb:{disk}"]
    words = ["pvedrbdstor", "setup", "plan", STORAGE, *disks, *options, "--json"]
    found = json.loads(cluster.a.run(shlex.join(words), 90))
    assert isinstance(found, dict)
    return found


def resource_of(made: dict[str, Any]) -> str:
    """DRBD's file in a plan."""
    found = [file["content"] for step in made["steps"] for file in step["files"] if file["path"].endswith("/r0.res")]
    assert len(set(found)) == 1
    return str(found[0])


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


def install_lvm(cluster: Cluster) -> None:
    """LVM's programs, and the lvm.conf that Debian has."""
    on_each(cluster.nodes, lower_lvm.install)
    conf = assets.prepare_lvm()[0] / "etc/lvm/lvm.conf"
    on_each(cluster.nodes, lambda node: node.run(f"mkdir -p /etc/lvm && cp {conf} /etc/lvm/"))


def plan_disks(cluster: Cluster) -> dict[str, Any]:
    return plan(cluster, "--no-lvm", NO_VOTE)


def plan_volumes(cluster: Cluster) -> dict[str, Any]:
    """On logical volumes, on disks that hold an old file system each, behind Proxmox's firewall."""
    install_lvm(cluster)
    disk = cluster.backend.disk_device
    for node in cluster.nodes:
        node.run(f"mkfs.ext4 -q -F -L theirs {disk} && mkdir -p {os.path.dirname(FIREWALL)}")
        node.run(f"printf '[OPTIONS]\n\nenable: 1\n' >{FIREWALL}")
    made = plan(cluster, NO_VOTE, "--wipe", f"nodea:{disk}", "--wipe", f"nodeb:{disk}")
    wanted = {f"{node}.{name}" for node in ("nodea", "nodeb") for name in ("wipe", "pv", "vg", "lv")}
    assert {"nodea.firewall", *wanted} <= {step["id"] for step in made["steps"]}
    return made


def points(step: dict[str, Any]) -> tuple[str, ...]:
    """Where a step is killed: before it, after its files and after its programs (where they are the killed process's own), and after it."""
    kind, here = Kind(step["kind"]), step["node"] == "nodea"
    if kind is Kind.FILE:
        return ("begun", *(("files",) if here else ()), "acted")
    return ("begun", *(("ran",) if here else ()), "acted") if kind in ONCE else ("acted",)


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
    cluster.network.drop(DRBD_PORT)
    shut = plan(cluster, "--no-lvm", NO_VOTE)
    assert "cannot be reached from" in shut["measured"]["problem"] and "c-max-rate" not in resource_of(shut)
    cluster.network.heal()
    made = plan(cluster, "--no-lvm", NO_VOTE)
    assert {step["node"] for step in made["steps"]} == {"nodea", "nodeb"}
    measured = made["measured"]
    print("the link:", measured)
    assert set(measured["rates"]) == {"nodea", "nodeb"} and min(measured["rates"].values()) > 10  # Mbit/s
    assert measured["passes"] and measured["round_trip"] > 0 and "c-max-rate" in resource_of(made)
    assert apply(cluster.a) == 0
    check_first_volume(cluster)


@pytest.mark.soak
def test_what_a_reboot_undoes_is_done_again_and_programs_that_outlive_a_killed_apply_are_waited_for(
    cluster: Cluster,
) -> None:
    """mkfs goes on when its parent is killed, until it prints something: the next one must neither run beside it nor take what it
    has left for whole."""
    plan(cluster, "--no-lvm", NO_VOTE)
    assert apply(cluster.a, "setup.begun.nodea.file-system") == 137
    on_each(cluster.nodes, lambda node: node.run("drbdadm down r0"))
    cluster.a.run(
        f"""cp /usr/sbin/mkfs.ocfs2 /run/mkfs.ocfs2
printf %s {shlex.quote(SLOW_MKFS)} >/usr/sbin/mkfs.ocfs2
pvedrbdstor setup apply {STORAGE} --yes >/run/apply.log 2>&1 &
until [ -e /run/mkfs.log ]; do kill -0 $! || {{ cat /run/apply.log; exit 1; }}; sleep 0.05; done
kill -9 $!""",
        200,
    )
    assert apply(cluster.a) == 0
    assert cluster.a.run("cat /run/mkfs.log").split() == ["begins", "ends", "begins", "ends"]
    check_first_volume(cluster)


@pytest.mark.soak
def test_disks_become_logical_volumes_and_what_was_on_one_goes_only_when_it_is_named(cluster: Cluster) -> None:
    install_lvm(cluster)
    disk = cluster.backend.disk_device
    cluster.b.run(f"mkfs.ext4 -q -F -L theirs {disk}")
    with pytest.raises(CommandFailed, match="theirs"):
        plan(cluster, NO_VOTE)
    plan(cluster, NO_VOTE, "--wipe", f"nodeb:{disk}")
    assert apply(cluster.a) == 0
    for node in cluster.nodes:
        assert node.run("lvs --noheadings -o lv_name mirror").split() == ["r0"]
        node.run(
            "grep -q 'global_filter = .*/dev/drbd0' /etc/lvm/lvm.conf && grep -q DM_LV_NAME /etc/udev/rules.d/99-pvedrbdstor-r0.rules"
        )
    check_first_volume(cluster)


@pytest.mark.soak
def test_a_disk_that_somebody_has_got_meanwhile_is_left_alone(cluster: Cluster) -> None:
    """After the plan, and even after its first steps."""
    plan(cluster, "--no-lvm", NO_VOTE)
    disk = cluster.backend.disk_device
    assert apply(cluster.a, "setup.begun.nodeb.metadata") == 137
    cluster.b.run(
        f"mkfs.ext4 -q -F {disk} && mkdir -p /run/theirs && mount {disk} /run/theirs && echo theirs >/run/theirs/file"
    )
    assert apply(cluster.a) == 74
    cluster.b.run("sync && umount /run/theirs")
    assert apply(cluster.a) == 74, "not mounted any more, and still theirs"
    cluster.b.run(
        f"mount {disk} /run/theirs && grep -q theirs /run/theirs/file && umount /run/theirs && wipefs -q -a {disk}"
    )
    assert apply(cluster.a) == 0
    check_first_volume(cluster)


@pytest.mark.soak
def test_with_a_third_vote_the_storage_is_protected() -> None:
    with Cluster(bare=True, witness=True, memory=bare.MEMORY + 100, disk_size=bare.DISK) as cluster:
        assert cluster.c is not None
        protection = Protection()
        corosync = Corosync(cluster.nodes, cluster.c)
        corosync.form()
        bare.install(cluster)
        on_each(cluster.nodes, protection.install)
        for node in cluster.nodes:
            node.run("until pvedrbdstor fencing status >/dev/null; do sleep 1; done", 120)
        plan(cluster, "--no-lvm")
        assert apply(cluster.a) == 0
        for node in cluster.nodes:
            node.run(f"pvedrbdstor fencing status {STORAGE} && pvedrbdstor fencing timeline {STORAGE}", 60)
        check_first_volume(cluster)


@pytest.mark.soak
@pytest.mark.parametrize("make_plan", [plan_disks, plan_volumes])
def test_killed_at_each_step_it_goes_on_from_there(
    cluster: Cluster, make_plan: Callable[[Cluster], dict[str, Any]]
) -> None:
    made = make_plan(cluster)
    for step in made["steps"]:
        for when in points(step):
            assert apply(cluster.a, f"setup.{when}.{step['id']}") == 137, (step["id"], when)
    for _ in range(2):
        assert apply(cluster.a) == 0, "also when it is finished"
    for step in made["steps"]:
        for file in step["files"]:
            # Nothing twice, nothing half.
            assert (
                next(node for node in cluster.nodes if f"node{node.name}" == step["node"]).run(f"cat {file['path']}")
                == file["content"]
            )
    check_first_volume(cluster)
