"""What tests do inside a node: one function an operation, called as `python3 -m tests.lab.guest.ops NAME ARGUMENT...`.

The result is printed as JSON. A failing system call gives {"errno": "NAME"}: tests compare that too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import inspect
import json
import mmap
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

FICLONE = 0x40049409  # ioctl_ficlonerange(2)
TAG_LENGTH = 32  # bytes
_TABLE: dict[str, Callable[..., object]] = {}


def operation(function: Callable[..., object]) -> Callable[..., object]:
    """Make a function callable from the host by its name."""
    _TABLE[function.__name__] = function
    return function


@operation
def ficlone(source: str, target: str) -> None:
    """Make ``target`` a reflink of ``source``."""
    with open(source, "rb") as original, open(target, "wb") as clone:
        fcntl.ioctl(clone, FICLONE, original.fileno())


@operation
def write(path: str, text: str) -> None:
    """Replace the content of a file, and sync it."""
    with open(path, "w") as file:
        file.write(text)
        os.fsync(file.fileno())


@operation
def read(path: str) -> str:
    return Path(path).read_text()


def tag_in(path: str) -> str:
    """The tag that load.py has put at the beginning of an image; empty where nothing was written."""
    with open(path, "rb") as file:
        return file.read(TAG_LENGTH).rstrip(b"\0").decode(errors="replace")


@operation
def tags(*paths: str) -> list[str]:
    return [tag_in(path) for path in paths]


@operation
def guest_state(images: str) -> dict[str, object]:
    """All there is in the folder of a guest: image -> its size in bytes, digest, and the digests of its snapshots."""
    if not os.path.isdir(images):
        return {}
    found: dict[str, object] = {}
    for name in sorted(name for name in os.listdir(images) if not name.startswith(".")):
        folder = f"{images}/.snapshots/{name}"
        snapshots = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        found[name] = {
            "size": os.path.getsize(f"{images}/{name}"),
            "content": digest(f"{images}/{name}"),
            "snapshots": {snapshot: digest(f"{folder}/{snapshot}") for snapshot in snapshots},
        }
    return found


@operation
def list_folder(path: str) -> list[str]:
    return sorted(os.listdir(path))


@operation
def write_pattern(path: str, seed: str, offset: str, length: str) -> str:
    """Overwrite ``length`` bytes at ``offset`` with data that follow from ``seed``; sync; their SHA-256."""
    data = hashlib.shake_256(seed.encode()).digest(int(length))
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, int(offset))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return hashlib.sha256(data).hexdigest()


@operation
def digest(path: str) -> str:
    """SHA-256 of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@operation
def read_zeros(path: str) -> bool:
    """Whether a file reads as zeros only."""
    with open(path, "rb") as file:
        return not any(any(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))


