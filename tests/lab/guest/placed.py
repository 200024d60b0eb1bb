"""Run in a node: files whose blocks say where they belong, where those lie on the device, and what verify says is
there.

python3 -m tests.lab.guest.placed write FOLDER SEED     files with tagged blocks, clones and folders, some removed
again python3 -m tests.lab.guest.placed scan DEVICE           {"offset on the device": [path, offset]} of tagged
blocks, past the cache python3 -m tests.lab.guest.placed where ROOT DEVICE FILE    what it says of the ranges [[start,
length], ...] in a file, of all if empty
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from pvedrbdstor import native
from pvedrbdstor.verify.meaning import as_json
from pvedrbdstor.verify.where import where

BLOCK = 4096
_MAGIC = b"PLACED-BLOCK "
_STEP = 1 << 20


def write(folder: str, seed: str) -> None:
    chance = random.Random(seed)
    root = Path(folder)
    for number in range(12):
        path = root / f"{number % 3}/file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for block in sorted(chance.sample(range(400), chance.randint(1, 120))):
                file.seek(block * BLOCK)
                file.write(_tagged(path, block))
            file.flush()
            os.fsync(file.fileno())
        if number % 4 == 3:
            clone = path.with_name(f"clone-{number}")
            with path.open("rb") as source, clone.open("wb") as target:
                native.reflink_fd(source.fileno(), target.fileno())
    for number in range(150):
        inner = root / f"folder-{number % 7}/inner-{number}"
        inner.mkdir(parents=True)
        (inner / "small").write_text("x")
    for number in range(0, 12, 5):
        (root / f"{number % 3}/file-{number}").unlink()
    os.sync()


def _tagged(path: Path, block: int) -> bytes:
    return (_MAGIC + json.dumps([str(path), block * BLOCK]).encode() + b"\n").ljust(BLOCK, b".")


def scan(device: str) -> dict[str, list[object]]:
    found = {}
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    with native.AlignedBuffer(_STEP) as buffer:
        for at in range(0, native.device_size(fd), _STEP):
            count = buffer.pread(fd, at)
            data = bytes(buffer.view[:count])
            if _MAGIC in data:
                for inside in range(0, count, BLOCK):
                    block = data[inside : inside + BLOCK]
                    if block.startswith(_MAGIC):
                        found[str(at + inside)] = json.loads(block[len(_MAGIC) :].partition(b"\n")[0])
    os.close(fd)
    return found


def of_ranges(root: str, device: str, file: str) -> dict[str, object]:
    wanted = json.loads(Path(file).read_text())
    fd = os.open(device, os.O_RDONLY)
    wanted = [tuple(it) for it in wanted] or [(0, native.device_size(fd))]
    os.close(fd)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    inodes = {
        str(os.path.relpath(os.path.join(folder, name), root)): os.lstat(os.path.join(folder, name)).st_ino
        for folder, folders, names in os.walk(root)
        for name in (*folders, *names)
    }
    return {**as_json(where(wanted, fd, device), most=1000), "inodes": inodes}


def main() -> None:
    does = {"write": write, "scan": scan, "where": of_ranges}[sys.argv[1]]
    print(json.dumps(does(*sys.argv[2:])))


if __name__ == "__main__":
    main()
