"""The meaning asked for through a process of its own: what hangs is told in time, what is slow goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotAnswering, NotMounted
from pvedrbdstor.verify import asked
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.meaning import from_plain
from pvedrbdstor.verify.where import where
from tests.loopback import Loopback

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
GUESTS = {100: Guest(100, "VM", True, "pve1")}


@pytest.fixture
def root(reflink_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of 8 KiB, and the function that opens a mirror replaced by one that opens their folder."""

    def opened(config: StorageConfig) -> SimpleNamespace:
        return SimpleNamespace(root_fd=os.open(reflink_dir, os.O_RDONLY | os.O_DIRECTORY))

    monkeypatch.setattr(asked, "open_mirror", opened)
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
    ranges, steps = ranges_of(root), []
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
