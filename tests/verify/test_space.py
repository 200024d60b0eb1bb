"""OCFS2's own map, on file systems that mkfs.ocfs2 makes, against debugfs.ocfs2 and fsck.ocfs2, and on blocks that lie."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.ocfs2 import bitmap, inodes, journal
from pvedrbdstor.ocfs2.inodes import BadBlock
from pvedrbdstor.ocfs2.superblock import READ_SIZE, parse_superblock
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.space import Kind, Space, Spot
from tests.examples import examples

MIB = 1 << 20
FEATURES = "refcount,xattr,unwritten,sparse,inline-data,indexed-dirs,extended-slotmap,discontig-bg,metaecc,backup-super"


def make(path: Path, size: int, block: int, cluster: int, slots: int = 2, features: str = FEATURES) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    journal = "size=4M" if cluster < MIB else "size=256M"
    options = ["-N", str(slots), "-b", str(block), "-C", str(cluster), "-J", journal, f"--fs-features={features}"]
    stack = ["--cluster-stack=o2cb", "--cluster-name=pve"]
    subprocess.run(["mkfs.ocfs2", "-q", "-x", "-F", *options, *stack, path], check=True, capture_output=True)


def debugfs(path: Path, command: str) -> str:
    return subprocess.run(["debugfs.ocfs2", "-R", command, path], check=True, capture_output=True, text=True).stdout


def inode_of(path: Path, name: str) -> int:
    found = re.search(r"Inode: ([0-9]+)", debugfs(path, f"stat //{name}"))
    assert found is not None
    return int(found[1])


def spots(reader: Reader, ranges: Sequence[Range]) -> list[Spot]:
    space = Space(parse_superblock(reader.read(0, READ_SIZE)), [reader.read, reader.read], ranges)
    found = list(space.spots(ranges))
    assert space.remarks == []
    return found


def total(found: Sequence[Spot], kind: Kind) -> int:
    return sum(spot.length for spot in found if spot.kind is kind)


@pytest.mark.parametrize(
    ("size", "block", "cluster", "slots", "features"),
    [
        (256 * MIB, 4096, 4096, 2, FEATURES),
        (3 << 30, 4096, 4096, 2, FEATURES),
        (9 << 30, 4096, 65536, 8, FEATURES),
        (40 << 30, 4096, MIB, 2, FEATURES),  # two groups of clusters
        (300 * MIB, 1024, 8192, 4, FEATURES),
        (300 * MIB, 512, 4096, 2, "nosparse,nounwritten,noinline-data,nobackup-super"),
    ],
)
def test_free_space_is_what_debugfs_counts(
    tmp_path: Path, size: int, block: int, cluster: int, slots: int, features: str
) -> None:
    path = tmp_path / "fs"
    make(path, size, block, cluster, slots, features)
    told = re.search(r"Bitmap Total: ([0-9]+)\s+Used: ([0-9]+)\s+Free: ([0-9]+)", debugfs(path, "stat //global_bitmap"))
    assert told is not None
    with Reader(str(path)) as reader:
        found = spots(reader, [(0, size)])
    assert total(found, Kind.FREE) == int(told[3]) * cluster
    assert total(found, Kind.METADATA) == int(told[2]) * cluster
    assert sum(spot.length for spot in found) == size
    with Reader(str(path)) as reader:
        used = list(Space(parse_superblock(reader.read(0, READ_SIZE)), [reader.read, reader.read], ()).in_use())
    assert sum(length for _, length in used) == int(told[2]) * cluster
    assert all(one[0] + one[1] <= other[0] for one, other in pairwise(used))
    if size <= 300 * MIB:  # that mkfs made a sound one; seconds for a large one
        assert subprocess.run(["fsck.ocfs2", "-fn", path], capture_output=True, check=False).returncode == 0


def test_each_part_of_the_file_system_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    make(path, 3 << 30, 4096, 4096)
    expected = {2 * 4096: "the superblock", 1 << 30: "a copy of the superblock"}
    for name in ("global_bitmap", "local_alloc:0001", "orphan_dir:0000"):
        expected[inode_of(path, name) * 4096] = f"the inode of {name}"
    for name in ("journal:0000", "journal:0001", "heartbeat", "slot_map"):
        extent = re.search(r"## Offset.*\n\s*0\s+0\s+([0-9]+)\s+([0-9]+)", debugfs(path, f"stat //{name}"))
        assert extent is not None
        expected[int(extent[2]) * 4096] = name
    ranges = [(at, 512) for at in sorted(expected)]
    with Reader(str(path)) as reader:
        found = spots(reader, ranges)
    assert {spot.start: spot.what for spot in found} == expected
    assert all(spot.kind is Kind.METADATA and spot.length == 512 for spot in found)


def test_what_has_no_name_is_told_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    make(path, 256 * MIB, 4096, 4096)
    group = 32256 * 4096
    with Reader(str(path)) as reader:
        found = {spot.start: spot for spot in spots(reader, [(5 * 4096, 4096), (group, 4096), (group + 4096, 4096)])}
    assert (found[5 * 4096].kind, found[5 * 4096].what) == (Kind.METADATA, "an inode")  # of the root folder
    assert (found[group].kind, found[group].what) == (Kind.METADATA, "a group of the allocator")
    assert found[group + 4096].kind is Kind.FREE


def test_behind_the_file_system_is_outside(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    make(path, 256 * MIB, 4096, 65536)
    with Reader(str(path)) as reader:
        found = spots(reader, [(256 * MIB - 4096, 8192), (300 * MIB, 512)])
    assert [(spot.start, spot.length, spot.kind) for spot in found[-2:]] == [
        (256 * MIB, 4096, Kind.OUTSIDE),
        (300 * MIB, 512, Kind.OUTSIDE),
    ]


def put(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def use(path: Path, cluster: int, count: int) -> None:
    """Set bits in the first group of clusters."""
    with path.open("r+b") as file:
        for bit in range(cluster, cluster + count):
            at = 3 * 4096 + 0x40 + bit // 8
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte | 1 << bit % 8]))


def first_free(path: Path) -> int:
    with Reader(str(path)) as reader:
        free = next(spot for spot in spots(reader, [(0, 64 * MIB)]) if spot.kind is Kind.FREE)
    return free.start // 4096


def test_clusters_that_a_node_keeps_count_as_free_but_where_metadata_is(tmp_path: Path) -> None:
    """local_alloc of slot 0, as debugfs.ocfs2 shows it: a window of 64 clusters, of which the first 8 are in use."""
    path = tmp_path / "fs"
    make(path, 256 * MIB, 4096, 4096)
    first = first_free(path)
    use(path, first, 64)
    inode = inode_of(path, "local_alloc:0000") * 4096
    put(path, inode + 0xB8, struct.pack("<II", 8, 64))
    put(path, inode + 0xC0, struct.pack("<I", first))
    put(path, inode + 0xD0, b"\xff")
    assert re.search(rf"Bitmap Total: 64\s+Used: 8.*\n.*Offset: {first}\b", debugfs(path, "stat //local_alloc:0000"))
    put(path, (first + 20) * 4096, b"EXBLK01\0".ljust(0x18, b"\0") + struct.pack("<Q", first + 20))
    put(path, (first + 21) * 4096, b"EXBLK01\0".ljust(0x18, b"\0") + struct.pack("<Q", first + 999))
    with Reader(str(path)) as reader:
        found = spots(reader, [(first * 4096, 65 * 4096)])
    got = {(spot.start // 4096 - first, spot.length // 4096): (spot.kind, spot.what) for spot in found}
    assert got == {
        (0, 8): (Kind.METADATA, ""),
        (8, 12): (Kind.KEPT, "local_alloc:0000"),
        (20, 1): (Kind.METADATA, "a list of extents"),
        (21, 43): (Kind.KEPT, "local_alloc:0000"),
        (64, 1): (Kind.FREE, ""),
    }


def test_clusters_in_a_truncate_log_count_as_free(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    make(path, 256 * MIB, 4096, 4096)
    first = first_free(path)
    use(path, first, 12)
    log = inode_of(path, "truncate_log:0001") * 4096
    put(path, log + 0xC2, struct.pack("<H", 2))
    put(path, log + 0xC8, struct.pack("<IIII", first, 4, first + 6, 2))
    assert re.search(rf"{first}\s+4\b", debugfs(path, "stat //truncate_log:0001"))
    with Reader(str(path)) as reader:
        found = spots(reader, [(first * 4096, 12 * 4096)])
    assert sorted((spot.start // 4096 - first, spot.length // 4096) for spot in found if spot.kind is Kind.FREED) == [
        (0, 4),
        (6, 2),
    ]
    assert total(found, Kind.METADATA) == 6 * 4096


def test_a_cluster_is_free_only_where_both_views_say_so(tmp_path: Path) -> None:
    path, newer = tmp_path / "fs", tmp_path / "newer"
    make(path, 256 * MIB, 4096, 4096)
    first = first_free(path)
    subprocess.run(["cp", "--sparse=always", path, newer], check=True)
    use(newer, first + 2, 1)
    ranges = [(first * 4096, 4 * 4096)]
    with Reader(str(path)) as disk, Reader(str(newer), buffered=True) as cache:
        superblock = parse_superblock(disk.read(0, READ_SIZE))
        for views in ([disk.read, cache.read], [cache.read, disk.read]):
            found = list(Space(superblock, views, ranges).spots(ranges))
            assert [spot.start // 4096 - first for spot in found if spot.kind is Kind.METADATA] == [2]


@pytest.mark.parametrize("what", ["signature", "number", "parent", "generation", "size"])
def test_a_broken_group_leaves_nothing_called_free(tmp_path: Path, what: str) -> None:
    path = tmp_path / "fs"
    make(path, 256 * MIB, 4096, 4096)
    first = first_free(path)
    at = {"signature": 0, "number": 0x28, "parent": 0x20, "generation": 0x10, "size": 0x0A}[what]
    put(path, 3 * 4096 + at, b"\xff\xff")
    with Reader(str(path)) as reader:
        space = Space(parse_superblock(reader.read(0, READ_SIZE)), [reader.read], [(first * 4096, 8192)])
        found = list(space.spots([(first * 4096, 8192)]))
    assert [spot.kind for spot in found] == [Kind.UNKNOWN]
    assert space.remarks


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ocfs2") / "fs"
    make(path, 64 * MIB, 4096, 4096)
    return path.read_bytes()


@settings(max_examples=examples(120), deadline=None)
@given(seed=st.integers(0, 2**32), places=st.integers(1, 40))
def test_a_hostile_file_system_ends_in_spots_or_in_one_error(small: bytes, seed: int, places: int) -> None:
    chance = random.Random(seed)
    changed = bytearray(small[: 25 * 4096])  # the rest is never written to: 64 MiB are not copied for each example
    for _ in range(places):
        block = chance.randint(3, 24)
        at = block * 4096 + chance.choice([0x2C, 0x50, 0x76, *range(0xB8, 0x120), chance.randrange(4096)])
        changed[at : at + 2] = chance.choice([b"\xff\xff", b"\0\0", chance.randbytes(2)])
    calls = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal calls
        calls += 1
        assert calls < 200_000, "it does not end"
        return bytes(changed[offset : offset + length]) + small[max(offset, len(changed)) : offset + length]

    ranges = [(0, 64 * MIB)]
    try:
        found = list(Space(parse_superblock(small[:READ_SIZE]), [read], ranges).spots(ranges))
    except BadBlock:
        return
    assert sum(spot.length for spot in found) == 64 * MIB


@given(st.binary(min_size=512, max_size=512), st.sampled_from([b"INODE01\0", b"EXBLK01\0", b"GROUP01\0", b"DXDIR01\0"]))
def test_any_block_is_parsed_or_bad(tail: bytes, signature: bytes) -> None:
    block = bytearray(signature + tail[8:])
    for number_at in (0x50, 0x18, 0x28):
        struct.pack_into("<Q", block, number_at, 7)
    try:
        if signature == b"INODE01\0":
            inode = inodes.parse_inode(bytes(block), 7)
            list(inodes.folder_entries(inodes.inline_data(inode)))
            for parse in (inodes.extent_list, inodes.chains, inodes.local_window, inodes.freed_clusters):
                parse(inode)
        elif signature == b"EXBLK01\0":
            inodes.parse_extent_block(bytes(block), 7)
        else:
            bitmap.parse_group(bytes(block), 7, 11, 0)
    except BadBlock:
        pass
    inodes.looks_like(bytes(block), 7)


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.data())
def test_runs_are_those_of_each_bit(bits: list[bool], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(bits)))
    used = sum(1 << at for at, bit in enumerate(bits) if bit)
    found = list(bitmap.runs(used, first, len(bits)))
    assert [in_use for _, length, in_use in found for _ in range(length)] == bits[first:]
    assert all(one[2] != two[2] for one, two in pairwise(found))


def features_of(space: Space, slot: int) -> dict[str, int] | None:
    return journal.features(space.start_of(f"journal:{slot:04d}", journal.SIZE))


def test_the_features_of_a_journal_are_those_that_fsck_judges(tmp_path: Path) -> None:
    """Read from the disk by the doctor; of one that fsck.ocfs2 does not know it says that it is unknown."""
    path = tmp_path / "disk"
    make(path, 300 * MIB, 4096, 65536)
    reader = Reader(str(path))
    space = Space(parse_superblock(reader.read(0, READ_SIZE)), [reader.read], ())
    assert [features_of(space, slot) for slot in range(3)] == [{"incompat": 0, "ro_compat": 0}] * 2 + [None]
    start = space.start_of("journal:0001", 64)
    assert start is not None and start[:4] == b"\xc0\x3b\x39\x98"
    with path.open("r+b") as file:
        at = path.read_bytes().rindex(start)
        file.seek(at + 0x28)
        file.write(struct.pack(">I", 0x4))
    space = Space(parse_superblock(reader.read(0, READ_SIZE)), [Reader(str(path)).read], ())
    assert features_of(space, 1) == {"incompat": 4, "ro_compat": 0}
    said = subprocess.run(["fsck.ocfs2", "-fyF", path], capture_output=True, text=True, input="y\n")
    assert "unknown features" in said.stdout + said.stderr
