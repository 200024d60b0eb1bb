"""What `pvedrbdstor doctor` finds in the o2cb cluster of two real nodes and in the mount, each cleared by doing what its remedy says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvedrbdstor.nodes import Way, copying
from tests.lab.cluster import Cluster
from tests.lab.doctoring import NEVER_COMPARED, doctor, follow, prepare, settle, told
from tests.lab.formation import CLUSTER, MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node

REPRODUCES = {
    *("o2cb-conf-differs", "o2cb-conf-broken", "o2cb-conf-not-in-force"),
    *("o2cb-timeouts-differ", "o2cb-timeouts-not-in-force"),
    *("mount-coherency", "mount-writeback", "mount-errors", "mount-point-mutable", "mount-point-filled"),
    *("vendor-unmasked", "vendor-replaced", "mirror-not-up"),
}
CONF, DEFAULTS = "/etc/ocfs2/cluster.conf", "/etc/default/o2cb"
KERNEL = f"/sys/kernel/config/cluster/{CLUSTER}"
DOWN, UP = f"pvedrbdstor mirror down {STORAGE}", f"pvedrbdstor mirror up {STORAGE}"
FETCH = copying(Way("nodea"), CONF, CONF)
UNIT = "/etc/systemd/system/o2cb.service"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """The shared cluster as an administrator should have it; its files are put back afterwards."""
    prepare(volumes)
    on_each(volumes.nodes, lambda node: node.run(f"cp -p {CONF} {DEFAULTS} /root/"))
    yield volumes
    on_each(volumes.nodes, lambda node: node.run(f"cp -p /root/cluster.conf {CONF}; cp -p /root/o2cb {DEFAULTS}"))


def change(node: Node, program: str, file: str) -> None:
    node.run(f"sed -i -E '{program}' {file}")


def clean(node: Node) -> None:
    left = doctor(node)
    assert set(left) <= NEVER_COMPARED, left


def test_the_file_in_force_is_copied_over_the_other_one(pair: Cluster) -> None:
    """Other ports, and a line that is no line: the file of the other node is right and in force."""
    a, b = pair.nodes
    change(b, r"s/ip_port = 7777/ip_port = 7778/; 1i nonsense", CONF)
    change(b, "s/THRESHOLD=31/THRESHOLD=41/", DEFAULTS)
    found = doctor(a)
    names = {"o2cb-conf-differs", "o2cb-conf-broken", "o2cb-conf-not-in-force", "o2cb-timeouts-not-in-force"}
    assert set(found) - NEVER_COMPARED == names, found
    told(found["o2cb-conf-broken"], "error", "nodeb")
    differs = told(found["o2cb-conf-differs"], "error", "nodea nodeb")
    waits = told(found["o2cb-conf-not-in-force"], "warning", "nodeb")
    timeouts = told(found["o2cb-timeouts-not-in-force"], "warning", "nodeb")
    assert f"on nodeb '{FETCH}'" in found["o2cb-conf-broken"]["remedy"]
    assert (
        f"That of nodea is the one in force, and make the other one the same; to take that of nodea, run on nodeb '{FETCH}'"
        in differs["remedy"]
    )
    assert f"If the file is wrong, copy it from the other node: on nodeb '{FETCH}'" in waits["remedy"]
    follow([b], differs, [FETCH])
    assert "O2CB_HEARTBEAT_THRESHOLD is 41 (the file) and 31 (the kernel)" in timeouts["meaning"]
    assert "is wrong, write into it what the kernel has" in timeouts["remedy"]
    change(b, "s/THRESHOLD=41/THRESHOLD=31/", DEFAULTS)
    clean(a)


@pytest.mark.soak
def test_a_node_without_the_file_is_told(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"rm {CONF}")
    differs = told(doctor(a)["o2cb-conf-differs"], "error", "nodea nodeb")
    assert "and nothing on nodeb" in differs["meaning"]
    follow([b], differs, [FETCH])
    clean(a)


@pytest.mark.soak
def test_nodes_with_other_timeouts_are_told_before_they_refuse_each_other(pair: Cluster) -> None:
    """b was taken down, and its kernel has been given another idle time."""
    a, b = pair.nodes
    b.run(DOWN, 60)
    change(b, "s/IDLE_TIMEOUT_MS=30000/IDLE_TIMEOUT_MS=20000/", DEFAULTS)
    b.run(f"echo 20000 >{KERNEL}/idle_timeout_ms")
    found = doctor(a)
    differ = told(found["o2cb-timeouts-differ"], "error", "nodea nodeb")
    assert "O2CB_IDLE_TIMEOUT_MS is 30000 (nodea) and 20000 (nodeb)" in differ["meaning"]
    assert f"Make {DEFAULTS} the same on both" in differ["remedy"]
    change(b, "s/IDLE_TIMEOUT_MS=20000/IDLE_TIMEOUT_MS=30000/", DEFAULTS)
    follow(pair.nodes, differ, [DOWN, UP], 150)
    settle(pair)
    clean(a)


@pytest.mark.soak
def test_a_mount_with_other_options_is_made_anew(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"umount {MOUNT_POINT}", 60)
    b.run(f"mount -t ocfs2 -o coherency=buffered,data=writeback,errors=panic /dev/drbd0 {MOUNT_POINT}", 90)
    settle(pair)
    found = doctor(a)
    names = ("mount-coherency", "mount-writeback", "mount-errors")
    assert set(found) - NEVER_COMPARED == set(names), found
    for name in names:
        finding = told(found[name], "warning", "nodeb")
        assert (
            finding["commands"] == [DOWN, UP] and "Move the guests away from nodeb and run there" in finding["remedy"]
        )
    follow([b], found["mount-coherency"], [DOWN, UP], 150)
    settle(pair)
    clean(a)


@pytest.mark.soak
def test_an_unmounted_storage_and_its_folder(pair: Cluster) -> None:
    """Not immutable, then filled; cleared by what is printed, and so is that nothing is mounted."""
    a = pair.a
    a.run(f"{DOWN}; chattr -i {MOUNT_POINT}", 60)
    try:
        found = doctor(a, "--local")
        down = told(found["mirror-not-up"], "error", "nodea")
        mutable = told(found["mount-point-mutable"], "warning", "nodea")
        follow([a], mutable, [f"chattr +i {MOUNT_POINT}"])
        assert "mount-point-mutable" not in doctor(a, "--local")
        a.run(f"chattr -i {MOUNT_POINT} && touch {MOUNT_POINT}/backup && chattr +i {MOUNT_POINT}")
        filled = told(doctor(a, "--local")["mount-point-filled"], "warning", "nodea")
        unlock, move, make, lock = (
            f"chattr -i {MOUNT_POINT}",
            f"mv {MOUNT_POINT} {MOUNT_POINT}.found",
            f"mkdir {MOUNT_POINT}",
            f"chattr +i {MOUNT_POINT}",
        )
        follow([a], filled, [unlock, move, make, lock])
        left = doctor(a, "--local")
        assert not {"mount-point-filled", "mount-point-mutable"} & set(left), left
        assert a.run(f"ls {MOUNT_POINT}.found").split() == ["backup"]
        follow([a], down, [UP], 150)
        settle(pair)
        clean(a)
    finally:
        a.run(
            f"mountpoint -q {MOUNT_POINT} || {{ chattr -i {MOUNT_POINT}; rm -f {MOUNT_POINT}/backup; {UP}; }}; rm -rf {MOUNT_POINT}.found",
            150,
        )


@pytest.mark.soak
def test_start_scripts_that_are_not_masked(pair: Cluster) -> None:
    """On b: two that are free, and one that somebody has replaced."""
    a, b = pair.nodes
    b.run(f"pvedrbdstor vendor-units unmask && printf '[Service]\\nExecStart=/bin/true\\n' >{UNIT}")
    found = doctor(a)
    assert set(found) - NEVER_COMPARED == {"vendor-unmasked", "vendor-replaced"}, found
    replaced = told(found["vendor-replaced"], "hint", "nodeb")
    follow([b], told(found["vendor-unmasked"], "error", "nodeb"), ["pvedrbdstor vendor-units follow"])
    assert set(doctor(a)) - NEVER_COMPARED == {"vendor-replaced"}
    follow([b], replaced, [f"cat {UNIT}", f"mv {UNIT} /root/", "pvedrbdstor vendor-units follow"])
    clean(a)
