"""Serve a FaultyDisk: faulty_disk_server.py PATH CONTENT; FUSE by its own protocol, orders as JSON lines on standard input.

Each order changes what it names (bad, short, answering, slow) and is answered with all reads so far. Ends with its standard input,
with SIGTERM, and with the thread that started it; then the mount is gone and what hung on it has failed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import stat
import struct
import sys
import time
from typing import Any

_MS_RDONLY, _MNT_FORCE, _MNT_DETACH = 1, 1, 2
_PR_SET_PDEATHSIG = 1
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


class Server:
    def __init__(self, fuse: int, content: int) -> None:
        self.fuse = fuse
        self.content = content
        self.bad: list[tuple[int, int]] = []
        self.short: dict[int, int] = {}
        self.answering = True
        self.asked: list[tuple[int, int]] = []
        self.held: list[tuple[int, int, int]] = []
        self.seconds, self.heads = 0.0, 1
        self.served: list[tuple[float, int, int, int]] = []  # with the time at which each is done, in order

    def serve(self) -> None:
        while True:
            self.spin()
            left = max(0.0, self.served[0][0] - time.monotonic()) if self.served else None
            ready, _, _ = select.select([self.fuse, sys.stdin], [], [], left)
            if not ready:
                continue
            if sys.stdin in ready:
                line = os.read(0, _ROOM)
                if not line:
                    return
                self.obey(json.loads(line))
            elif not self.request():
                return

    def obey(self, order: dict[str, Any]) -> None:
        """One order: the other side waits for the answer before it gives the next one."""
        if "bad" in order:
            self.bad = [(start, end) for start, end in order["bad"]]
        if "short" in order:
            self.short = dict(map(tuple, order["short"]))  # type: ignore[arg-type]
        self.seconds, self.heads = order.get("slow", (self.seconds, self.heads))
        self.answering = order.get("answering", self.answering)
        if self.answering and not self.seconds:
            held, self.held = self.held, []
            for unique, offset, length in held:
                self.answer(unique, *self.read(offset, length))
        print(json.dumps(self.asked), flush=True)

    def spin(self) -> None:
        """A slow disk: each head serves one read, in the time that each takes, and then the next one that waits."""
        now = time.monotonic()
        while self.served and self.served[0][0] <= now:
            _, unique, offset, length = self.served.pop(0)
            self.answer(unique, *self.read(offset, length))
        while self.seconds and self.held and len(self.served) < self.heads:
            self.served.append((now + self.seconds, *self.held.pop(0)))

    def request(self) -> bool:
        """Take one request of the kernel; False when the mount is gone."""
        try:
            request = os.read(self.fuse, _ROOM + 4096)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.ENOENT)
        _, opcode, unique, *_ = _IN.unpack_from(request)
        if opcode == _READ:
            _, offset, length, *_ = _READ_IN.unpack_from(request, _IN.size)
            self.asked.append((offset, length))
            if self.answering and not self.seconds:
                self.answer(unique, *self.read(offset, length))
            else:
                self.held.append((unique, offset, length))
        elif opcode not in (_INTERRUPT, *_FORGET):
            self.answer(unique, *self.other(opcode))
        return True

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        content = os.pread(self.content, length, offset)
        if any(offset < bad_end and start < offset + len(content) for start, bad_end in self.bad):
            return -errno.EIO, b""
        return 0, content[: self.short.get(offset, length)]

    def other(self, opcode: int) -> tuple[int, bytes]:
        if opcode == _INIT:
            flags = _ASYNC_READ | _ASYNC_DIO | _MAX_PAGES
            return 0, _INIT_OUT.pack(7, 31, 0, flags, 64, 48, _ROOM, 1, _ROOM // 4096, 0, 0, *(0,) * 7)
        if opcode == _GETATTR:
            size = os.fstat(self.content).st_size
            return 0, _ATTR_OUT.pack(
                *(0, 0, 0, _ROOT, size, size // 512, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o400, 1, 0, 0, 0, 4096, 0)
            )
        if opcode == _OPEN:
            return 0, _OPEN_OUT.pack(1, _FOPEN_DIRECT_IO, 0)
        if opcode in (_RELEASE, _FLUSH):
            return 0, b""
        return -errno.ENOSYS, b""

    def answer(self, unique: int, error: int, payload: bytes) -> None:
        try:
            os.writev(self.fuse, [_OUT.pack(_OUT.size + len(payload), error, unique), payload])
        except OSError as problem:
            if problem.errno != errno.ENOENT:  # who asked has gone
                raise


def main(path: str, content: str) -> None:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests end the pipe
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.close(os.open(path, os.O_CREAT, 0o600))
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=100400,user_id=0,group_id=0,max_read={_ROOM}".encode()
    if _LIBC.mount(b"faulty", os.fsencode(path), b"fuse", _MS_RDONLY, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    try:
        Server(fuse, os.open(content, os.O_RDONLY)).serve()
    finally:
        _LIBC.umount2(os.fsencode(path), _MNT_FORCE)  # whatever hangs on it fails
        _LIBC.umount2(os.fsencode(path), _MNT_DETACH)


if __name__ == "__main__":
    main(*sys.argv[1:])
