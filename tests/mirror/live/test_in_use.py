"""Which images are open here: from the kernel's own tables, with real locks and a real loop device."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.live import in_use
from pvedrbdstor.mirror.live.in_use import locked_inodes, look
from tests.loopback import Loopback

LOCKS = """1: FLOCK  ADVISORY  WRITE 901 00:1a:1045 0 EOF
2: OFDLCK ADVISORY  READ  -1 93:00:4711 100 101
3: OFDLCK ADVISORY  READ  -1 93:00:4711 203 203
4: OFDLCK ADVISORY  READ  -1 93:01:4712 100 101
5: POSIX  ADVISORY  WRITE 902 93:00:4713 0 EOF
6: POSIX  ADVISORY  READ 903 93:00:4714 128 128
6: -> OFDLCK ADVISORY  WRITE -1 93:00:4715 100 299
7: OFDLCK ADVISORY  READ  -1 93:00:4716 100 301
"""


def test_an_image_counts_by_the_bytes_qemu_locks_of_it_on_that_device() -> None:
    assert locked_inodes(LOCKS, (0x93, 0)) == {4711, 4714}
    assert locked_inodes(LOCKS, (0x93, 1)) == {4712}
    assert locked_inodes("garbage\n", (0x93, 0)) == frozenset()


def test_a_lock_as_qemu_takes_it_is_found_while_it_is_held(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    status = image.stat()
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    config = StorageConfig("ha", str(tmp_path), "r0")
    with image.open("r+b") as file:
        fcntl.fcntl(file, 37, struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 2, 0))  # F_OFD_SETLK
        assert status.st_ino in look(config, device).inodes
    assert status.st_ino not in look(config, device).inodes


def test_a_virtual_machine_counts_while_its_qemu_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {"100": f"{os.getpid()}\n", "101": "", "102": "99999999\n", "x": f"{os.getpid()}\n"}.items():
        (tmp_path / f"{name}.pid").write_text(content)
    monkeypatch.setattr(in_use, "PID_FILES", f"{tmp_path}/*.pid")
    assert look(StorageConfig("ha", "/nowhere", "r0"), (0, 0)).guests == {100}


def test_an_image_behind_a_loop_device_is_found(reflink_fs: Loopback, loop_device: Callable[..., str]) -> None:
    with open(f"/sys/block/{os.path.basename(loop_device(16))}/loop/backing_file") as file:
        backing = Path(file.read().rstrip("\n"))
    config = StorageConfig("ha", str(backing.parent.parent), "r0", images_dir=backing.parent.name)
    assert backing.name in look(config, (0, 0)).volumes
    assert look(StorageConfig("ha", "/nowhere", "r0"), (0, 0)).volumes == frozenset()
