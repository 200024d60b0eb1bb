"""What an administrator does to the disks below a mirror that is in use: more room, and a new disk in place of a dead one.

The commands are those of docs/daily.md. The second storage of lower_lvm is used: its lower device is a logical volume on b.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import lower_lvm
from tests.lab.cluster import Cluster
from tests.lab.doctoring import Found, doctor, told
from tests.lab.formation import on_each
from tests.lab.lower_lvm import GROUP, MOUNT_POINT, RESOURCE, SIZE_MIB, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops, wait_until

REPRODUCES = {"ocfs2-full"}
MIB = 1 << 20
DRBD = f"/dev/drbd{lower_lvm.MINOR}"
LOWER = {"a": "/dev/loop1", "b": f"/dev/{GROUP}/{RESOURCE}"}
FILE = f"{MOUNT_POINT}/file"


@pytest.fixture
def mirror(storage_service: Cluster) -> Iterator[Cluster]:
    """The second storage, mounted on both nodes, with a file of 8 MiB on it."""
    cluster = storage_service
    try:
        lower_lvm.form(cluster)
        cluster.a.run(f"truncate -s {8 * MIB} {FILE}")
        ops(cluster.a, "write_pattern", FILE, "before", 0, 8 * MIB)
        yield cluster
    finally:
        lower_lvm.dissolve(cluster)


def total(node: Node) -> int:
    """Bytes of the file system, as df has it on this node."""
    return int(node.run(f"stat -f -c %b {MOUNT_POINT}")) * int(node.run(f"stat -f -c %S {MOUNT_POINT}"))


def of_this(node: Node) -> Found:
    """What the doctor tells of this storage."""
    return doctor(node, STORAGE, "--local")


def in_sync(node: Node) -> bool:
    state = node.run(f"grep '^ *{lower_lvm.MINOR}:' /proc/drbd")
    return "cs:Connected" in state and "ds:UpToDate/UpToDate" in state


def digest_of_data(node: Node, mib: int) -> str:
    """Of so many MiB from the beginning of the lower device, where OCFS2 is."""
    return node.run(f"dd if={LOWER[node.name]} bs=1M count={mib} iflag=direct status=none | sha256sum", 120).split()[0]


@pytest.mark.soak
def test_a_mirror_in_use_grows_on_both_nodes(mirror: Cluster) -> None:
    a, b = mirror.nodes
    before = total(a)
    a.run(f"mkdir -p {MOUNT_POINT}/ballast/a {MOUNT_POINT}/ballast/b")
    for node in mirror.nodes:  # as each keeps some space for itself
        ops(node, "fill", f"{MOUNT_POINT}/ballast/{node.name}")
    full = told(of_this(a)["ocfs2-full"], "error", "")
    _frees, resize, more, _resume = full["commands"]
    a.run(f"truncate -s {2 * SIZE_MIB}M /run/{RESOURCE}.img && losetup -c /dev/loop1")
    b.run(f"lvextend -q -L {2 * SIZE_MIB}M /dev/{GROUP}/{RESOURCE}", 60)
    a.run(resize, 60)
    on_each(mirror.nodes, lambda node: wait_until(lambda: in_sync(node), "the new part is copied", 120))
    a.run(more, 120)
    assert "ocfs2-full" not in of_this(a)
    assert [total(node) > before + 0.9 * SIZE_MIB * MIB for node in mirror.nodes] == [True, True]

    a.run(f"rm -r {MOUNT_POINT}/ballast")
    size = before  # more than fits without the new room, as the journals and the first file take some of the old
    b.run(f"truncate -s {size} {MOUNT_POINT}/large")
    written = ops(b, "write_pattern", f"{MOUNT_POINT}/large", "large", 0, size)
    assert ops(a, "digest", f"{MOUNT_POINT}/large") == written
    a.run(f"umount {MOUNT_POINT}", 60)
    b.run(f"umount {MOUNT_POINT} && fsck.ocfs2 -fn {DRBD}", 120)
    assert len({digest_of_data(node, 2 * SIZE_MIB - 4) for node in mirror.nodes}) == 1


@pytest.mark.soak
def test_a_new_disk_in_place_of_a_dead_one_is_filled_while_the_node_goes_on(mirror: Cluster) -> None:
    b = mirror.b
    b.run(f"drbdadm detach {RESOURCE}")
    ops(b, "write_pattern", FILE, "without a disk", MIB, MIB)
    replace_disk(b)
    b.run(f"drbdadm attach {RESOURCE}", 60)
    ops(b, "write_pattern", FILE, "while it is filled", 4 * MIB, MIB)
    assert_equal_when_filled(mirror)


@pytest.mark.soak
def test_a_node_that_was_switched_off_for_a_new_disk_comes_back_by_mirror_up(mirror: Cluster) -> None:
    a, b = mirror.nodes
    b.run(f"pvedrbdstor mirror down {STORAGE} --stop", 120)
    ops(a, "write_pattern", FILE, "without the other node", MIB, MIB)
    replace_disk(b)
    b.run(f"pvedrbdstor mirror up {STORAGE}", 180)
    assert_equal_when_filled(mirror)


def replace_disk(node: Node) -> None:
    """A new logical volume of zeros, with metadata that have never seen the mirror."""
    node.run(f"lvremove -f -q {GROUP}/{RESOURCE} && lvcreate -q -y -W n -L {SIZE_MIB}M -n {RESOURCE} {GROUP}", 60)
    zeros = f"dd if=/dev/zero of={LOWER[node.name]} bs=1M oflag=direct status=none"
    node.run(f"{zeros}; drbdadm create-md {RESOURCE} </dev/null", 60)


def assert_equal_when_filled(mirror: Cluster) -> None:
    a, b = mirror.nodes
    on_each(mirror.nodes, lambda node: wait_until(lambda: in_sync(node), "the new disk is filled", 120))
    assert ops(a, "digest", FILE) == ops(b, "digest", FILE)
    on_each(mirror.nodes, lambda node: node.run(f"umount {MOUNT_POINT}", 60))
    assert len({digest_of_data(node, SIZE_MIB - 4) for node in mirror.nodes}) == 1