@operation
def race_names(folder: str, method: str, count: str, racers: str) -> list[int]:
    """Try to win ``count`` names in an order of one's own by open, link or mkdir, when all racers are there: those won."""
    me = os.uname().nodename
    own = f"{folder}/racer.{me}"
    Path(own).touch()
    while sum(name.startswith("racer.") for name in os.listdir(folder)) < int(racers):
        time.sleep(0.001)
    order = list(range(int(count)))
    random.Random(me).shuffle(order)
    won = []
    for number in order:
        time.sleep(0.001)  # one tick of the node's clock: who has the folder's lock must not do all names in one go
        try:
            if method == "open":
                os.close(os.open(f"{folder}/open.{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            elif method == "link":
                os.link(own, f"{folder}/link.{number}")
            else:
                os.mkdir(f"{folder}/mkdir.{number}")
            won.append(number)
        except FileExistsError:
            pass
    return won


@operation
def beat(started: str, path: str, report: str) -> None:
    """Write 4 KiB by O_DIRECT to one file again and again, 50 times a second, as a guest does; until killed.

    Keeps in the file ``report``: {"writes", "longest": seconds of the longest write, "stalls": those above a second}.
    Writes the own pid to the file ``started``.
    """
    block = mmap.mmap(-1, 4096)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT | os.O_DSYNC, 0o640)
    writes, longest, stalls = 0, 0.0, []
    Path(started).write_text(str(os.getpid()))
    while True:
        began = time.monotonic()
        os.pwrite(descriptor, block, writes % 256 * 4096)
        seconds = time.monotonic() - began
        writes, longest = writes + 1, max(longest, seconds)
        if seconds > 1:
            stalls.append(round(seconds, 1))
        Path(f"{report}.new").write_text(json.dumps({"writes": writes, "longest": longest, "stalls": stalls}))
        os.rename(f"{report}.new", report)
        time.sleep(0.02)


@operation
def fill(folder: str) -> int:
    """Take all blocks that can be had, in ever smaller pieces, then all that new files can get: the number of files made."""
    made, size = 0, 64 << 20
    while True:
        made += 1
        with open(f"{folder}/fill.{made}", "wb") as file:
            while size:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size = size // 2 if size > 4096 else 0
        try:
            os.mkdir(f"{folder}/folder.{made}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return made


@operation
def falloc(path: str, size: str) -> None:
    """A new file of ``size`` bytes, all of them allocated and none written."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, int(size))


@operation
def allocated(path: str) -> int:
    """The bytes that a file has blocks for."""
    return os.stat(path).st_blocks * 512


@operation
def free_bytes(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bfree * found.f_frsize


@operation
def stat(path: str) -> None:
    """Look at a file."""
    os.stat(path)


@operation
def break_inode(device: str, path: str) -> None:
    """Give a file's inode on disk a wrong signature and a right checksum, as a bug of the file system would.

    struct ocfs2_dinode (fs/ocfs2/ocfs2_fs.h): the signature at 0, i_check at 0x80, whose first word is the CRC-32 of the
    block without i_check (fs/ocfs2/blockcheck.c). An inode's number is its block's.
    """
    number = os.stat(path).st_ino
    block = mmap.mmap(-1, 4096)
    descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
    os.preadv(descriptor, [block], number * 4096)
    assert block[:8] == b"INODE01\0", block[:8]
    block[:8] = b"BROKEN!\0"
    block[0x80:0x88] = bytes(8)
    block[0x80:0x84] = (zlib.crc32(block[:]) ^ 0xFFFFFFFF).to_bytes(4, "little")
    os.pwritev(descriptor, [block], number * 4096)
    os.close(descriptor)


@operation
def hold_flock(started: str, path: str) -> None:
    """Take the exclusive lock, write the own pid to the file ``started``, keep the lock until killed."""
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(started).write_text(str(os.getpid()))
        time.sleep(3600)


@operation
def lock_as_qemu(started: str, path: str) -> None:
    """Hold the locks that QEMU holds of an image it has open (block/file-posix.c), until killed; then as hold_flock()."""
    with open(path, "r+") as file:
        for first in (100, 201):
            fcntl.fcntl(file, 37, struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, first, 1, 0))  # F_OFD_SETLK
        Path(started).write_text(str(os.getpid()))
        time.sleep(3600)


@operation
def listen(started: str, *ports: str) -> None:
    """Accept and close TCP connections on the ports; write the own pid to the file ``started``; until killed."""
    servers = [socket.create_server(("", int(port))) for port in ports]
    Path(started).write_text(str(os.getpid()))
    while True:
        for server in select.select(servers, [], [])[0]:
            server.accept()[0].close()


@operation
def connect(address: str, port: str) -> bool:
    """Whether a TCP connection succeeds within a second."""
    try:
        socket.create_connection((address, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@operation
def try_flock(path: str) -> None:
    """Take and release the exclusive lock without waiting."""
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@operation
def wait_flock(path: str) -> float:
    """Seconds until the exclusive lock could be had."""
    started = time.monotonic()
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    return time.monotonic() - started


@operation
def keep_open(path: str, opened: str, go_on: str) -> list[str]:
    """Open a file, say so, wait for the file ``go_on``; what the descriptor reads, then what the path reads."""
    with open(path) as file:
        Path(opened).touch()
        while not os.path.exists(go_on):
            time.sleep(0.02)
        return [file.read(), Path(path).read_text()]


@operation
def set_xattr(path: str, name: str, value: str) -> None:
    os.setxattr(path, name, value.encode())


@operation
def get_xattr(path: str, name: str) -> str:
    return os.getxattr(path, name).decode()


@operation
def rename(source: str, target: str) -> None:
    os.rename(source, target)


@operation
def renameat2(source: str, target: str, flags: str) -> None:
    """renameat2(2) with its flags: 1 is NOREPLACE, 2 is EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, source.encode(), -100, target.encode(), int(flags)) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@operation
def link(source: str, target: str) -> None:
    os.link(source, target)


@operation
def file_system_id(path: str) -> int:
    """f_fsid as statvfs(3) has it: the kernel's two words, the first one in the low half."""
    return os.statvfs(path).f_fsid


@operation
def descriptor_mount_id(path: str) -> int:
    """The mount a descriptor lies on, as /proc/self/fdinfo says."""
    descriptor = os.open(path, os.O_RDONLY)
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


@operation
def mount_id(path: str) -> int:
    """The id of the mount at ``path`` in /proc/self/mountinfo."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next(int(row[0]) for row in rows if row[4] == path)


@operation
def shell(*command: str) -> str:
    """Output of a command that has to succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    function, arguments = _TABLE[sys.argv[1]], sys.argv[2:]
    inspect.signature(function).bind(*arguments)
    try:
        result = function(*arguments)
    except OSError as error:
        result = {"errno": errno.errorcode.get(error.errno or 0, str(error))}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
