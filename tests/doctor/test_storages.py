"""What the doctor reads of a file system's map of clusters, of one that the real mkfs.ocfs2 has made."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from pvedrbdstor.doctor.storages import ENOUGH, _largest_hole
from pvedrbdstor.drbd.metadata import merged
from pvedrbdstor.ocfs2.superblock import READ_SIZE, parse_superblock
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.space import Space

SIZE = 1 << 30
GROUP = 32256 * 4096  # bytes of a group of clusters, of 4 KiB each
FREE_BITS = 12  # bg_free_bits_count in struct ocfs2_group_desc


@pytest.fixture
def file_system(tmp_path: Path) -> Path:
    path = tmp_path / "fs"
    path.touch()
    os.truncate(path, SIZE)
    words = ["mkfs.ocfs2", "-F", "-q", "-x", "-M", "local", "-N", "1", "-b", "4K", "-C", "4K", "-J", "size=16M"]
    subprocess.run([*words, path], check=True, capture_output=True)
    return path


def looked_at(path: Path) -> dict[str, object]:
    with Reader(str(path)) as reader:
        superblock = parse_superblock(reader.read(0, READ_SIZE))
        return _largest_hole(Space(superblock, [reader.read], ()), superblock.size)


def test_the_largest_piece_of_a_new_file_system_is_a_group_of_clusters(file_system: Path) -> None:
    found = looked_at(file_system)
    largest = found["largest_free"]
    assert isinstance(largest, int) and GROUP // 2 < largest < ENOUGH
    assert found["map_read"] is True and "problem" not in found


def test_a_group_that_does_not_add_up_is_a_problem(file_system: Path) -> None:
    """It counts as used, which by itself would only look like a fuller disk."""
    with file_system.open("r+b") as disk:
        disk.seek(2 * GROUP + FREE_BITS)
        disk.write(b"\xff\xff")
    assert "does not add up" in str(looked_at(file_system)["problem"])


def test_a_group_that_cannot_be_read_is_no_damage_of_the_file_system(file_system: Path) -> None:
    """For that fsck.ocfs2 is told, which must not be run on a disk that fails."""
    with Reader(str(file_system)) as reader:

        def read(start: int, length: int) -> bytes:
            if start >= 2 * GROUP:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(file_system))
            return reader.read(start, length)

        superblock = parse_superblock(reader.read(0, READ_SIZE))
        with pytest.raises(OSError, match="Input/output error"):
            _largest_hole(Space(superblock, [read], ()), superblock.size)
        assert merged(list(Space(superblock, [read], ()).in_use()))[-1] == (2 * GROUP, superblock.size - 2 * GROUP)
