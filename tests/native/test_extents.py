"""pvedrbdstor.native's maps of a file: SEEK_DATA and SEEK_HOLE, FIEMAP, shared bytes."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from tests.examples import examples
from tests.native.conftest import Opener

MIB = 1 << 20
BLOCK = 4096


def write_blocks(fd: int, blocks: set[int], size: int) -> None:
    os.ftruncate(fd, 0)
    os.ftruncate(fd, size)
    for block in blocks:
        os.pwrite(fd, b"d" * min(BLOCK, size - block * BLOCK), block * BLOCK)
    os.fsync(fd)


def runs(blocks: set[int], size: int) -> list[tuple[int, int]]:
    """What data_extents must say: the written blocks, neighbours joined, cut at the size."""
    found: list[tuple[int, int]] = []
    for block in sorted(blocks):
        start, end = block * BLOCK, min((block + 1) * BLOCK, size)
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], end - found[-1][0])
        else:
            found.append((start, end - start))
    return found


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.sets(st.integers(0, 63)), tail=st.integers(1, BLOCK), total=st.integers(1, 64))
def test_data_extents_are_the_written_blocks(
    blocks: set[int], tail: int, total: int, tmpfs_dir: Path, reflink_dir: Path, opened: Opener
) -> None:
    size = (total - 1) * BLOCK + tail
    written = {block for block in blocks if block < total}
    for folder in (reflink_dir, tmpfs_dir):
        fd = opened(folder / "image")
        write_blocks(fd, written, size)
        assert native.data_extents(fd, size) == runs(written, size)


@pytest.mark.parametrize("size", [0, 5 * MIB])
def test_data_extents_of_nothing_written(size: int, reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    os.ftruncate(fd, size)
    assert native.data_extents(fd, size) == []


def test_data_extents_stop_at_the_size_asked_for(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    write_blocks(fd, {0, 1, 2, 9}, 10 * BLOCK)
    assert native.data_extents(fd, BLOCK + 1) == [(0, BLOCK + 1)]
    assert native.data_extents(fd, 5 * BLOCK) == [(0, 3 * BLOCK)]


def test_data_extents_survive_a_size_beyond_the_end(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    write_blocks(fd, {1}, 2 * BLOCK)
    assert native.data_extents(fd, 100 * MIB) == [(BLOCK, BLOCK)]


def test_fiemap_tells_written_unwritten_and_last(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    write_blocks(fd, {0}, 64 * BLOCK)
    native.fallocate(fd, 32 * BLOCK, 4 * BLOCK)
    written, reserved = native.fiemap(fd, sync=True)
    assert (written.logical, written.length, written.unwritten, written.last) == (0, BLOCK, False, False)
    assert (reserved.logical, reserved.length, reserved.unwritten, reserved.last) == (
        32 * BLOCK,
        4 * BLOCK,
        True,
        True,
    )
    assert written.located and reserved.located
    assert written.physical > 0
    assert not written.shared


def test_fiemap_with_sync_locates_what_was_only_in_memory(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    os.pwrite(fd, b"d" * MIB, 0)
    assert not all(extent.located for extent in native.fiemap(fd))
    assert all(extent.located for extent in native.fiemap(fd, sync=True))


def test_fiemap_goes_on_past_one_call(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    written = {block * 2 for block in range(600)}
    write_blocks(fd, written, 1200 * BLOCK)
    extents = list(native.fiemap(fd))
    assert [extent.logical for extent in extents] == [block * BLOCK for block in sorted(written)]
    assert [extent.last for extent in extents] == [False] * 599 + [True]
    assert all(before.logical + before.length <= after.logical for before, after in pairwise(extents))


def test_fiemap_keeps_to_the_range(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "image")
    write_blocks(fd, {0, 10, 20, 30}, 64 * BLOCK)
    extents = native.fiemap(fd, 10 * BLOCK, 11 * BLOCK)
    assert [extent.logical for extent in extents] == [10 * BLOCK, 20 * BLOCK]
    assert list(native.fiemap(fd, 31 * BLOCK)) == []
    assert list(native.fiemap(fd, 0, 0)) == []


def test_fiemap_where_there_is_none_says_eopnotsupp(tmpfs_dir: Path, opened: Opener) -> None:
    with pytest.raises(OSError) as caught:
        list(native.fiemap(opened(tmpfs_dir / "image"), path="image"))
    assert (caught.value.errno, caught.value.filename) == (errno.EOPNOTSUPP, "image")


def test_fiemap_without_room_is_refused_in_c(reflink_dir: Path, opened: Opener) -> None:
    # The kernel would answer with a count, and nothing stored: a caller must not take that for extents.
    ffi, lib = native.extension.extension()
    assert lib.sys_fiemap(opened(reflink_dir / "image"), 0, BLOCK, 0, ffi.NULL, 0) == -errno.EINVAL


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.sets(st.integers(0, 31)), rewritten=st.sets(st.integers(0, 31)))
def test_shared_bytes_are_what_no_side_has_rewritten(
    written: set[int], rewritten: set[int], reflink_dir: Path, opened: Opener
) -> None:
    source, target = opened(reflink_dir / "source"), opened(reflink_dir / "target")
    write_blocks(source, written, 32 * BLOCK)
    os.ftruncate(target, 0)
    native.reflink_fd(source, target)
    for block in rewritten:
        os.pwrite(target, b"n" * BLOCK, block * BLOCK)
    expected = len(written - rewritten) * BLOCK
    assert native.shared_bytes(target, sync=True) == native.shared_bytes(source) == expected
