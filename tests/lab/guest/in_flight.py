"""Changes memory while it is being written with O_DIRECT: `python3 -S in_flight.py FILE MIB FOLDER PORT`.

Writes the first MIB of FILE, then, when there is a file FOLDER/write, again from a buffer of which it changes one block when DRBD has sent all of it, or
when it is stuck in sending it on a connection to PORT. The file FOLDER/changed then has that block's place; FOLDER/ready and FOLDER/done say how far it is.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import threading
import time

MIB = 1 << 20
BLOCK = 4096
_FULL = 16 << 10
_POLLS = 4


def counters() -> tuple[int, int]:
    """KiB sent, and requests that the other node has not answered."""
    with open("/proc/drbd", encoding="ascii") as file:
        found = re.search(r"ns:(\d+) .* pe:(\d+) ", file.read())
    assert found is not None
    return int(found[1]), int(found[2])


def queued(port: str) -> int:
    """Bytes that wait in the connection's buffer to be sent or acknowledged."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    number = f"{int(port):04X}"
    return max((int(row[4].split(":")[0], 16) for row in rows if number in (row[1][-4:], row[2][-4:])), default=0)


def wait_until_sent(before: int, length: int, port: str) -> int:
    """The place to be changed: the beginning, or a block of the request that is stuck which has been copied into the connection's buffer just before:
    DRBD counts what it has sent page by page (_drbd_no_send_page(), drbd_main.c)."""
    seen: list[int] = []
    while True:
        sent, open_there = counters()
        if sent - before >= length >> 10 and not open_there:
            return 0
        seen = [*seen[-_POLLS:], queued(port)]
        if len(seen) > _POLLS and len(set(seen)) == 1 and seen[0] >= _FULL:
            return (sent - before) * 1024 // BLOCK * BLOCK - 2 * BLOCK
        time.sleep(0.02)


def say(path: str, word: object = "") -> None:
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(str(word))
    os.rename(f"{path}.new", path)


def main(file: str, mib: str, folder: str, port: str) -> None:
    fd = os.open(file, os.O_RDWR | os.O_DIRECT)
    length = int(mib) * MIB
    buffer = mmap.mmap(-1, length)
    buffer[:] = os.urandom(MIB) * int(mib)
    os.pwrite(
        fd, buffer, 0
    )  # its extents are in the activity log then: nothing has to be written before the data any more
    buffer[:] = os.urandom(MIB) * int(mib)
    say(f"{folder}/ready")
    while not os.path.exists(f"{folder}/write"):
        time.sleep(0.01)
    before, _ = counters()
    writer = threading.Thread(target=os.pwrite, args=(fd, buffer, 0))
    writer.start()
    at = wait_until_sent(before, length, port)
    buffer[at : at + BLOCK] = os.urandom(BLOCK)
    say(f"{folder}/changed", at)
    writer.join()
    say(f"{folder}/done")


if __name__ == "__main__":
    main(*sys.argv[1:])
