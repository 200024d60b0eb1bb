"""A disk of a test's making: a file whose reads fail, fall short or hang as the test says, and a loop device on it.

FUSE, mounted on a single file and served by a thread of this process (include/uapi/linux/fuse.h). Needs root and
/dev/fuse. Reads come to it as they are made when the file is open with O_DIRECT; those of the loop device in its own pieces.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MNT_DETACH = 2  # umount2(2)
_LIBC = ctypes.CDLL(None, use_errno=True)

_GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT, _INTERRUPT = 3, 14, 15, 18, 25, 26, 36
_FORGET = (2, 42)  # which have no answer
_ROOT = 1
_FOPEN_DIRECT_IO = 1
_ASYNC_READ, _ASYNC_DIO, _MAX_PAGES = 1 << 0, 1 << 15, 1 << 22

_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI7I")
_ATTR_OUT = struct.Struct("=QIIQQQQQQIIIIIIIIII")
_OPEN_OUT = struct.Struct("=QII")
_READ_IN = struct.Struct("=QQIIQII")
_ROOM = 1 << 20


class FaultyDisk:
    """``path`` is a read-only file with this content. What a read meets, a test may change at any time:

    bad: ranges (start, end) that cannot be read: EIO. short: offset to the most bytes that one read from there gives.
    answering: while it is clear, no read is answered. asked: every read so far, as (offset, length).
    """

    def __init__(self, content: bytes, path: Path) -> None:
        self.content = content
        self.path = path
        self.bad: list[tuple[int, int]] = []
        self.short: dict[int, int] = {}
        self.answering = threading.Event()
        self.answering.set()
        self.asked: list[tuple[int, int]] = []
        self.waiting = threading.Semaphore(0)  # released once for each read that finds it not answering
        self._held: list[tuple[int, int, int]] = []

    def resume(self) -> None:
        """Answer again, first what waits."""
        self.answering.set()
        held, self._held = self._held, []
        for unique, offset, length in held:
            self._answer(unique, *self._read(offset, length))

    def serve(self, fuse: int) -> None:
        """Until the mount is gone."""
        self._fuse = fuse
        while True:
            try:
                request = os.read(fuse, _ROOM + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode == _READ:
                _, offset, length, *_ = _READ_IN.unpack_from(request, _IN.size)
                self.asked.append((offset, length))
                if not self.answering.is_set():
                    self._held.append((unique, offset, length))
                    self.waiting.release()
                    continue
                self._answer(unique, *self._read(offset, length))
            elif opcode not in (_INTERRUPT, *_FORGET):
                self._answer(unique, *self._other(opcode))

    def _read(self, offset: int, length: int) -> tuple[int, bytes]:
        end = min(offset + length, len(self.content))
        if any(offset < bad_end and start < end for start, bad_end in self.bad):
            return -errno.EIO, b""
        return 0, self.content[offset : min(end, offset + self.short.get(offset, length))]

    def _other(self, opcode: int) -> tuple[int, bytes]:
        if opcode == _INIT:
            flags = _ASYNC_READ | _ASYNC_DIO | _MAX_PAGES
            return 0, _INIT_OUT.pack(7, 31, 0, flags, 64, 48, _ROOM, 1, _ROOM // 4096, 0, 0, *(0,) * 7)
        if opcode == _GETATTR:
            size = len(self.content)
            return 0, _ATTR_OUT.pack(
                *(0, 0, 0, _ROOT, size, size // 512, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o400, 1, 0, 0, 0, 4096, 0)
            )
        if opcode == _OPEN:
            return 0, _OPEN_OUT.pack(1, _FOPEN_DIRECT_IO, 0)
        if opcode in (_RELEASE, _FLUSH):
            return 0, b""
        return -errno.ENOSYS, b""

    def _answer(self, unique: int, error: int, payload: bytes) -> None:
        try:
            os.writev(self._fuse, [_OUT.pack(_OUT.size + len(payload), error, unique), payload])
        except OSError as problem:
            if problem.errno != errno.ENOENT:  # who asked has gone
                raise


@contextmanager
def faulty_disk(content: bytes, folder: Path) -> Iterator[FaultyDisk]:
    """One with this content, in a folder that exists. In the end whatever hangs on it goes on with an error."""
    path = folder / "disk"
    path.touch()
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    disk = FaultyDisk(content, path)
    options = f"fd={fuse},rootmode=100400,user_id=0,group_id=0,max_read={_ROOM}".encode()
    if _LIBC.mount(b"faulty", os.fsencode(path), b"fuse", 1, options) != 0:  # 1: MS_RDONLY
        os.close(fuse)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    server = threading.Thread(target=disk.serve, args=(fuse,))
    server.start()
    try:
        yield disk
    finally:
        disk.resume()
        _LIBC.umount2(os.fsencode(path), _MNT_DETACH)
        server.join(10)
        os.close(fuse)


@contextmanager
def loop_device_on(disk: FaultyDisk, sector_size: int = 512) -> Iterator[str]:
    """The path of a read-only loop device on it, which makes no reads of its own; gone when this process is, too."""
    attach = ["losetup", "--find", "--show", "--read-only", "--direct-io=on", f"--sector-size={sector_size}"]
    made = subprocess.run([*attach, str(disk.path)], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    held = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        subprocess.run(
            ["losetup", "--detach", device], check=True
        )  # while it is held: takes effect with the last close
        yield device
    finally:
        disk.resume()
        os.close(held)
