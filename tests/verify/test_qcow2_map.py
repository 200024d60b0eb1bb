"""From places in a qcow2 file to places of the guest's disk, against `qemu-img map`, and on tables that lie."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.mirror.extents import Piece
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.image import Nature, regions_of
from pvedrbdstor.verify.qcow2_map import Map
from pvedrbdstor.volumes.qcow2 import Header, read_header
from tests.examples import examples
from tests.verify.disks import MIB, ROOT, SWAP, partitioned, write


def convert(source: Path, target: Path, *options: str) -> None:
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, source, target], check=True)


def header_of(path: Path) -> Header:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd, path.name)
    finally:
        os.close(fd)


def map_by_qemu(path: Path) -> list[tuple[int, int, int]]:
    """(place of the guest's disk, place in the file, length) of what has one."""
    told = subprocess.run(["qemu-img", "map", "--output=json", path], check=True, capture_output=True, text=True).stdout
    return [(it["start"], it["offset"], it["length"]) for it in json.loads(told) if it["data"] and "offset" in it]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "disk.raw"
    partitioned(path)
    chance = random.Random(1)
    for _ in range(40):
        write(path, chance.randrange(12 * MIB, 90 * MIB) // 4096 * 4096, chance.randbytes(4096))
    return path


@pytest.fixture
def disk(made: Path, tmp_path: Path) -> Path:
    """Of the test's own: what partitions it waits for the disk."""
    path = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", made, path], check=True)
    return path


@pytest.mark.parametrize(
    "options",
    [[], ["-o", "cluster_size=4k"], ["-o", "cluster_size=2M"], ["-o", "extended_l2=on"], ["-o", "compat=0.10"]],
)
def test_places_are_those_of_qemu_img(tmp_path: Path, disk: Path, options: list[str]) -> None:
    path = tmp_path / "disk.qcow2"
    convert(disk, path, *options)
    header = header_of(path)
    with Reader(str(path)) as reader:
        table = Map(reader.read, header)
        places = list(table.places([(0, path.stat().st_size)]))
    got = {(it.guest + at, it.start + at) for it in places if it.guest is not None for at in range(0, it.length, 512)}
    expected = {(guest + at, start + at) for guest, start, length in map_by_qemu(path) for at in range(0, length, 512)}
    assert expected <= got
    clusters = {start // header.cluster_size for _, start in expected}
    assert {
        start // header.cluster_size for _, start in got
    } == clusters  # and nothing else but the rest of such clusters
    assert any(it.guest is None and it.start == 0 for it in places)


def test_a_part_of_what_is_compressed_stands_for_the_whole_cluster(tmp_path: Path, disk: Path) -> None:
    path = tmp_path / "disk.qcow2"
    convert(disk, path, "-c")
    ranges = [(at, 5) for at in range(7, path.stat().st_size, 700)]
    with Reader(str(path)) as reader:
        whole = [it for it in Map(reader.read, header_of(path)).places(ranges) if it.whole]
    assert whole and all(it.guest is not None and it.guest % 65536 == 0 for it in whole)


@pytest.mark.parametrize("options", [[], ["-c"], ["-o", "cluster_size=4k"], ["-o", "extended_l2=on"]])
def test_the_guests_disk_reads_as_it_is(tmp_path: Path, disk: Path, options: list[str]) -> None:
    path = tmp_path / "disk.qcow2"
    convert(disk, path, *options)
    content = disk.read_bytes()
    chance = random.Random(2)
    with Reader(str(path)) as reader:
        table = Map(reader.read, header_of(path))
        for _ in range(200):
            at, length = chance.randrange(len(content)), chance.choice([1, 512, 70_000, 1 << 17])
            assert table.read(at, length) == content[at : at + length]


def test_parts_of_a_cluster_that_are_not_in_the_file_read_as_zeroes(tmp_path: Path) -> None:
    """With extended entries a cluster may be there for one of its 32 parts alone, whatever lies in the others."""
    path = tmp_path / "disk.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", path, "64M"]
    subprocess.run(command, check=True)
    subprocess.run(["qemu-io", "-c", "write -P 0x61 8k 4k", path], check=True, capture_output=True)
    with Reader(str(path)) as reader:
        start = next(it.start for it in Map(reader.read, header_of(path)).places([(0, 1 << 30)]) if it.guest == 0)
    os.truncate(path, max(path.stat().st_size, start + 131072))
    write(path, start, b"x" * 8192)
    write(path, start + 12288, b"x" * 4096)
    with Reader(str(path)) as reader:
        table = Map(reader.read, header_of(path))
        assert table.read(0, 20480) == bytes(8192) + b"a" * 4096 + bytes(8192)
        assert table.read(8193, 10) == b"a" * 10
        assert table.read(12287, 2) == b"a\0"


@pytest.mark.parametrize("options", [[], ["-c"]])
def test_a_place_in_the_file_is_one_of_a_partition(tmp_path: Path, disk: Path, options: list[str]) -> None:
    write(disk, SWAP, b"s" * 65536)
    write(disk, ROOT)
    path = tmp_path / "disk.qcow2"
    convert(disk, path, *options)
    with Reader(str(path)) as reader:
        size = path.stat().st_size
        places = list(Map(reader.read, header_of(path)).places([(0, size)]))
    wanted, skip = {"swap": SWAP, "ext4": ROOT}, 10 if options else 0
    pieces = []
    for at in wanted.values():
        place = next(it for it in places if it.guest is not None and it.guest // 65536 == at // 65536)
        pieces.append(Piece(place.start + skip, 7 * MIB + place.start + skip, 512))
    fd = os.open(path, os.O_RDONLY)
    try:
        found = regions_of(fd, path.name, size, "qcow2", [*pieces, Piece(0, 7 * MIB, 512)])
    finally:
        os.close(fd)
    told = {region.holds or region.text: (region.nature, part.device - part.offset) for part, region in found}
    told.pop(
        "the guest's partition table (GPT)", None
    )  # compressed clusters share sectors, and this one lies beside swap
    assert told == {
        "swap": (Nature.SWAP, 7 * MIB),
        "ext4": (Nature.DATA, 7 * MIB),
        "the image's own tables (qcow2)": (Nature.DATA, 7 * MIB),
    }


def test_what_is_in_no_use_now_is_unknown(tmp_path: Path, disk: Path) -> None:
    path = tmp_path / "disk.qcow2"
    convert(disk, path)
    write(path, path.stat().st_size)  # grows it
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    try:
        found = regions_of(fd, path.name, size, "qcow2", [Piece(size - 4096, 0, 4096)])
    finally:
        os.close(fd)
    assert [(region.nature, part.length) for part, region in found] == [(Nature.UNKNOWN, 4096)]


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.raw", "disk.vmdk"])
def test_an_image_that_is_none_is_told_as_unknown(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"QFI\xfb" + b"\xff" * 8188)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = regions_of(fd, name, 8192, name.rpartition(".")[2], [Piece(0, 0, 4096)])
    finally:
        os.close(fd)
    assert [(region.nature, part.length) for part, region in found] == [(Nature.UNKNOWN, 4096)]


def test_an_image_with_endless_tables_is_given_up() -> None:
    """4 million entries that all name another table, as an L1 table of 32 MiB can."""
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if offset < 64 << 20:
            return struct.pack(f">{length // 8}Q", *range(offset << 20, (offset + length // 8) << 20, 1 << 20))
        return bytes(length)

    header = Header(3, 1 << 60, 21, None, None, None, 0, "", 4 << 20, 1 << 21, 0, 0)
    table = Map(read, header)
    assert list(table.places([(1 << 50, 4096)])) == []
    assert not table.complete
    assert reads < 20_000


@settings(max_examples=examples(30), deadline=None)
@given(st.data())
def test_hostile_tables_end(data: st.DataObject) -> None:
    """L1 and L2 entries that point anywhere, also at each other."""
    size = 1 << 18
    disk = bytearray(size)
    entries = st.sampled_from([0, 1, 1 << 62, (1 << 62) | 70000, 2**63 | 4096, 2**64 - 1, 4096, 8192, 2**55])
    for at in range(4096, 16384, 8):
        struct.pack_into(">Q", disk, at, data.draw(entries) if at % 512 < 64 else 4096)
    header = Header(3, 1 << 40, 12, None, None, None, data.draw(st.sampled_from([0, 8, 16])), "", 40, 4096, 0, 0)

    def read(offset: int, length: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 1 << 17
        return bytes(disk[offset : offset + length])

    table = Map(read, header)
    places = list(table.places([(0, 65536)]))
    assert all(it.start >= 0 and it.start + it.length <= 65536 for it in places)
    assert len(table.read(data.draw(st.integers(0, 1 << 31)), 4096)) == 4096
