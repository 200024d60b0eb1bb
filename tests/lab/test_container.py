"""A container's root file system, as Proxmox uses one: a raw image, ext4, a loop device, a snapshot while frozen.

Without Proxmox's `-O mmp`: it makes every mount wait eleven seconds and tells nothing about the storage.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.lab.node import Node
from tests.lab.storage import alloc, call, path

MIB = 1 << 20
ROOT = "/var/tmp/root"
SNAPSHOT = "/var/tmp/snapshot"


@pytest.fixture
def mount_points(volumes: Cluster) -> Iterator[None]:
    """Two folders to mount on, in both nodes; unmounted afterwards."""
    for node in volumes.nodes:
        node.run(f"mkdir -p {ROOT} {SNAPSHOT}")
    yield
    for node in volumes.nodes:
        for folder in (SNAPSHOT, ROOT):
            node.sh(f"mountpoint -q {folder} && umount {folder}")
        assert node.run("losetup --list --noheadings") == ""


def _content(node: Node, folder: str) -> str:
    return node.run(f"cat {folder}/file")


@pytest.mark.usefixtures("mount_points")
def test_snapshot_of_a_frozen_container_root_holds_what_was_written_before(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 64 * MIB)
    image = path(a, volid)
    a.run(f"mkfs.ext4 -q -E root_owner=0:0 {image} && mount -o loop {image} {ROOT}")
    a.run(f"echo before >{ROOT}/file")
    a.run(f"sync -f {ROOT} && fsfreeze -f {ROOT}")
    try:
        call(a, "volume_snapshot", volid, "vzdump")
    finally:
        a.run(f"fsfreeze -u {ROOT}")
    a.run(f"echo after >{ROOT}/file && sync -f {ROOT}")
    call(a, "activate_volumes", [volid], "vzdump")
    frozen = path(a, volid, "vzdump")
    a.run(f"mount -o loop,ro,noload {frozen} {SNAPSHOT}")
    assert _content(a, SNAPSHOT) == "before\n"
    assert _content(a, ROOT) == "after\n"
    a.run(f"umount {SNAPSHOT}; umount {ROOT}")
    a.run(f"e2fsck -fn {image}")

    call(b, "volume_snapshot_rollback", volid, "vzdump")
    b.run(f"mount -o loop {image} {ROOT}")
    assert _content(b, ROOT) == "before\n"
    b.run(f"umount {ROOT}")


@pytest.mark.usefixtures("mount_points")
def test_linked_clone_of_a_container_template_starts_on_the_other_node(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 64 * MIB)
    a.run(f"mkfs.ext4 -q {path(a, volid)} && mount -o loop {path(a, volid)} {ROOT}")
    a.run(f"echo template >{ROOT}/file && umount {ROOT}")
    base = call(a, "vdisk_create_base", volid).value
    clone = call(b, "vdisk_clone", base, vmid + 1, None).value
    b.run(f"mount -o loop {path(b, clone)} {ROOT}")
    assert _content(b, ROOT) == "template\n"
    b.run(f"echo clone >{ROOT}/file && umount {ROOT}")
    a.run(f"mount -o loop,ro,noload {path(a, base)} {SNAPSHOT}")
    assert _content(a, SNAPSHOT) == "template\n"
