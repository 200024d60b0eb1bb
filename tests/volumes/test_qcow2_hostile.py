"""qcow2 headers and snapshot tables that lie: one plain error, in little time and memory."""

from __future__ import annotations

import os
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes import qcow2

CLUSTER = 65536
FIELDS = {  # offset, struct format: docs/interop/qcow2.txt
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_length": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "encryption": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcount_offset": (48, ">Q"),
    "refcount_clusters": (56, ">I"),
    "snapshot_count": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
}


def image(extensions: bytes = b"", **changes: int) -> bytearray:
    """The first cluster of a version 3 image of 1 MiB with 64 KiB clusters, then `changes` to its fields."""
    data = bytearray(CLUSTER)
    data[:4] = qcow2.MAGIC
    values = {
        "version": 3,
        "cluster_bits": 16,
        "size": 1 << 20,
        "l1_size": 1,
        "l1_offset": 3 * CLUSTER,
        "refcount_offset": CLUSTER,
        "refcount_clusters": 1,
        "refcount_order": 4,
        "header_length": 104,
        **changes,
    }
    for name, value in values.items():
        offset, form = FIELDS[name]
        struct.pack_into(form, data, offset, value)
    data[104 : 104 + len(extensions)] = extensions
    return data


def entry(name: bytes = b"snap", extra: bytes = b"\0" * 24, **lies: int) -> bytes:
    """One entry of a snapshot table, padded to 8 bytes."""
    fixed = struct.pack(
        ">QIHHIIQII",
        0,
        1,
        lies.get("id_length", 1),
        lies.get("name_length", len(name)),
        1700000000,
        0,
        0,
        0,
        lies.get("extra_length", len(extra)),
    )
    data = fixed + extra + b"1" + name
    return data + b"\0" * (-len(data) % 8)


def on_file(data: bytes, action: Callable[[int], object]) -> object:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return action(file.fileno())


def read_all(fd: int) -> object:
    header = qcow2.read_header(fd, "v")
    return header, qcow2.read_snapshots(fd, header, "v")


def test_the_image_the_lies_start_from_is_good() -> None:
    assert qcow2.parse_header(bytes(image())).size == 1 << 20
    assert qcow2.parse_header(bytes(image(encryption=2))).encryption == "luks"
    assert qcow2.parse_header(bytes(image(incompatible=2))).corrupt


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"cluster_bits": 8}, r"2\^8 bytes"),
        ({"cluster_bits": 22}, r"2\^22 bytes"),
        ({"cluster_bits": 0xFFFFFFFF}, "clusters"),
        ({"encryption": 3}, "encryption method 3"),
        ({"incompatible": 1 << 5}, "features that are unknown here .0x20"),
        ({"refcount_order": 7}, "reference counts"),
        ({"refcount_clusters": 0}, "no reference counts"),
        ({"refcount_clusters": 0xFFFFFFFF}, "refcount table claims"),
        ({"refcount_offset": 1}, "refcount table cannot lie"),
        ({"header_length": 103}, "length of 103"),
        ({"header_length": CLUSTER + 1}, "length of 65537"),
        ({"backing_offset": CLUSTER + 1, "backing_length": 1}, "outside the first cluster"),
        ({"backing_offset": 200, "backing_length": 1024}, r"too long \(1024 bytes\)"),
        ({"backing_offset": CLUSTER - 4, "backing_length": 5}, r"too long \(5 bytes\)"),
        ({"l1_size": 0}, "too small for a disk of 1048576 bytes"),
        ({"size": (1 << 64) - 1}, "too small for a disk"),
        ({"l1_size": 0xFFFFFFFF}, "L1 table claims"),
        ({"l1_offset": 512}, "L1 table cannot lie at offset 512"),
        ({"l1_offset": 1 << 63}, "L1 table cannot lie"),
        ({"snapshot_count": 65537}, "snapshot table claims"),
        ({"snapshots_offset": 8}, "snapshot table cannot lie"),
    ],
)
def test_a_field_that_lies_is_named(changes: dict[str, int], detail: str) -> None:
    with pytest.raises(BadImage, match=detail):
        qcow2.parse_header(bytes(image(**changes)))


