"""pvedrbdstor.native on a real OCFS2, where PVEDRBDSTOR_TEST_OCFS2 names a folder on one: in the lab's guests.

Python 3 and pytest are all it needs: `PVEDRBDSTOR_TEST_OCFS2=/mnt python3 -m pytest tests/native/test_on_ocfs2.py`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvedrbdstor import native
from tests.loopback import fresh_folder
from tests.native.conftest import Opener

MIB = 1 << 20
SIZE = 8 * MIB + 17
VARIABLE = "PVEDRBDSTOR_TEST_OCFS2"

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder on an OCFS2 (see lab)")


@pytest.fixture
def folder() -> Iterator[Path]:
    with fresh_folder(Path(os.environ[VARIABLE])) as path:
        yield path


@pytest.fixture
def dir_fd(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def source(folder: Path, opened: Opener) -> int:
    """An image with two pieces of data, an odd size and attributes of its own."""
    fd = opened(folder / "source")
    os.pwrite(fd, b"s" * MIB, 0)
    os.pwrite(fd, b"s" * 100, 3 * MIB)
    os.ftruncate(fd, SIZE)
    os.setxattr(fd, "user.drbdocfs2.id", b"0123")
    os.setxattr(fd, "trusted.drbdocfs2", b"0123")
    native.fsync(fd)
    return fd


@pytest.fixture(params=["FICLONE", "OCFS2_IOC_REFLINK"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of clone_file: the second is what it takes when the kernel does not know the first."""

    def refuse(_source: int, _target: int, path: str = "") -> None:
        raise OSError(errno.EOPNOTSUPP, "refused", path)

    if request.param != "FICLONE":
        monkeypatch.setattr(native.sharing, "reflink_fd", refuse)
    return str(request.param)


def test_the_folder_is_on_ocfs2(dir_fd: int) -> None:
    assert native.fstatfs(dir_fd).name == "OCFS2"


def test_clone_file_shares_all_and_inherits_nothing(way: str, source: int, dir_fd: int, folder: Path) -> None:
    fd = native.clone_file(source, dir_fd, "clone", 0o640)
    try:
        assert os.fstat(fd).st_mode & 0o7777 == 0o640
        assert os.listxattr(fd) == []
        assert os.pread(fd, SIZE + 1, 0) == os.pread(source, SIZE + 1, 0)
        assert native.shared_bytes(fd) == native.shared_bytes(source) >= MIB + 100
        os.pwrite(fd, b"clone", 0)
        os.pwrite(source, b"source", MIB // 2)
        native.fsync(fd)
        assert os.pread(source, 5, 0) == b"sssss"
        assert os.pread(fd, 6, MIB // 2) == b"ssssss"
    finally:
        os.close(fd)
    assert sorted(os.listdir(folder)) == ["clone", "source"]


@pytest.mark.parametrize("content", [b"", b"abc"], ids=["empty", "inline"])
def test_clone_file_of_a_file_without_blocks(
    content: bytes, way: str, dir_fd: int, folder: Path, opened: Opener
) -> None:
    source = opened(folder / "source")
    os.write(source, content)
    fd = native.clone_file(source, dir_fd, "clone", 0o640)
    try:
        assert os.pread(fd, 10, 0) == content
        os.pwrite(fd, b"x", 0)
        assert os.pread(source, 10, 0) == content
    finally:
        os.close(fd)


def test_clone_file_never_touches_what_exists(way: str, source: int, dir_fd: int, folder: Path) -> None:
    (folder / "clone").write_text("precious")
    with pytest.raises(FileExistsError):
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert (folder / "clone").read_text() == "precious"


def test_clone_of_a_template_is_not_immutable(source: int, dir_fd: int) -> None:
    native.set_immutable(source, True)
    try:
        fd = native.clone_file(source, dir_fd, "clone", 0o640)
        assert not native.inode_flags(fd) & native.FS_IMMUTABLE_FL
        os.close(fd)
    finally:
        native.set_immutable(source, False)


def test_ocfs2_s_own_reflink_refuses_a_template(source: int, dir_fd: int, folder: Path) -> None:
    native.set_immutable(source, True)
    try:
        with pytest.raises(PermissionError):
            native.ocfs2_reflink(dir_fd, str(folder / "source"), str(folder / "clone"))
    finally:
        native.set_immutable(source, False)


def test_ocfs2_s_own_reflink_does_not_follow_a_link(source: int, dir_fd: int, folder: Path) -> None:
    # Why clone_file looks up the folder of its source: the link itself lies on /proc.
    with pytest.raises(OSError) as caught:
        native.ocfs2_reflink(dir_fd, f"/proc/self/fd/{source}", str(folder / "clone"))
    assert caught.value.errno == errno.EXDEV
    assert os.listdir(folder) == ["source"]


def test_maps_tell_data_holes_and_reservations(source: int) -> None:
    native.punch_hole(source, 64 * 1024, MIB - 128 * 1024)
    native.fallocate(source, 16 * MIB, MIB, keep_size=True)
    (first, second, third) = native.data_extents(source, SIZE)
    assert first == (0, 64 * 1024)
    assert second == (MIB - 64 * 1024, 64 * 1024)
    assert third[0] == 3 * MIB
    *_, reserved = native.fiemap(source, sync=True)
    assert (reserved.logical, reserved.length, reserved.unwritten, reserved.last) == (16 * MIB, MIB, True, True)


def test_fiemap_goes_on_past_one_call(folder: Path, opened: Opener) -> None:
    fd = opened(folder / "scattered")
    stride = 256 * 1024  # more than any cluster a test's file system has
    for piece in range(300):
        os.pwrite(fd, b"x", piece * stride)
    extents = list(native.fiemap(fd, sync=True))
    assert [extent.logical for extent in extents] == [piece * stride for piece in range(300)]
    assert [extent.last for extent in extents] == [False] * 299 + [True]


def test_direct_transfer_in_sectors(folder: Path) -> None:
    fd = os.open(folder / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    try:
        with native.AlignedBuffer(64 * 1024, alignment=512) as buffer:
            buffer.view[:] = b"d" * buffer.size
            buffer.pwrite(fd, 512)
            buffer.view[:] = bytes(buffer.size)
            assert buffer.pread(fd, 1024) == buffer.size - 512
            assert bytes(buffer.view) == b"d" * (buffer.size - 512) + bytes(512)
    finally:
        os.close(fd)


def test_reserving_more_than_there_is_says_enospc(source: int, dir_fd: int) -> None:
    with pytest.raises(OSError) as caught:
        native.fallocate(source, 0, native.fstatfs(dir_fd).total_bytes + MIB, keep_size=True)
    assert caught.value.errno == errno.ENOSPC
