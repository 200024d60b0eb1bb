"""The ways in which QEMU reads and writes a disk: what is written by any of them is snapshotted, cloned and rolled back whole.

qemu-io(1) is QEMU's own block layer without a guest. `native` (Linux AIO) exists with O_DIRECT only: QEMU refuses it with
the caches `writeback` and `writethrough`, so there is nothing to test.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tests.lab.cluster import Cluster
from tests.lab.errors import CommandFailed
from tests.lab.node import Node
from tests.lab.ops import ops
from tests.lab.storage import alloc, call, path

MIB = 1 << 20
SIZE = 24 * MIB
WRITES = 24
SECTOR = 512


@dataclass(frozen=True)
class Engine:
    """As in a guest's configuration: aio=, cache=. `none` and `directsync` mean O_DIRECT."""

    aio: str
    cache: str


@dataclass(frozen=True)
class Extent:
    """A stretch of the disk in bytes, and the byte it is filled with."""

    offset: int
    length: int
    byte: int


ENGINES = [Engine("io_uring", "none"), Engine("native", "none"), Engine("threads", "none")]
OTHERS = [Engine("io_uring", "writeback"), Engine("threads", "writethrough"), Engine("native", "directsync")]


def extents(seed: str) -> list[Extent]:
    """Stretches in a random order, of sectors, blocks and more than a cluster of the file system, none touching another."""
    numbers = random.Random(seed)
    room = SIZE // WRITES
    found = [
        Extent(
            slot * room + SECTOR * numbers.randrange(8),
            numbers.choice([SECTOR, 4096, 200 * SECTOR, MIB // 2]),
            1 + slot * 7,
        )
        for slot in range(WRITES)
    ]
    numbers.shuffle(found)
    return found


def qemu_io(node: Node, engine: Engine, file: str, commands: list[str]) -> str:
    words = " ".join(f"-c '{command}'" for command in commands)
    return node.run(f"qemu-io -t {engine.cache} -i {engine.aio} -f raw {words} {file} 2>&1")


def write(node: Node, engine: Engine, file: str, wanted: list[Extent]) -> None:
    """Write all of it with as many requests under way at once as there are stretches, then flush."""
    requests = [f"aio_write -q -P {extent.byte} {extent.offset} {extent.length}" for extent in wanted]
    out = qemu_io(node, engine, file, [*requests, "aio_flush", "flush"])
    assert "failed" not in out and "error" not in out.lower(), out


def assert_holds(node: Node, engine: Engine, file: str, wanted: list[Extent]) -> None:
    """Each stretch reads as it was written, by QEMU's own comparison. Raises CommandFailed otherwise."""
    out = qemu_io(node, engine, file, [f"read -P {extent.byte} {extent.offset} {extent.length}" for extent in wanted])
    assert out.count(" bytes at offset ") == len(wanted), out


@pytest.mark.parametrize(
    "engine",
    [*ENGINES, *(pytest.param(engine, marks=pytest.mark.soak) for engine in OTHERS)],
    ids=lambda engine: f"{engine.aio}-{engine.cache}",
)
def test_what_an_engine_wrote_is_snapshotted_cloned_and_rolled_back_whole(
    volumes: Cluster, vmid: int, engine: Engine
) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, SIZE)
    file = path(a, volid)
    first, second = extents("first"), extents("second")
    write(a, engine, file, first)
    written = ops(a, "digest", file)
    assert_holds(b, engine, file, first)

    call(a, "volume_snapshot", volid, "before")
    write(a, engine, file, second)
    qemu_io(a, engine, file, [f"discard 0 {MIB}", f"write -q -z -u {MIB} {MIB}"])
    assert ops(b, "digest", file) != written

    clone = path(b, call(b, "vdisk_clone", volid, vmid, "before").value)
    assert_holds(b, engine, clone, first)
    assert ops(b, "digest", clone) == ops(b, "digest", path(b, volid, "before")) == written
    write(b, engine, clone, second)

    call(b, "volume_snapshot_rollback", volid, "before")
    assert_holds(b, engine, file, first)
    assert ops(a, "digest", file) == ops(b, "digest", file) == written
    assert_holds(a, engine, clone, second)


def test_comparison_by_qemu_io_finds_a_single_wrong_sector(volumes: Cluster, vmid: int) -> None:
    """What the other tests rely on."""
    file = path(volumes.a, alloc(volumes.a, vmid, MIB))
    engine = Engine("threads", "none")
    for extent in (Extent(0, MIB, 1), Extent(4 * SECTOR, SECTOR, 2)):  # apart: at once either may be the last
        write(volumes.a, engine, file, [extent])
    with pytest.raises(CommandFailed, match="verification failed"):
        assert_holds(volumes.b, engine, file, [Extent(0, MIB, 1)])
