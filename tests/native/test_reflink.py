"""pvedrbdstor.native where files share blocks: FICLONE, OCFS2's own ioctl, and clone_file over both."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvedrbdstor import native
from tests.native.conftest import Opener

MIB = 1 << 20


@pytest.fixture
def dir_fd(reflink_dir: Path) -> Iterator[int]:
    fd = os.open(reflink_dir, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def source(reflink_dir: Path, opened: Opener) -> int:
    fd = opened(reflink_dir / "source")
    os.pwrite(fd, b"s" * MIB, 0)
    os.setxattr(fd, "user.drbdocfs2.id", b"0123")
    return fd


def test_reflink_shares_and_then_separates(reflink_dir: Path, source: int, opened: Opener) -> None:
    target = opened(reflink_dir / "target")
    native.reflink_fd(source, target)
    assert native.shared_bytes(source) == native.shared_bytes(target) == MIB
    os.pwrite(target, b"t" * 4096, 0)
    os.fsync(target)
    assert os.pread(source, 4096, 0) == b"s" * 4096
    assert native.shared_bytes(target, sync=True) == MIB - 4096


def test_reflink_without_support_says_eopnotsupp(tmpfs_dir: Path, opened: Opener) -> None:
    with pytest.raises(OSError) as caught:
        native.reflink_fd(opened(tmpfs_dir / "a"), opened(tmpfs_dir / "b"), "b")
    assert (caught.value.errno, caught.value.filename) == (errno.EOPNOTSUPP, "b")


def test_reflink_between_file_systems_says_exdev(source: int, tmpfs_dir: Path, opened: Opener) -> None:
    with pytest.raises(OSError) as caught:
        native.reflink_fd(source, opened(tmpfs_dir / "b"), "b")
    assert (caught.value.errno, caught.value.filename) == (errno.EXDEV, "b")


def test_ocfs2_ioctl_elsewhere_says_enotty_and_creates_nothing(reflink_dir: Path, source: int, dir_fd: int) -> None:
    with pytest.raises(OSError) as caught:
        native.ocfs2_reflink(dir_fd, str(reflink_dir / "source"), str(reflink_dir / "new"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTTY, str(reflink_dir / "new"))
    assert os.listdir(reflink_dir) == ["source"]


def test_clone_file_gives_an_open_copy_with_exactly_the_mode(source: int, dir_fd: int, reflink_dir: Path) -> None:
    umask = os.umask(0o077)
    try:
        fd = native.clone_file(source, dir_fd, "clone", 0o644)
    finally:
        os.umask(umask)
    try:
        assert os.pread(fd, MIB + 1, 0) == b"s" * MIB
        assert os.fstat(fd).st_mode & 0o7777 == 0o644
        assert os.listxattr(fd) == []
        assert not os.get_inheritable(fd)
        assert os.pwrite(fd, b"c", 0) == 1
    finally:
        os.close(fd)
    assert sorted(os.listdir(reflink_dir)) == ["clone", "source"]


def test_clone_file_keeps_holes_and_an_odd_size(source: int, dir_fd: int) -> None:
    os.ftruncate(source, 64 * MIB + 17)
    fd = native.clone_file(source, dir_fd, "clone", 0o640)
    try:
        assert os.fstat(fd).st_size == 64 * MIB + 17
        assert native.data_extents(fd, 64 * MIB + 17) == [(0, MIB)]
    finally:
        os.close(fd)


def test_clone_file_never_touches_what_exists(source: int, dir_fd: int, reflink_dir: Path) -> None:
    (reflink_dir / "clone").write_text("precious")
    with pytest.raises(FileExistsError) as caught:
        native.clone_file(source, dir_fd, "clone", 0o640, "images/100/clone")
    assert caught.value.filename == "images/100/clone"
    assert (reflink_dir / "clone").read_text() == "precious"


def test_clone_file_does_not_follow_a_link(source: int, dir_fd: int, reflink_dir: Path) -> None:
    (reflink_dir / "clone").symlink_to(reflink_dir / "elsewhere")
    with pytest.raises(FileExistsError):
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert not (reflink_dir / "elsewhere").exists()


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_clone_file_without_support_leaves_nothing_behind(tmpfs_dir: Path, opened: Opener) -> None:
    source, folder = opened(tmpfs_dir / "source"), os.open(tmpfs_dir, os.O_RDONLY)
    before = open_fds()
    try:
        with pytest.raises(OSError) as caught:
            native.clone_file(source, folder, "clone", 0o640)
        assert (caught.value.errno, caught.value.filename) == (errno.EOPNOTSUPP, "clone")
        assert os.listdir(tmpfs_dir) == ["source"]
        assert open_fds() == before
    finally:
        os.close(folder)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_clone_file_that_fails_half_way_leaves_nothing_behind(
    error: BaseException, source: int, dir_fd: int, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(native.sharing, "reflink_fd", fail)
    before = open_fds()
    with pytest.raises(type(error)):
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert os.listdir(reflink_dir) == ["source"]
    assert open_fds() == before


def test_why_a_clone_failed_outlives_a_failing_clean_up(
    source: int, dir_fd: int, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_and_take_away(*_arguments: object) -> None:
        os.unlink(reflink_dir / "clone")
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(native.sharing, "reflink_fd", fail_and_take_away)
    before = open_fds()
    with pytest.raises(OSError) as caught:
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert caught.value.errno == errno.EIO
    assert open_fds() == before


# --- the fallback: XFS made to look like an OCFS2 without FICLONE ------------------------------------------------


Reflink = Callable[..., None]


@pytest.fixture
def old_ocfs2(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """FICLONE is refused, the file system calls itself OCFS2, and its ioctl copies as the kernel's does.

    Like ocfs2_reflink_ioctl() it resolves both paths without following a link in the last component, and copies
    the user's extended attributes. The list returned gets the paths it was called with.
    """
    calls: list[str] = []
    real_fstatfs = native.fstatfs

    def refuse(_source: int, _target: int, path: str = "") -> None:
        raise OSError(errno.EOPNOTSUPP, "refused", path)

    def reflink(_fd: int, old_path: str, new_path: str, *, preserve: bool = False, path: str = "") -> None:
        assert not preserve
        calls.extend([old_path, new_path])
        assert not os.path.islink(old_path), "the kernel would take the link itself"
        if os.path.lexists(new_path):
            raise FileExistsError(errno.EEXIST, "exists", path)
        shutil.copyfile(old_path, new_path)
        for name in os.listxattr(old_path):
            os.setxattr(new_path, name, os.getxattr(old_path, name))

    monkeypatch.setattr(native.sharing, "reflink_fd", refuse)
    monkeypatch.setattr(native.sharing, "ocfs2_reflink", reflink)
    monkeypatch.setattr(
        native.sharing, "fstatfs", lambda fd, path="": real_fstatfs(fd, path)._replace(type=native.OCFS2_SUPER_MAGIC)
    )
    return calls


def test_fallback_gives_what_ficlone_gives(old_ocfs2: list[str], source: int, dir_fd: int, reflink_dir: Path) -> None:
    fds = open_fds()
    fd = native.clone_file(source, dir_fd, "clone", 0o640)
    try:
        assert os.pread(fd, MIB + 1, 0) == b"s" * MIB
        assert os.fstat(fd).st_mode & 0o7777 == 0o640
        assert os.listxattr(fd) == []
        assert os.pwrite(fd, b"c", 0) == 1
    finally:
        os.close(fd)
    assert len(old_ocfs2) == 2
    assert all(path.startswith("/proc/self/fd/") for path in old_ocfs2)
    assert sorted(os.listdir(reflink_dir)) == ["clone", "source"]
    assert open_fds() == fds


def test_fallback_refuses_a_source_that_lost_its_name(
    old_ocfs2: list[str], source: int, dir_fd: int, reflink_dir: Path
) -> None:
    (reflink_dir / "source").rename(reflink_dir / "old")
    (reflink_dir / "source").touch()
    os.unlink(reflink_dir / "old")
    with pytest.raises(OSError) as caught:
        native.clone_file(source, dir_fd, "clone", 0o640, "images/100/clone")
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, "images/100/clone")
    assert os.listdir(reflink_dir) == ["source"]


def test_fallback_discards_a_copy_of_a_source_swapped_meanwhile(
    old_ocfs2: list[str], source: int, dir_fd: int, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reflink = native.sharing.ocfs2_reflink

    def swap_first(*arguments: object, **named: object) -> None:
        (reflink_dir / "other").write_text("another image")
        os.rename(reflink_dir / "other", reflink_dir / "source")
        reflink(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(native.sharing, "ocfs2_reflink", swap_first)
    with pytest.raises(OSError) as caught:
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert caught.value.errno == errno.ESTALE
    assert os.listdir(reflink_dir) == ["source"]


def test_fallback_is_for_ocfs2_alone(source: int, dir_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: int, _target: int, path: str = "") -> None:
        raise OSError(errno.EOPNOTSUPP, "refused", path)

    monkeypatch.setattr(native.sharing, "reflink_fd", refuse)
    monkeypatch.setattr(native.sharing, "ocfs2_reflink", lambda *_a, **_n: pytest.fail("asked another file system"))
    with pytest.raises(OSError) as caught:
        native.clone_file(source, dir_fd, "clone", 0o640)
    assert caught.value.errno == errno.EOPNOTSUPP
