"""What the stack costs a guest: the same load on a raw image on OCFS2, on the DRBD device itself, and on the disk below it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, on_each
from tests.lab.node import Node
from tests.lab.results import Results

MIB = 1 << 20
SIZE = 256 * MIB
SECONDS = 4
LEAST = 0.05  # of what the layer below does, on a machine that does other things too; less would be a fault, not a cost
COST = "What the stack costs: fio, O_DIRECT, as a ratio to the layer below"
SNAPSHOT = "Random writes of 4 KiB around a snapshot of the disk"


@dataclass(frozen=True)
class Load:
    """fio's words for a load; depth is how many requests are under way at once."""

    words: str
    kind: str
    block: str
    depth: int


@dataclass(frozen=True)
class Speed:
    """Requests a second, and the slowest one in milliseconds."""

    iops: float
    slowest_ms: float


LOADS = [
    Load("write 4 KiB, one at a time", "randwrite", "4k", 1),
    Load("write 4 KiB, 16 at a time", "randwrite", "4k", 16),
    Load("write 1 MiB in sequence", "write", "1M", 4),
    Load("read 4 KiB, one at a time", "randread", "4k", 1),
    Load("read 4 KiB, 16 at a time", "randread", "4k", 16),
    Load("read 1 MiB in sequence", "read", "1M", 4),
]
RANDOM_WRITES = LOADS[1]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster whose file system the test may take away."""
    with Cluster() as formed:
        storage.install(formed.nodes)
        yield formed


def fio(node: Node, target: str, load: Load) -> Speed:
    """Put a load on a file or device for SECONDS."""
    command = (
        f"fio --name=load --filename={target} --size={SIZE} --direct=1 --ioengine=libaio --iodepth={load.depth} "
        f"--rw={load.kind} --bs={load.block} --time_based --runtime={SECONDS} --randrepeat=1 --output-format=json"
    )
    out = node.run(command)
    job = json.loads(out[out.index("{") :])["jobs"][0]
    side = job["read" if "read" in load.kind else "write"]
    return Speed(side["iops"], side["clat_ns"]["max"] / 1e6)


def fill(node: Node, target: str) -> None:
    """Write all of it once, so that nothing measured afterwards has to allocate blocks."""
    node.run(f"dd if=/dev/zero of={target} bs=1M count={SIZE // MIB} oflag=direct conv=notrunc status=none")


def measure(node: Node, target: str, loads: Sequence[Load] = LOADS) -> list[Speed]:
    fill(node, target)
    return [fio(node, target, load) for load in loads]


@pytest.mark.soak
@pytest.mark.alone
def test_image_is_not_much_slower_than_the_device_below_the_file_system(cluster: Cluster, results: Results) -> None:
    a = cluster.a
    on_image = measure(a, storage.path(a, storage.alloc(a, 100, SIZE)))
    on_each(cluster.nodes, lambda node: node.run(f"kill $(cat {storage.PID_FILE}); umount {MOUNT_POINT}"))
    on_drbd = measure(a, "/dev/drbd0")
    on_each(cluster.nodes, lambda node: node.run(f"drbdadm secondary {RESOURCE} && drbdadm down {RESOURCE}"))
    on_disk = measure(a, a.backend.disk_device)
    for load, image, drbd, disk in zip(LOADS, on_image, on_drbd, on_disk, strict=True):
        results.row(
            COST,
            load=load.words,
            disk_below_a_second=round(disk.iops),
            DRBD_a_second=round(drbd.iops),
            DRBD_to_disk=f"{drbd.iops / disk.iops:.2f}",
            image_a_second=round(image.iops),
            image_to_DRBD=f"{image.iops / drbd.iops:.2f}",
        )
        assert image.iops > LEAST * drbd.iops, load.words


@pytest.mark.soak
@pytest.mark.alone
def test_writes_go_on_during_a_snapshot_and_after_it(cluster: Cluster, results: Results) -> None:
    a = cluster.a
    volume = storage.alloc(a, 100, SIZE)
    target = storage.path(a, volume)
    fill(a, target)
    speeds = {"before": fio(a, target, RANDOM_WRITES)}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fio, a, target, RANDOM_WRITES)
        time.sleep(SECONDS / 2)
        taken = storage.call(a, "volume_snapshot", volume, "now")
        speeds["while it is taken"] = running.result()
    speeds["while shared blocks are copied"] = fio(a, target, RANDOM_WRITES)
    fill(a, target)
    speeds["when all were copied"] = fio(a, target, RANDOM_WRITES)
    for moment, speed in speeds.items():
        results.row(
            SNAPSHOT,
            moment=moment,
            a_second=round(speed.iops),
            ratio=f"{speed.iops / speeds['before'].iops:.2f}",
            slowest_in_ms=round(speed.slowest_ms),
            snapshot_in_ms=round(taken.seconds * 1000) if moment == "while it is taken" else "",
        )
    assert all(speed.iops > 0 for speed in speeds.values())
    assert speeds["when all were copied"].iops > LEAST * speeds["before"].iops