@pytest.mark.parametrize(
    ("extensions", "detail"),
    [
        (struct.pack(">II", 0x44415441, CLUSTER), "larger than the header"),
        (struct.pack(">II", 0x44415441, 1024), "too long"),
        (struct.pack(">II", 0xE2792ACA, 16), "too long"),
        (struct.pack(">II", 7, 0) * 1025, "more than 1024"),
    ],
)
def test_a_header_extension_that_lies_is_refused(extensions: bytes, detail: str) -> None:
    with pytest.raises(BadImage, match=detail):
        qcow2.parse_header(bytes(image(extensions)))


def test_unknown_extensions_are_skipped_and_names_end_at_nul() -> None:
    extensions = struct.pack(">II", 0x1234, 3) + b"abc\0\0\0\0\0" + struct.pack(">II", 0x44415441, 6) + b"x.raw\0\0\0"
    header = qcow2.parse_header(bytes(image(extensions)))
    assert header.data_file == "x.raw"


def test_absent_magic_is_told_from_a_broken_image() -> None:
    assert not qcow2.is_qcow2(b"")
    assert not qcow2.is_qcow2(b"\0" * 4096)
    assert qcow2.is_qcow2(qcow2.MAGIC)
    with pytest.raises(BadImage, match="magic number"):
        qcow2.parse_header(b"\0" * 4096)


@pytest.mark.parametrize(
    ("table", "count", "detail"),
    [
        (entry(extra=b"", extra_length=1025), 1, "1025 bytes of extra data"),
        (entry(name_length=65535), 1, "cut short"),
        (entry(id_length=65535), 1, "cut short"),
        (entry(), 2, "cut short"),
        (b"", 1, "cut short"),
        (entry(name=b"n" * 60000) * 80, 80, "larger than 4 MiB"),
    ],
)
def test_a_snapshot_table_that_lies_is_refused(table: bytes, count: int, detail: str) -> None:
    data = bytes(image(snapshot_count=count, snapshots_offset=4 * CLUSTER)).ljust(4 * CLUSTER, b"\0") + table
    with pytest.raises(BadImage, match=detail):
        on_file(data, read_all)


def test_old_entries_without_extra_data_take_the_size_of_the_disk() -> None:
    data = bytes(image(snapshot_count=1, snapshots_offset=4 * CLUSTER)).ljust(4 * CLUSTER, b"\0") + entry(extra=b"")
    _, (snapshot,) = on_file(data, read_all)  # type: ignore[misc]
    assert snapshot == qcow2.Snapshot("1", "snap", 1700000000, 1 << 20, 0)


def test_the_largest_possible_claims_cost_little_time_and_memory() -> None:
    """A sparse file of zeros after the header: 65536 snapshots with empty names, and all tables at their limits."""
    data = image(snapshot_count=65536, snapshots_offset=64 << 20, l1_size=(32 << 20) // 8, refcount_clusters=128)

    def measure(fd: int) -> tuple[float, int]:
        os.ftruncate(fd, 128 << 20)
        started = time.monotonic()
        header = qcow2.read_header(fd, "v")
        tracemalloc.start()
        try:
            qcow2.read_snapshots(fd, header, "v")
            return time.monotonic() - started, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    seconds, peak = on_file(bytes(data), measure)  # type: ignore[misc]
    assert seconds < 10
    assert peak < 16 << 20


@given(st.binary(max_size=4096))
def test_arbitrary_bytes_give_a_header_or_bad_image(tail: bytes) -> None:
    for data in (tail, qcow2.MAGIC + tail, qcow2.MAGIC + b"\0\0\0\3" + tail):
        try:
            qcow2.parse_header(data)
        except BadImage as error:
            assert "qcow2" in error.message


@given(
    changes=st.dictionaries(
        st.integers(0, 600), st.sampled_from([0, 1, 2, 8, 16, 0x7F, 0x80, 0xFF]), min_size=1, max_size=8
    ),
    length=st.none() | st.integers(0, 5 * CLUSTER),
    table=st.binary(max_size=400),
)
def test_a_mutated_image_reads_or_is_bad_image(changes: dict[int, int], length: int | None, table: bytes) -> None:
    extensions = struct.pack(">II", 0xE2792ACA, 5) + b"qcow2\0\0\0" + struct.pack(">II", 0x44415441, 8) + b"data.raw"
    data = image(extensions, backing_offset=300, backing_length=9, snapshot_count=3, snapshots_offset=4 * CLUSTER)
    for offset, value in changes.items():
        data[offset] = value
    whole = (bytes(data).ljust(4 * CLUSTER, b"\0") + table)[:length]
    try:
        on_file(whole, read_all)
    except BadImage as error:
        assert error.message.endswith(".")
