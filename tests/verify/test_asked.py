"""The meaning asked for through a process of its own: what hangs is told in time, what is slow goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import merged
from pvedrbdstor.errors import NotAnswering, NotMounted, VerifyRefused
from pvedrbdstor.mirror import mount
from pvedrbdstor.ocfs2.superblock import READ_SIZE, parse_superblock
from pvedrbdstor.verify import asked
from pvedrbdstor.verify.allocation import Places, finding_one_byte_of_each
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.meaning import from_plain
from pvedrbdstor.verify.space import Space
from pvedrbdstor.verify.where import where
from tests.loopback import Loopback
from tests.verify.test_space import make

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
GUESTS = {100: Guest(100, "VM", True, "pve1")}


@pytest.fixture
def root(reflink_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of 8 KiB, and the function that opens a mirror replaced by one that opens their folder."""

    def opened(config: StorageConfig) -> SimpleNamespace:
        return SimpleNamespace(root_fd=os.open(reflink_dir, os.O_RDONLY | os.O_DIRECTORY))

    monkeypatch.setattr(asked, "open_mirror", opened)
    monkeypatch.setattr(mount, "open_mirror", opened)
    folder = reflink_dir / "images" / "100"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"vm-100-disk-{number}.raw").write_bytes(b"d" * 8192)
    os.sync()
    return reflink_dir


def ranges_of(root: Path) -> list[tuple[int, int]]:
    found = []
    for path in sorted(root.rglob("*.raw")):
        with path.open("rb") as file:
            found += [(extent.physical, extent.length) for extent in native.fiemap(file.fileno())]
    return found


def test_the_answer_is_that_of_the_work_itself(
    root: Path, reflink_fs: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "_TURN_SECONDS", 0.0)
    ranges = ranges_of(root)
    steps: list[int] = []
    found = asked.ask(CONFIG, ranges, reflink_fs.device, guests=GUESTS, progress=steps.append)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert found == where(ranges, fd, reflink_fs.device, guests=GUESTS)
    finally:
        os.close(fd)
    assert len({it.path for it in found.found if it.path}) == 5
    assert from_plain(json.loads(json.dumps(asdict(found)))) == found


def test_a_file_system_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on a file system of the tests: the process that hangs is left behind."""
    (tmp_path / "device").write_bytes(bytes(1 << 20))

    def opened(config: StorageConfig) -> SimpleNamespace:
        return SimpleNamespace(root_fd=os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))

    def hanging(*_: object, **__: object) -> Iterator[native.Extent]:
        time.sleep(20)
        return iter(())

    monkeypatch.setattr(asked, "open_mirror", opened)
    monkeypatch.setattr(native, "fiemap", hanging)
    started = time.monotonic()
    with pytest.raises(NotAnswering):
        asked.ask(CONFIG, [(0, 4096)], str(tmp_path / "device"), guests=None, seconds=0.3)
    assert time.monotonic() - started < 5


def test_what_cannot_be_done_is_raised_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-device"):
        asked.ask(CONFIG, [(0, 4096)], "/dev/no-such-device", guests=None)

    def unmounted(config: StorageConfig) -> None:
        raise NotMounted(storage="ha", path="/mnt/pve/ha", resource="r0")

    monkeypatch.setattr(asked, "open_mirror", unmounted)
    with pytest.raises(NotMounted):
        asked.ask(CONFIG, [(0, 4096)], "/dev/null", guests=None)


# --- what is to be compared ------------------------------------------------------------------------------------------


def drained(steps: Generator[None, None, Places]) -> Places:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Places = end.value
            return found


def test_one_byte_of_each_file_is_that_of_the_work_itself(root: Path) -> None:
    found = asked.one_byte_of_each(CONFIG, random.Random(7))
    assert found == drained(finding_one_byte_of_each(CONFIG, random.Random(7))) and found.failed == 0
    ranges = ranges_of(root)
    assert len(found.at) == len(ranges) == 5
    assert all(any(start <= at < start + length for start, length in ranges) for at in found.at)


def test_a_file_that_cannot_be_looked_into_is_counted_and_the_others_are_not_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fiemap = native.fiemap

    def failing(fd: int, *, path: str = "") -> Iterator[native.Extent]:
        if path.endswith("disk-2.raw"):
            raise OSError(errno.EIO, "Input/output error", path)
        return fiemap(fd, path=path)

    monkeypatch.setattr(native, "fiemap", failing)
    found = asked.one_byte_of_each(CONFIG, random.Random(7))
    assert (len(found.at), found.failed) == (4, 1)


def test_what_is_in_use_is_what_the_map_says(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "_TURN_SECONDS", 0.0)
    device = tmp_path / "fs"
    make(device, 256 << 20, 4096, 4096)
    with Reader(str(device)) as reader:
        space = Space(parse_superblock(reader.read(0, READ_SIZE)), [reader.read, reader.read], ())
        expected = merged(list(space.in_use()))
    assert asked.in_use(CONFIG, str(device)) == expected and len(expected) > 1


def test_a_map_that_cannot_be_read_is_refused_as_ever(root: Path, tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(bytes(1 << 20))
    with pytest.raises(VerifyRefused, match="--mode full"):
        asked.in_use(CONFIG, str(tmp_path / "device"))


@pytest.mark.parametrize("hangs", ["fiemap", "fstatfs"])
def test_a_lock_that_hangs_does_not_hang_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """Not on a file system of the tests: the process that hangs is left behind."""
    (tmp_path / "file").write_bytes(b"data")

    def opened(config: StorageConfig) -> SimpleNamespace:
        return SimpleNamespace(root_fd=os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))

    monkeypatch.setattr(mount, "open_mirror", opened)
    monkeypatch.setattr(native, hangs, lambda *_, **__: time.sleep(20))
    started = time.monotonic()
    with pytest.raises(NotAnswering):
        if hangs == "fiemap":
            asked.one_byte_of_each(CONFIG, random.Random(7), seconds=0.3)
        else:
            asked.in_use(CONFIG, str(tmp_path / "file"), seconds=0.3)
    assert time.monotonic() - started < 5


def test_ctrl_c_leaves_the_answer_to_whoever_asks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal sends it to all its processes: the one that leads keeps what is known, and ends by itself."""
    fiemap, own = native.fiemap, os.getpid()

    def interrupted(fd: int, *, path: str = "") -> Iterator[native.Extent]:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGINT)
        return fiemap(fd, path=path)

    monkeypatch.setattr(native, "fiemap", interrupted)
    assert len(asked.one_byte_of_each(CONFIG, random.Random(7)).at) == 5
