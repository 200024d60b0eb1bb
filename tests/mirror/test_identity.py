"""Which file system the mirror is, from the superblock of a real device: a loop device in DRBD's place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import NotOcfs2, SystemCallFailed
from pvedrbdstor.mirror import mount, status
from pvedrbdstor.ocfs2.identity import fsid_of
from tests.mirror.test_judge import FACTS

UUID = "9C3630FD942247D6BFAFD86AB5D8CCBB"


@pytest.fixture
def device(loop_device: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a loop device that stands for the DRBD device."""
    path = loop_device(256)
    number = os.stat(path).st_rdev
    monkeypatch.setattr(devices, "MAJOR", os.major(number))
    monkeypatch.setattr(devices, "node", lambda minor: path)
    return os.minor(number)


def make_ocfs2(device: int) -> None:
    command = ["mkfs.ocfs2", "-q", "-x", "-F", "-M", "local", "-U", UUID, "-L", "vms", "-b", "4096", "-J", "size=8M"]
    subprocess.run([*command, "-C", "65536", devices.node(device)], check=True, capture_output=True)


@pytest.fixture
def mirror_on(
    device: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[int, int]], StorageConfig]:
    """A storage whose mount, on the device, has the given fsid and passes for the mirror."""

    def make(fsid: tuple[int, int]) -> StorageConfig:
        facts = replace(FACTS, device=(devices.MAJOR, device), resource_minor=device, fsid=fsid)
        monkeypatch.setattr(mount, "gather", lambda fd, config: facts)
        return StorageConfig(id="ha", path=str(tmp_path), resource="r0")

    return make


def test_the_superblock_of_a_device_is_read_past_the_page_cache(device: int) -> None:
    make_ocfs2(device)
    found = status.read_superblock(device)
    assert (found.uuid, found.label, found.block_size) == (UUID, "vms", 4096)


def test_identity_is_the_uuid_on_the_device(device: int, mirror_on: Callable[[tuple[int, int]], StorageConfig]) -> None:
    make_ocfs2(device)
    assert status.identity(mirror_on(fsid_of(UUID))) == UUID


def test_a_device_that_does_not_hold_the_mounted_file_system_has_no_identity(
    device: int, mirror_on: Callable[[tuple[int, int]], StorageConfig]
) -> None:
    make_ocfs2(device)
    with pytest.raises(NotOcfs2, match="not that of the mounted file system"):
        status.identity(mirror_on((1, 2)))


def test_an_empty_device_holds_no_ocfs2(device: int) -> None:
    with pytest.raises(NotOcfs2, match="no superblock"):
        status.read_superblock(device)


def test_a_device_of_another_number_is_not_believed(device: int) -> None:
    with pytest.raises(NotOcfs2, match="not the DRBD device of that number"):
        status.read_superblock(device + 1)


def test_a_missing_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "node", lambda minor: str(tmp_path / "drbd0"))
    with pytest.raises(SystemCallFailed, match="No such file or directory"):
        status.read_superblock(0)
