"""Fixtures for every suite: folders on real file systems that share blocks, that are full, that are read-only.

They need root, loop devices and mkfs.xfs, and fail (they never skip) without. Everything they set up is taken down when
the run ends, also when it is killed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.examples import load_profile
from tests.loopback import Loopback, fill, fresh_folder

load_profile()
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as from a terminal: under nohup(1) programs rightly go on ignoring it


@pytest.fixture(scope="session")
def reflink_fs() -> Iterator[Loopback]:
    """An XFS of 1 GiB (sparse) with reflink: ``.path`` is the mount point, ``.device`` its loop device."""
    with Loopback(1024, kind="xfs") as loopback:
        yield loopback


@pytest.fixture
def reflink_dir(reflink_fs: Loopback) -> Iterator[Path]:
    """A fresh, empty folder on a file system with reflink, removed after the test."""
    with fresh_folder(reflink_fs.path) as folder:
        yield folder


@pytest.fixture(scope="session")
def small_fs() -> Iterator[Loopback]:
    """An XFS of 320 MiB with reflink, apart from ``reflink_fs``, for tests that change the whole file system."""
    with Loopback(320, kind="xfs") as loopback:
        yield loopback


@pytest.fixture
def small_dir(small_fs: Loopback) -> Iterator[Path]:
    """A fresh, empty folder on ``small_fs``.

    For a full file system at a moment of the test's choice call ``tests.loopback.fill(small_dir)``; for a read-only
    one use ``with small_fs.read_only():``.
    """
    with small_fs.read_only():
        pass  # XFS gives the blocks of removed files back in the background: this waits until it has
    with fresh_folder(small_fs.path) as folder:
        yield folder


@pytest.fixture
def full_dir(small_dir: Path) -> Path:
    """A folder on a file system with 2 MiB free: small files can be made, and anything bigger is ENOSPC.

    All other space is in its file ``ballast``. For not a single free block call ``fill(folder)``: then XFS cannot
    even create a file.
    """
    fill(small_dir, leave=2 << 20)
    return small_dir


@pytest.fixture
def read_only_dir(small_fs: Loopback, small_dir: Path) -> Iterator[Path]:
    """An empty folder on a file system mounted read-only. To put something there first see ``small_dir``."""
    with small_fs.read_only():
        yield small_dir


@pytest.fixture
def tmpfs_dir() -> Iterator[Path]:
    """A fresh folder on tmpfs: a file system without reflink, FIEMAP and inode flags it could keep."""
    with fresh_folder(Path("/dev/shm")) as folder:
        yield folder


@pytest.fixture
def loop_device() -> Iterator[Callable[..., str]]:
    """A function ``loop_device(size_mib, sector_size=512)`` that gives the path of a new, empty loop device."""
    with ExitStack() as devices:

        def attach(size_mib: int, sector_size: int = 512) -> str:
            return devices.enter_context(Loopback(size_mib, sector_size=sector_size)).device

        yield attach
