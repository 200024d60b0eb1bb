"""A storage that is full to the last block while a guest writes to a sparse disk."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT
from tests.lab.guests.machine import guest
from tests.lab.ops import ops, wait_until
from tests.lab.results import Results

_BALLAST = f"{MOUNT_POINT}/ballast"
_DISK_SIZE = 256 << 20  # bytes; more than the guest writes while the file system is being filled
_FILL_SECONDS, _PAUSE_SECONDS, _FREE_SECONDS = 240.0, 120.0, 60.0


@pytest.fixture
def ballast(volumes: Cluster) -> Iterator[str]:
    """A folder to fill the file system in, from both nodes, as each keeps some space for itself; removed afterwards."""
    volumes.a.run(f"mkdir {_BALLAST} {_BALLAST}/a {_BALLAST}/b")
    yield _BALLAST
    volumes.a.run(f"rm -rf {_BALLAST}")


@pytest.mark.soak
@pytest.mark.parametrize(("cache", "werror"), [("writeback", "enospc"), ("none", "stop")])
def test_a_guest_is_paused_by_a_full_storage_and_goes_on_once_space_is_freed(
    volumes: Cluster, vmid: int, ballast: str, results: Results, cache: str, werror: str
) -> None:
    """No write is lost, none is refused to the guest, and none is torn.

    QEMU's default, enospc, does it with a page cache only: see test_direct_writes_on_a_full_file_system_are_told_as_eio.
    """
    a, b = volumes.nodes
    bystander = storage.path(a, storage.alloc(a, vmid + 1, _DISK_SIZE))
    ops(a, "write_pattern", bystander, "bystander", 0, 8 << 20)
    content = ops(b, "digest", bystander)
    with guest(vmid, storage.alloc(a, vmid, _DISK_SIZE), cache, werror) as counting:
        counting.start(a)
        counting.wait_for_writes(time.monotonic())
        for node in volumes.nodes:
            ops(node, "fill", f"{ballast}/{node.name}", timeout=_FILL_SECONDS)
        full = time.monotonic()
        wait_until(lambda: counting.qmp("query-status")["status"] == "io-error", "the guest is paused", _PAUSE_SECONDS)
        paused = time.monotonic() - full
        acknowledged = counting.acknowledged.last()
        assert ops(b, "free_bytes", MOUNT_POINT) < _DISK_SIZE
        a.run(f"rm -rf {ballast}/a")
        wait_until(lambda: ops(a, "free_bytes", MOUNT_POINT) > _DISK_SIZE, "space is free again", _FREE_SECONDS)
        counting.qmp("cont")
        counting.wait_for_writes(time.monotonic())
        assert counting.qmp("query-status")["status"] == "running"
        counting.check_console()
        counting.stop()
        for node in volumes.nodes:
            counting.check_disk(node, counting.acknowledged.last())
            assert ops(node, "digest", bystander) == content
    results.row(
        "A guest on a full storage",
        key=("cache", "werror"),
        cache=cache,
        werror=werror,
        paused_by_QEMU_after=f"{paused:.1f} s",
        acknowledged_before=acknowledged,
        acknowledged_in_the_end=counting.acknowledged.last(),
    )


def test_direct_writes_on_a_full_file_system_are_told_as_eio(volumes: Cluster, ballast: str) -> None:
    """By OCFS2 (ocfs2_dio_wr_get_block() in fs/ocfs2/aops.c), which QEMU cannot tell from a broken disk."""
    a = volumes.a
    a.run(f"truncate -s 8M {ballast}/direct {ballast}/cached")
    for node in volumes.nodes:
        ops(node, "fill", f"{ballast}/{node.name}", timeout=_FILL_SECONDS)
    write = f"dd if=/dev/zero of={ballast}/%s bs=1M count=1 seek=4 conv=notrunc %s"
    assert "No space left on device" in a.sh(write % ("cached", "")).out
    assert "Input/output error" in a.sh(write % ("direct", "oflag=direct")).out
