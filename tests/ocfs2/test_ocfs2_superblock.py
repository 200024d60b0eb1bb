"""The superblock parser, on file systems that mkfs.ocfs2 makes and on bytes that lie."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import NotOcfs2
from pvedrbdstor.ocfs2.superblock import READ_SIZE, Superblock, parse_superblock

UUID = "9C3630FD942247D6BFAFD86AB5D8CCBB"
MIB = 1 << 20


def make(path: Path, *options: str, size: int = 256 * MIB) -> Superblock:
    """mkfs.ocfs2 on a sparse file, then what the parser says of it."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(
        ["mkfs.ocfs2", "-q", "-x", "-F", "-U", UUID, "-J", "size=16M", *options, path], check=True, capture_output=True
    )
    with path.open("rb") as file:
        return parse_superblock(file.read(READ_SIZE), path.name)


@pytest.mark.parametrize("block", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("cluster", [4096, 65536, MIB])
def test_sizes_label_and_uuid_are_those_of_mkfs(tmp_path: Path, block: int, cluster: int) -> None:
    found = make(tmp_path / "fs", "-M", "local", "-L", "vms", "-b", str(block), "-C", str(cluster))
    assert (found.block_size, found.cluster_size, found.size) == (block, cluster, 256 * MIB)
    assert (found.label, found.uuid) == ("vms", UUID)
    assert found.local
    assert (found.stack, found.cluster) == ("", "")


@pytest.mark.parametrize("refcount", [True, False])
def test_whether_files_can_be_reflinked(tmp_path: Path, refcount: bool) -> None:
    feature = "refcount" if refcount else "norefcount"
    found = make(tmp_path / "fs", "-M", "local", "--fs-features", f"{feature},xattr,unwritten,sparse")
    assert found.can_reflink is refcount
    assert {"xattr", "unwritten", "sparse"} <= found.features
    assert not any(word.startswith("unknown") for word in found.features)


def test_a_cluster_file_system_names_its_stack_cluster_and_slots(tmp_path: Path) -> None:
    found = make(tmp_path / "fs", "-N", "4", "--cluster-stack=o2cb", "--cluster-name=pve")
    assert (found.stack, found.cluster, found.slots, found.local) == ("o2cb", "pve", 4, False)


def test_features_are_those_debugfs_names(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    found = make(path, "-M", "local", "--fs-features", "metaecc,discontig-bg,indexed-dirs,inline-data")
    told = subprocess.run(["debugfs.ocfs2", "-R", "stats", path], check=True, capture_output=True, text=True).stdout
    named = {
        word
        for line in told.splitlines()
        if line.lstrip().startswith("Feature")
        for word in line.split(":", 1)[1].split()[1:]
    }
    assert found.features == named


def superblock(**changes: int) -> bytes:
    """A superblock in the place for 4 KiB blocks: offsets as in struct ocfs2_dinode and ocfs2_super_block."""
    offsets = {
        "blkno": (0x50, "<Q"),
        "block_bits": (0xF8, "<I"),
        "cluster_bits": (0xFC, "<I"),
        "incompat": (0xE0, "<I"),
    }
    block = bytearray(4096)
    block[:6] = b"OCFSV2"
    for name, value in {"blkno": 2, "block_bits": 12, "cluster_bits": 20, **changes}.items():
        offset, form = offsets[name]
        struct.pack_into(form, block, offset, value)
    return bytes(8192) + bytes(block)


def test_a_feature_without_a_word_here_is_reported_as_unknown() -> None:
    assert parse_superblock(superblock(incompat=1 << 31)).features == {"unknown-incompat-0x80000000"}


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "no superblock"),
        (bytes(READ_SIZE), "no superblock"),
        (superblock()[:-1], "no superblock"),
        (superblock(blkno=3), "claims to be block 3"),
        (superblock(block_bits=11), r"blocks of 2\^11 bytes"),
        (superblock(block_bits=0xFFFFFFFF), "blocks of"),
        (superblock(cluster_bits=11), r"clusters of 2\^11 bytes"),
        (superblock(cluster_bits=0xFFFFFFFF), "clusters of"),
    ],
)
def test_what_is_no_superblock_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(NotOcfs2, match=detail):
        parse_superblock(data, "/dev/drbd0")


@given(st.binary(min_size=200, max_size=400), st.sampled_from([9, 10, 11, 12]))
def test_arbitrary_bytes_give_a_superblock_or_not_ocfs2(tail: bytes, bits: int) -> None:
    block = bytearray((b"OCFSV2\0\0" + tail).ljust(1 << bits, b"\0")[: 1 << bits])
    struct.pack_into("<Q", block, 0x50, 2)
    struct.pack_into("<I", block, 0xF8, bits)
    try:
        found = parse_superblock(bytes(2 << bits) + bytes(block))
        assert (found.block_size, len(found.uuid)) == (1 << bits, 32)
    except NotOcfs2 as error:
        assert "clusters" in error.message
