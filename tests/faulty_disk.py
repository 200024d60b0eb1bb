"""A disk of a test's making: a file whose reads fail, fall short or hang as the test says, and a loop device on it.

FUSE, mounted on a single file (include/uapi/linux/fuse.h). Needs root and /dev/fuse. Reads come to it as they are made
when the file is open with O_DIRECT; those of the loop device in its own pieces. The server (faulty_disk_server.py) is a
process of its own: one that serves what it reads itself cannot be killed while a read hangs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SERVER = Path(__file__).with_name("faulty_disk_server.py")


class FaultyDisk:
    """``path`` is a read-only file with the ``content``, both in a folder that exists."""

    def __init__(self, content: bytes, folder: Path) -> None:
        self.path = folder / "disk"
        self._content = folder / "content"
        self._content.write_bytes(content)
        self._lock = threading.Lock()
        argv = [sys.executable, str(_SERVER), str(self.path), str(self._content)]
        self._server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask({})  # once it answers it is mounted

    def replace(self, content: bytes) -> None:
        """Other content of the same size."""
        assert len(content) == self._content.stat().st_size
        with self._content.open("r+b") as file:
            file.write(content)

    def fail(self, *ranges: tuple[int, int]) -> None:
        """What touches one of these (start, end) is EIO from now on; nothing else is."""
        self._ask({"bad": ranges})

    def fall_short(self, at: dict[int, int]) -> None:
        """From now on one read from such an offset gives so many bytes at most; no other falls short."""
        self._ask({"short": list(at.items())})

    def slow(self, seconds: float, heads: int) -> None:
        """From now on each read takes so long, and so many are served at once: an array of that many spindles."""
        self._ask({"slow": (seconds, heads)})

    def hang(self) -> None:
        """Answer no read, until resume()."""
        self._ask({"answering": False})

    def resume(self) -> None:
        """Answer again, first what waits."""
        self._ask({"answering": True})

    def asked(self) -> list[tuple[int, int]]:
        """Every read so far: (offset, length)."""
        return [(offset, length) for offset, length in self._ask({})]

    def wait_for_reads(self, count: int, seconds: float = 10) -> bool:
        """Until there were so many; False when there were fewer in that time."""
        end = time.monotonic() + seconds
        while len(self.asked()) < count:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """What hangs on it goes on with an error."""
        self._server.communicate(timeout=30)

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        with self._lock:
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of {self.path} has ended; these tests need root and /dev/fuse")
        return json.loads(answer)


@contextmanager
def faulty_disk(content: bytes, folder: Path) -> Iterator[FaultyDisk]:
    disk = FaultyDisk(content, folder)
    try:
        yield disk
    finally:
        disk.close()


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
