"""Facts about OCFS2 on two nodes that the storage relies on: each would be a reason to change the design, if it broke."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, on_each
from tests.lab.ops import ops, running_op, wait_until

EPERM = {"errno": "EPERM"}
WOULD_BLOCK = {"errno": "EAGAIN"}


@pytest.fixture
def folder(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new folder on the shared file system, removed afterwards."""
    path = f"{MOUNT_POINT}/facts-{re.sub('[^a-z0-9_]', '_', request.node.name)}"
    cluster.a.run(f"mkdir {path}")
    yield path
    cluster.a.run(f"chattr -R -i {path}; rm -rf {path}")


def test_file_written_on_one_node_is_read_on_the_other_at_once(cluster: Cluster, folder: str) -> None:
    for number in range(5):
        ops(cluster.a, "write", f"{folder}/file", f"version {number}")
        assert ops(cluster.b, "read", f"{folder}/file") == f"version {number}"


def test_ficlone_works_from_an_immutable_read_only_source_on_either_node(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/base", "content of the template")
    cluster.a.run(f"chmod 0444 {folder}/base && chattr +i {folder}/base")
    for node in cluster.nodes:
        assert ops(node, "ficlone", f"{folder}/base", f"{folder}/clone.{node.name}") is None
        assert ops(node, "read", f"{folder}/clone.{node.name}") == "content of the template"


def test_clone_and_source_do_not_change_one_another(cluster: Cluster, folder: str) -> None:
    cluster.a.run(f"truncate -s 8M {folder}/source")
    ops(cluster.a, "write_pattern", f"{folder}/source", "one", 0, 1 << 20)
    before = ops(cluster.a, "digest", f"{folder}/source")
    ops(cluster.b, "ficlone", f"{folder}/source", f"{folder}/clone")
    ops(cluster.b, "write_pattern", f"{folder}/clone", "two", 4096, 65536)
    assert ops(cluster.a, "digest", f"{folder}/source") == before
    changed = ops(cluster.b, "digest", f"{folder}/clone")
    assert changed != before
    ops(cluster.a, "write_pattern", f"{folder}/source", "three", 0, 65536)
    assert ops(cluster.b, "digest", f"{folder}/clone") == changed


@pytest.mark.parametrize("method", ["open", "link", "mkdir"])
def test_every_name_raced_from_both_nodes_has_exactly_one_winner(cluster: Cluster, folder: str, method: str) -> None:
    count = 100
    won_a, won_b = on_each(cluster.nodes, lambda node: ops(node, "race_names", folder, method, count, 2, timeout=120))
    assert sorted(won_a + won_b) == list(range(count))
    assert won_a and won_b, "one node did everything alone: that was no race"


def test_flock_excludes_the_other_node_and_says_so_at_once(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/lock", "")
    with running_op(cluster.a, "hold_flock", f"{folder}/lock"):
        assert ops(cluster.b, "try_flock", f"{folder}/lock") == WOULD_BLOCK
        assert ops(cluster.a, "try_flock", f"{folder}/lock") == WOULD_BLOCK
    assert ops(cluster.b, "try_flock", f"{folder}/lock") is None


def test_flock_of_a_killed_process_passes_to_the_waiter_on_the_other_node(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/lock", "")
    with ThreadPoolExecutor(1) as pool, running_op(cluster.a, "hold_flock", f"{folder}/lock") as pid:
        waiter = pool.submit(ops, cluster.b, "wait_flock", f"{folder}/lock")
        time.sleep(1.5)
        assert not waiter.done(), "the lock was given away while it was held"
        cluster.a.run(f"kill -9 {pid}")
        assert 0.5 < waiter.result(timeout=30) < 15


def test_flocks_are_not_local_to_the_node(cluster: Cluster) -> None:
    for node in cluster.nodes:
        options = node.run(f"grep ' {MOUNT_POINT} ' /proc/mounts").split()[3].split(",")
        assert "localflocks" not in options
        assert "heartbeat=local" in options  # of the disk, not of flock(): the mount takes part in a cluster


def test_user_attributes_are_seen_on_the_other_node(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/image", "x")
    for value in ("0" * 32, "f" * 32):
        ops(cluster.a, "set_xattr", f"{folder}/image", "user.drbdocfs2.id", value)
        assert ops(cluster.b, "get_xattr", f"{folder}/image", "user.drbdocfs2.id") == value


def test_reflink_by_ioctl_copies_no_attributes(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/image", "x")
    ops(cluster.a, "set_xattr", f"{folder}/image", "user.drbdocfs2.id", "1")
    ops(cluster.a, "ficlone", f"{folder}/image", f"{folder}/clone")
    assert ops(cluster.b, "get_xattr", f"{folder}/clone", "user.drbdocfs2.id") == {"errno": "ENODATA"}


def test_statfs_id_is_the_checksum_of_both_halves_of_the_uuid(cluster: Cluster) -> None:
    """fs/ocfs2/super.c, ocfs2_statfs(): crc32_le(0, ...) of characters 0-15 and 16-31 of the UUID in upper case hex.

    The kernel's crc32_le neither begins with all ones nor inverts the result, zlib's does both.
    """

    def crc32_le(data: bytes) -> int:
        return zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF

    uuid = cluster.a.run("tunefs.ocfs2 -Q '%U\\n' /dev/drbd0").split()[-1]
    assert uuid == cluster.uuid
    expected = crc32_le(uuid[:16].encode()) | crc32_le(uuid[16:].encode()) << 32
    for node in cluster.nodes:
        assert ops(node, "file_system_id", MOUNT_POINT) == expected


def test_immutable_image_can_be_neither_renamed_nor_linked_nor_replaced(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/base", "template")
    ops(cluster.a, "write", f"{folder}/other", "other")
    cluster.a.run(f"chattr +i {folder}/base")
    for node in cluster.nodes:
        assert ops(node, "rename", f"{folder}/base", f"{folder}/elsewhere") == EPERM
        assert ops(node, "rename", f"{folder}/other", f"{folder}/base") == EPERM
        assert ops(node, "link", f"{folder}/base", f"{folder}/second") == EPERM
    assert ops(cluster.b, "read", f"{folder}/base") == "template"


def test_rename_over_a_file_open_on_the_other_node_leaves_that_node_the_old_content(
    cluster: Cluster, folder: str
) -> None:
    ops(cluster.a, "write", f"{folder}/image", "old")
    ops(cluster.b, "write", f"{folder}/new", "new")
    opened, go_on = f"{folder}/opened", f"{folder}/go-on"
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(ops, cluster.a, "keep_open", f"{folder}/image", opened, go_on)
        wait_until(lambda: cluster.b.sh(f"test -e {opened}").rc == 0, "the reader has opened the file")
        assert ops(cluster.b, "rename", f"{folder}/new", f"{folder}/image") is None
        cluster.b.run(f"touch {go_on}")
        assert reader.result(timeout=30) == ["old", "new"]


def test_renameat2_flags_are_refused_so_that_link_has_to_do(cluster: Cluster, folder: str) -> None:
    ops(cluster.a, "write", f"{folder}/one", "1")
    ops(cluster.a, "write", f"{folder}/two", "2")
    no_replace, exchange = 1, 2
    assert ops(cluster.a, "renameat2", f"{folder}/one", f"{folder}/free", no_replace) == {"errno": "EINVAL"}
    assert ops(cluster.a, "renameat2", f"{folder}/one", f"{folder}/two", exchange) == {"errno": "EINVAL"}


def test_descriptor_names_its_mount_in_fdinfo(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert ops(node, "descriptor_mount_id", MOUNT_POINT) == ops(node, "mount_id", MOUNT_POINT)
        assert ops(node, "descriptor_mount_id", "/") != ops(node, "mount_id", MOUNT_POINT)
