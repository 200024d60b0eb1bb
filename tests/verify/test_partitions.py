"""Partition tables as sfdisk makes and reads them, file systems as their own tools make them, and tables that lie."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.verify.partitions import Layout, read_layout
from pvedrbdstor.verify.signatures import Signature, probe
from tests.examples import examples

MIB = 1 << 20
_RUN = {"check": True, "capture_output": True, "text": True}


def reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return read


def of_bytes(data: bytes) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 1 << 17
        return data[offset : offset + length]

    return read


def made(path: Path, script: str, size: int = 512 * MIB) -> Layout:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "-q", path], input=script, **_RUN)  # type: ignore[call-overload]
    return read_layout(reader(path), size)


def by_sfdisk(path: Path, extended: tuple[str, ...] = ("5", "f", "85")) -> list[tuple[int, int, int, str]]:
    """(number, start, length, name) of each partition that is not an extended one; in bytes."""
    told = json.loads(subprocess.run(["sfdisk", "--json", path], **_RUN).stdout)["partitiontable"]  # type: ignore[call-overload]
    return [
        (int(entry["node"].removeprefix(str(path))), entry["start"] * 512, entry["size"] * 512, entry.get("name", ""))
        for entry in told["partitions"]
        if told["label"] == "gpt" or entry["type"] not in extended
    ]


def as_told(layout: Layout) -> list[tuple[int, int, int, str]]:
    return [(it.number, it.start, it.length, it.name) for it in layout.partitions]


@pytest.mark.parametrize("seed", range(8))
def test_gpt_is_read_as_sfdisk_reads_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    numbers = sorted(chance.sample(range(1, 128), chance.randint(1, 20)))
    lines = [f'{number}: size={chance.randint(1, 20)}MiB, name="part {number} äö"' for number in numbers]
    path = tmp_path / "disk"
    layout = made(path, "label: gpt\n" + "\n".join(lines) + "\n")
    assert layout.kind == "gpt"
    assert as_told(layout) == by_sfdisk(path)
    assert len(layout.partitions) == len(numbers)


@pytest.mark.parametrize("seed", range(8))
def test_mbr_with_logical_partitions_is_read_as_sfdisk_reads_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    primary = chance.randint(0, 3)
    lines = ["size=10MiB, type=83"] * primary + [f"size=300MiB, type={chance.choice('5f')}"] * chance.randint(0, 1)
    if len(lines) > primary:
        lines += ["size=5MiB, type=82"] * (4 - len(lines)) + [
            f"size={chance.randint(1, 9)}MiB" for _ in range(chance.randint(1, 12))
        ]
    path = tmp_path / "disk"
    layout = made(path, "label: dos\n" + "\n".join(lines) + "\n")
    expected = by_sfdisk(path) if lines else []
    assert sorted(as_told(layout)) == sorted(expected)
    assert layout.kind == ("mbr" if lines else "")


def test_swap_is_known_by_its_type(tmp_path: Path) -> None:
    assert [it.swap for it in made(tmp_path / "a", "label: gpt\nsize=9MiB,type=S\nsize=9MiB\n").partitions] == [
        True,
        False,
    ]
    assert [it.swap for it in made(tmp_path / "b", "label: dos\nsize=9MiB,type=82\nsize=9MiB\n").partitions] == [
        True,
        False,
    ]


@pytest.mark.parametrize(("at", "length"), [(512, 33 * 512), (512, 8), (512 + 92 - 4, 4), (1024 + 32, 8)])
def test_the_copy_at_the_end_serves_where_the_first_gpt_is_broken(tmp_path: Path, at: int, length: int) -> None:
    path = tmp_path / "disk"
    whole = made(path, "label: gpt\nsize=9MiB\nsize=20MiB, name=root\n")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(length))
    broken = read_layout(reader(path), 512 * MIB)
    assert (broken.kind, broken.partitions) == ("gpt", whole.partitions)


@pytest.mark.parametrize("table", ["first", "copy"])
def test_tables_are_known_as_such(tmp_path: Path, table: str) -> None:
    layout = made(tmp_path / "disk", "label: gpt\nsize=9MiB\n")
    places = {"first": [0, 512, 1024, 33 * 512], "copy": [512 * MIB - 512, 512 * MIB - 33 * 512]}[table]
    for at in places:
        assert any(start <= at < start + length for start, length in layout.areas), at
    assert not any(start <= MIB < start + length for start, length in layout.areas)


def test_gpt_of_4096_byte_sectors(tmp_path: Path) -> None:
    """sfdisk makes none of them in a file, so this one is made by hand, after the UEFI specification."""
    size, sector = 64 * MIB, 4096
    entry = struct.pack(
        "<16s16sQQQ72s", b"\1" * 16, b"\2" * 16, 256, 511, 0, "data".encode("utf-16-le").ljust(72, b"\0")
    )
    entries = entry.ljust(128 * 128, b"\0")
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII",
        b"EFI PART",
        0x10000,
        92,
        0,
        0,
        1,
        size // sector - 1,
        6,
        9,
        b"\3" * 16,
        2,
        128,
        128,
        zlib.crc32(entries),
    )
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    mbr = bytes(446) + struct.pack("<B3xB3xII", 0, 0xEE, 1, 0xFFFFFFFF) + bytes(48) + b"\x55\xaa"
    disk = bytearray(size)
    disk[0:512], disk[sector : sector + 92], disk[2 * sector : 2 * sector + len(entries)] = mbr, head, entries
    layout = read_layout(of_bytes(bytes(disk)), size)
    assert as_told(layout) == [(1, MIB, MIB, "data")]


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_a_hostile_table_is_bounded_and_stays_inside_the_disk(data: st.DataObject) -> None:
    """Good tables with bytes that lie, their checksums made good again half of the time."""
    size = data.draw(st.sampled_from([4096, 65536, 2 * MIB]))
    disk = bytearray(size)
    disk[510:512] = b"\x55\xaa"
    for index in range(4):
        kind = data.draw(st.sampled_from([0, 0x83, 0x05, 0x0F, 0xEE, 0x82]))
        fields = (
            data.draw(st.sampled_from([0, 0x80])),
            kind,
            data.draw(st.integers(0, 40)),
            data.draw(st.integers(0, 2**32 - 1)),
        )
        struct.pack_into("<B3xB3xII", disk, 446 + 16 * index, *fields)
    for at in range(1, 12):  # extended partitions that point anywhere, also to themselves
        offset = at * 512
        if offset + 512 <= size and data.draw(st.booleans()):
            disk[offset + 510 : offset + 512] = b"\x55\xaa"
            struct.pack_into(
                "<B3xB3xII", disk, offset + 446, 0, 0x83, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 99))
            )
            struct.pack_into(
                "<B3xB3xII", disk, offset + 462, 0, 0x05, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 99))
            )
    if data.draw(st.booleans()):
        count, each = (
            data.draw(st.sampled_from([0, 1, 128, 2**32 - 1])),
            data.draw(st.sampled_from([0, 1, 128, 256, 2**32 - 8])),
        )
        table = data.draw(st.integers(0, 2**64 - 1) | st.integers(0, 8))
        entries = bytes(disk[table * 512 :][: min(count * each, 1 << 17)]) if table < 9 else b""
        head = struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x10000,
            data.draw(st.sampled_from([0, 92, 512, 2**31])),
            0,
            0,
            1,
            9,
            0,
            0,
            b"\3" * 16,
            table,
            count,
            each,
            zlib.crc32(entries),
        )
        head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
        disk[512 : 512 + len(head)] = head
    layout = read_layout(of_bytes(bytes(disk)), size)
    assert len(layout.partitions) <= 1024 and len(layout.areas) <= 200
    assert all(it.start > 0 and it.length > 0 and it.start + it.length <= size for it in layout.partitions)
    assert all(start >= 0 and length > 0 for start, length in layout.areas)
    assert layout.kind == "gpt" or len(set(layout.areas)) == len(layout.areas)


def test_an_extended_partition_that_contains_itself_is_seen_once() -> None:
    disk = bytearray(64 * 512)
    disk[510:512] = disk[8 * 512 + 510 : 9 * 512] = b"\x55\xaa"
    struct.pack_into("<B3xB3xII", disk, 446, 0, 0x05, 8, 50)
    struct.pack_into("<B3xB3xII", disk, 8 * 512 + 446, 0, 0x83, 2, 4)
    struct.pack_into("<B3xB3xII", disk, 8 * 512 + 462, 0, 0x05, 0, 50)
    assert as_told(read_layout(of_bytes(bytes(disk)), len(disk))) == [(5, 10 * 512, 4 * 512, "")]


@given(st.binary(max_size=2048))
def test_any_bytes_are_a_layout_and_a_signature_or_none(data: bytes) -> None:
    read_layout(of_bytes(data), len(data))
    probe(of_bytes(data))


# --- what is in them -----------------------------------------------------------------------------------------------

_MADE = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-L", "root"], "root"),
    "ext3": (["mkfs.ext3", "-q", "-F", "-L", "old"], "old"),
    "ext2": (["mkfs.ext2", "-q", "-F", "-L", "boot"], "boot"),
    "xfs": (["mkfs.xfs", "-q", "-f", "-L", "data"], "data"),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-L", "snaps"], "snaps"),
    "vfat": (["mkfs.vfat", "-F", "32", "-n", "EFI"], "EFI"),
    "ntfs": (["mkfs.ntfs", "-q", "-f", "-F"], ""),
    "swap": (["mkswap", "-q", "-L", "sw"], "sw"),
    "ocfs2": (["mkfs.ocfs2", "-q", "-x", "-F", "-M", "local", "-J", "size=4M"], ""),
}


@pytest.mark.parametrize("kind", _MADE)
def test_file_systems_are_named_as_blkid_names_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(320 * MIB)
    command, name = _MADE[kind]
    subprocess.run([*command, path], check=True, capture_output=True)
    told = subprocess.run(["blkid", "-p", "-o", "value", "-s", "TYPE", path], **_RUN).stdout.strip()  # type: ignore[call-overload]
    assert probe(reader(path)) == Signature(told, name)
    assert told == kind


@pytest.mark.parametrize("magic", [b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"])
def test_swap_with_a_hibernated_guest_is_told_as_blkid_tells_it(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "swap"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkswap", "-q", path], check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(4086)
        file.write(magic)
    told = subprocess.run(["blkid", "-p", "-o", "value", "-s", "TYPE", path], **_RUN).stdout.strip()  # type: ignore[call-overload]
    assert (probe(reader(path)), told) == (Signature("swap", hibernated=True), "swsuspend")


@pytest.mark.parametrize(
    ("at", "magic", "kind"),
    [
        (0, b"LUKS\xba\xbe", "crypto_LUKS"),
        (512, b"LABELONE", "LVM2_member"),
        (4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    ],
)
def test_containers_are_known(at: int, magic: bytes, kind: str) -> None:
    assert probe(of_bytes(bytes(at) + magic.ljust(8192, b"\0"))) == Signature(kind)


def test_a_label_can_do_nothing_to_a_terminal() -> None:
    block = bytearray(8192)
    block[1080:1082] = b"\x53\xef"
    block[1144:1160] = b'\x1b[2J"\xe2\x80\xae\xffabc'.ljust(16, b"\0")
    found = probe(of_bytes(bytes(block)))
    assert found is not None and found.label == "?[2J'??abc"
