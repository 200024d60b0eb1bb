"""The mount asked through a process of its own: what hangs is told in time, what is slow goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotAnswering, NotMounted, SystemCallFailed
from pvedrbdstor.fencing.split import copies, files, look, mounted
from pvedrbdstor.fencing.split.mounted import Mounted
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.fencing.split.side import FileState

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def opened(config: StorageConfig) -> SimpleNamespace:
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        return SimpleNamespace(root_fd=fd, facts=SimpleNamespace(read_only=True))

    monkeypatch.setattr(mounted, "open_mirror", opened)
    return tmp_path


def own_digests(root: Path, wanted: dict[str, tuple[tuple[int, int], ...]]) -> dict[str, tuple[str, ...]]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return files.digests(fd, wanted)
    finally:
        os.close(fd)


def test_files_come_as_they_are_in_as_many_answers_as_it_takes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounted, "_FILES", 2)
    for number in range(5):
        (root / f"file-{number}").write_bytes(b"x" * number)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    direct = list(files.walk(fd, (), None))
    os.close(fd)
    with Mounted(CONFIG) as mount:
        assert mount.read_only
        assert list(mount.walk((), None)) == direct and len(direct) == 5
        assert list(mount.walk((), ())) == [replace(file, changed=()) for file in direct]
    assert direct[1].inode == (root / "file-1").stat().st_ino
    assert direct[1].status_changed == (root / "file-1").stat().st_ctime_ns


def test_digests_are_asked_for_in_small_parts_and_come_in_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a").write_bytes(bytes(range(256)) * 4096 * 3)
    (root / "b").write_bytes(b"b" * 700)
    wanted = {"a": ((0, CHUNK), (2 * CHUNK, CHUNK)), "b": ((0, CHUNK),), "gone": ((0, 3 * CHUNK),)}
    expected = own_digests(root, wanted)
    monkeypatch.setattr(mounted, "_DIGESTS_BYTES", CHUNK)
    with Mounted(CONFIG) as mount:
        assert mount.digests(wanted) == expected
    assert set(expected) == {"a", "b"} and len(expected["a"]) == 2


def test_a_file_is_copied_a_few_chunks_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4096 * 3 + b"end"
    (root / "disk").write_bytes(data)
    monkeypatch.setattr(mounted, "_DIGESTS_BYTES", CHUNK)
    told: list[int] = []
    aside = root / "aside"
    with Mounted(CONFIG) as mount:
        copied = mount.copy("disk", str(aside), told.append)
        with pytest.raises(FileNotFoundError):
            mount.copy("gone", str(aside), told.append)
    assert (aside / "files/disk").read_bytes() == data
    assert copied.identity[:2] == ((root / "disk").stat().st_ino, len(data))
    assert sum(told) == len(data) and len(told) == 4


def test_copying_that_hangs_is_given_up_in_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "disk").write_bytes(b"x")
    monkeypatch.setattr(mounted, "COPY_SECONDS", 0.2)
    monkeypatch.setattr(copies, "reader", lambda *_: time.sleep(3))
    with pytest.raises(NotAnswering), Mounted(CONFIG) as mount:
        mount.copy("disk", str(root / "aside"), lambda _: None)


@pytest.mark.parametrize("where", ["walk", "digests", "open"])
def test_what_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, root: Path, where: str) -> None:
    def hang(*_: object) -> Iterator[FileState]:
        time.sleep(3)
        return iter(())

    if where == "open":
        monkeypatch.setattr(mounted, "open_mirror", hang)
    else:
        monkeypatch.setattr(files, where, hang)
    began = time.monotonic()
    with pytest.raises(NotAnswering, match="does not answer"), Mounted(CONFIG, 0.2) as mount:
        list(mount.walk((), None)) if where == "walk" else mount.digests({"a": ((0, CHUNK),)})
    assert time.monotonic() - began < 2


def test_what_is_slow_but_moves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    state = FileState("slow", 0, 0, 0)

    def slowly(*_: object) -> Iterator[FileState]:
        for _number in range(4):
            time.sleep(0.2)
            yield state

    monkeypatch.setattr(files, "walk", slowly)
    monkeypatch.setattr(mounted, "_FILES_SECONDS", 0.0)
    with Mounted(CONFIG, 0.6) as mount:
        assert list(mount.walk((), None)) == [state] * 4


def test_errors_are_raised_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(config: StorageConfig) -> None:
        raise NotMounted(storage="ha", path="/mnt/pve/ha", resource="r0")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "images/100/disk")

    def bug(*_: object) -> None:
        raise ValueError("no number")

    monkeypatch.setattr(files, "walk", broken)
    with Mounted(CONFIG) as mount, pytest.raises(OSError, match="Input/output error") as raised:
        list(mount.walk((), None))
    assert raised.value.filename == "images/100/disk"
    monkeypatch.setattr(files, "walk", bug)
    with Mounted(CONFIG) as mount, pytest.raises(SystemCallFailed, match="no number"):
        list(mount.walk((), None))
    monkeypatch.setattr(mounted, "open_mirror", missing)
    with pytest.raises(NotMounted, match="nothing is mounted"), Mounted(CONFIG):
        pass


def test_a_look_at_a_file_system_that_hangs_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounted, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(files, "walk", lambda *_: time.sleep(3))
    assert look._files(CONFIG, (), None) is None
    monkeypatch.setattr(files, "digests", lambda *_: time.sleep(3))
    assert look._own_digests(CONFIG, (FileState("a", 1, 1, 0, ((0, 1),)),)) is None
