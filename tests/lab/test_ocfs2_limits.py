"""OCFS2 where it ends: full to the last block, read-only after an error, files gone on the other node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE
from tests.lab.ops import ops, wait_until
from tests.lab.storage import PluginError, alloc, call, listing, path

MIB = 1 << 20
FOLDER = f"{MOUNT_POINT}/limits"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of this module alone: its last test breaks the file system."""
    with Cluster() as formed:
        yield formed


@pytest.fixture(scope="module")
def storage_service(cluster: Cluster) -> Cluster:
    """The cluster with the service running on both nodes."""
    storage.install(cluster.nodes)
    return cluster


@pytest.fixture
def folder(cluster: Cluster) -> Iterator[str]:
    """A new folder on the shared file system, removed afterwards."""
    cluster.a.run(f"mkdir {FOLDER}")
    yield FOLDER
    cluster.a.run(f"rm -rf {FOLDER}")


def test_images_with_and_without_snapshots_are_freed_on_a_completely_full_file_system(
    volumes: Cluster, vmid: int, folder: str
) -> None:
    a, b = volumes.nodes
    plain, snapshotted = alloc(a, vmid, 8 * MIB), alloc(a, vmid, 8 * MIB)
    for volid in (plain, snapshotted):
        ops(a, "write_pattern", path(a, volid), "content", 0, 8 * MIB)
    call(a, "volume_snapshot", snapshotted, "one")
    adopted = f"{STORAGE}:{vmid + 1}/vm-{vmid + 1}-disk-0.raw"
    a.run(f"mkdir -p {MOUNT_POINT}/images/{vmid + 1} && head -c 4M /dev/urandom >{path(a, adopted)}")
    for node in volumes.nodes:
        node.run(f"mkdir {folder}/{node.name}")
        ops(node, "fill", f"{folder}/{node.name}", timeout=120)
    with pytest.raises(PluginError, match=r"(?i)full"):
        alloc(b, vmid, 4 * MIB, "qcow2")
    for node, volid in ((b, adopted), (b, snapshotted), (a, plain)):
        call(node, "vdisk_free", volid)
    for node in volumes.nodes:
        assert listing(node) == {}
    wait_until(lambda: ops(b, "free_bytes", MOUNT_POINT) >= 16 * MIB, "the blocks are free again")
    assert alloc(b, vmid, 4 * MIB, "qcow2")


def test_reflink_of_unwritten_blocks_takes_no_space_and_keeps_them_allocated(cluster: Cluster, folder: str) -> None:
    """So a snapshot of a preallocated image shares what is reserved, and the two are independent all the same.

    Free space is looked at from one side only: blocks freed before may come back at any moment.
    """
    a, b = cluster.nodes
    ops(a, "falloc", f"{folder}/image", 16 * MIB)
    before = ops(a, "free_bytes", MOUNT_POINT)
    assert ops(a, "ficlone", f"{folder}/image", f"{folder}/clone") is None
    assert before - ops(a, "free_bytes", MOUNT_POINT) < 4 * MIB
    for node in (b, a):  # once a node told of no blocks right after: the other one's look brings the count to both
        wait_until(lambda node=node: ops(node, "allocated", f"{folder}/clone") == 16 * MIB, "the clone's blocks", 10)  # type: ignore[misc]
        assert ops(node, "read_zeros", f"{folder}/clone") is True
    ops(b, "write_pattern", f"{folder}/clone", "new", 0, 8 * MIB)
    assert ops(a, "read_zeros", f"{folder}/image") is True
    assert ops(a, "read_zeros", f"{folder}/clone") is False


def test_file_removed_on_the_other_node_is_missing_at_once_and_never_stale(cluster: Cluster, folder: str) -> None:
    a, b = cluster.nodes
    for number in range(5):
        ops(a, "write", f"{folder}/file", "x")
        assert ops(b, "stat", f"{folder}/file") is None
        a.run(f"rm {folder}/file")
        assert ops(b, "stat", f"{folder}/file") == {"errno": "ENOENT"}, number
    a.run(f"mkdir {folder}/gone && touch {folder}/gone/file")
    assert b.run(f"cd {folder}/gone && ls").split() == ["file"]
    held = (
        f"cd {folder}/gone && touch /run/lab/inside && while [ -e /run/lab/inside ]; do sleep 0.05; done; ls; touch new"
    )
    b.run(f"({held}) >/run/held.log 2>&1 & echo $! >/run/held.pid; until [ -e /run/lab/inside ]; do sleep 0.05; done")
    a.run(f"rm -r {folder}/gone")
    b.run("rm /run/lab/inside; while kill -0 $(cat /run/held.pid) 2>/dev/null; do sleep 0.05; done", 30)
    assert "No such file or directory" in b.run("cat /run/held.log")


def test_error_of_the_file_system_makes_it_read_only_on_the_node_that_met_it_alone(
    storage_service: Cluster, vmid: int
) -> None:
    """errors=remount-ro. The other node goes on; the read-only one refuses changes with a reason, and still reads."""
    a, b = storage_service.nodes
    volid = alloc(a, vmid, 4 * MIB)
    ops(a, "write_pattern", path(a, volid), "content", 0, MIB)
    content = ops(a, "digest", path(a, volid))
    a.run(f"mkdir {FOLDER} && echo x >{FOLDER}/victim && sync && sync -f {FOLDER}")
    ops(a, "break_inode", "/dev/drbd0", f"{FOLDER}/victim")
    found = ops(b, "stat", f"{FOLDER}/victim")
    assert found == {"errno": "EACCES"}  # as ocfs2_lookup() says whatever was wrong
    options = b.run(f"grep ' {MOUNT_POINT} ' /proc/mounts").split()[3].split(",")
    assert "ro" in options
    assert "rw" in a.run(f"grep ' {MOUNT_POINT} ' /proc/mounts").split()[3].split(",")

    with pytest.raises(PluginError, match=r"(?i)read-only"):
        alloc(b, vmid, MIB)
    assert ops(b, "digest", path(a, volid)) == content
    assert alloc(a, vmid, MIB) == f"{STORAGE}:{vmid}/vm-{vmid}-disk-1.raw"
    assert "Read-only" in b.sh(f"touch {FOLDER}/new").out
    assert b.sh(f"mount -o remount,rw {MOUNT_POINT}").rc != 0, "OCFS2 stays read-only until it is mounted anew"
