"""What lies where on the mirror, known by other means than `pvedrbdstor verify`: filefrag, qemu-img, debugfs.ocfs2 and how it was made.

Each block that may be made different has its kind, and what the report has to say of it.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.storage import alloc, call, path
from tests.lab.verifying import BLOCK, MIB, Place, free_space, image_of, placed
from tests.verify import disks

DEVICE = "/dev/drbd0"
_FILLED = {1: (2 * MIB, 1 * MIB), 2: (20 * MIB, 3 * MIB), 3: (75 * MIB, 1 * MIB)}
"""Of the guest's disk of disks.partitioned(): partition -> what is written there, (from where, how many bytes)."""
_HARM = {1: "swap", 2: "running-guest", 3: "unknown-image-data"}
"""By partition; nobody tells the lab's nodes which guests run, so that all count as running."""
_REWRITTEN = {1: (2 * MIB, MIB // 2), 2: (20 * MIB, 1 * MIB)}
"""After the snapshot, which is then alone in having what was there: OCFS2 copies up to 1 MiB for each write to shared clusters."""
_UNUSED = "unused"
_NODE_B = 1  # in cluster.conf
_FILES, _FRAGMENTS = 100, 300
"""More than an inode has room for: a folder with blocks of its own, and a file with a list of extents of its own."""
_MAKE_UNUSED = """
import os, sys
folder, files, fragments = sys.argv[1], *map(int, sys.argv[2:])
os.mkdir(folder)
for number in range(files):
    with open(f"{folder}/small-with-a-name-that-takes-room-{number}", "w") as file:
        file.write("small")
with open(f"{folder}/fragments", "wb") as file:
    for number in range(fragments):
        os.pwrite(file.fileno(), bytes(4096), number << 17)
"""
_EXTENT = 4 << 20
_LOG_BLOCK, _LOG_BLOCKS = struct.Struct(">3I2H2H16x128x64I919I"), 8
"""Of DRBD's activity log: struct al_transaction_on_disk (drivers/block/drbd/drbd_actlog.c), in one stripe of 32 KiB just below the
metadata's superblock, which is the lower disk's last block (internal metadata, version 08)."""
_NO_EXTENT = 0xFFFFFFFF


@dataclass
class Ground:
    """kinds: kind -> its blocks. says: block -> what the report says of it."""

    kinds: dict[str, set[int]] = field(default_factory=dict)
    says: dict[int, set[Place]] = field(default_factory=dict)

    def add(self, kind: str, block: int, place: Place) -> None:
        self.kinds.setdefault(kind, set()).add(block)
        self.says.setdefault(block, set()).add(place)

    def choose(self, dice: random.Random, count: int, spared: set[int]) -> dict[int, str]:
        """So many blocks, fewer where there are not so many, of random kinds: block -> kind. None of those in ``spared`` extents."""
        left = {kind: [block for block in sorted(of) if extent(block) not in spared] for kind, of in self.kinds.items()}
        assert all(left.values()), f"nothing is left of {[kind for kind, of in left.items() if not of]}"
        chosen: dict[int, str] = {}
        while len(chosen) < count and any(left.values()):
            kind = dice.choice(sorted(kind for kind, of in left.items() if of))
            block = left[kind].pop(dice.randrange(len(left[kind])))
            chosen.setdefault(block, kind)
        return chosen


def extent(block: int) -> int:
    """The extent of DRBD's activity log that a block belongs to."""
    return block * BLOCK // _EXTENT


def written_extents(disk: Path) -> set[int]:
    """The extents that the activity log on a lower disk names, some of them of old: what its node had written to, and copies anew when it
    was killed."""
    found: set[int] = set()
    with disk.open("rb") as file:
        file.seek(disk.stat().st_size // BLOCK * BLOCK - (1 + _LOG_BLOCKS) * BLOCK)
        for _ in range(_LOG_BLOCKS):
            _magic, _number, _crc, _kind, updates, context, _slot, *extents = _LOG_BLOCK.unpack(file.read(BLOCK))
            found |= {*extents[:updates], *extents[64 : 64 + context]}
    return found - {_NO_EXTENT}


def survey(node: Node, vmid: int) -> Ground:
    """Make all kinds of things on an empty storage by one node, and look where they are."""
    ground = Ground()
    for number in range(2):
        _plain_image(ground, node, vmid, f"vm-{vmid}-disk-{number}.raw")
    _partitioned_image(ground, node, vmid)
    _qcow2_image(ground, node, vmid + 1)
    _metadata(ground, node)
    for block in free_space(node):
        ground.add("free", block, Place("free", None, block * BLOCK))
    return ground


# --- images ----------------------------------------------------------------------------------------------------------


def _plain_image(ground: Ground, node: Node, vmid: int, name: str) -> None:
    image = image_of(node, vmid, 8 * MIB, name=name)
    for at, block in placed(node, image).items():
        ground.add("image", block, Place("unknown-image-data", _below(image), at * BLOCK, at * BLOCK))


def _partitioned_image(ground: Ground, node: Node, vmid: int) -> None:
    """A raw image with a snapshot, which share most of their blocks."""
    volid = alloc(node, vmid, 100 * MIB)
    image = path(node, volid)
    _write_guest_disk(node, image, "raw")
    call(node, "volume_snapshot", volid, "before")
    for start, length in _REWRITTEN.values():
        node.run(
            f"dd if=/dev/urandom of={image} bs=64k seek={start >> 16} count={length >> 16} oflag=direct conv=notrunc status=none"
        )
    snapshot = path(node, volid, "before")
    now, before = placed(node, image), placed(node, snapshot)
    alone = set(before.values()) - set(now.values())
    for at, number in _written(now):
        ground.add("image", now[at], Place(_HARM[number], _below(image), at * BLOCK, at * BLOCK, number))
    for at, number in _written(before):
        harm = "swap" if _HARM[number] == "swap" else "snapshot"
        kind = "snapshot" if before[at] in alone else "image"
        ground.add(kind, before[at], Place(harm, _below(snapshot), at * BLOCK, at * BLOCK, number))
    assert len(ground.kinds["snapshot"]) * BLOCK >= sum(length for _, length in _REWRITTEN.values())


def _qcow2_image(ground: Ground, node: Node, vmid: int) -> None:
    image = path(node, alloc(node, vmid, 100 * MIB, "qcow2"))
    _write_guest_disk(node, image, "qcow2")
    where = placed(node, image)
    for part in json.loads(node.run(f"qemu-img map -U --output=json -f qcow2 {image}")):
        if not part["data"] or "offset" not in part:
            continue
        for step in range(0, part["length"], BLOCK):
            guest, at = part["start"] + step, part["offset"] + step
            number = _partition(guest)
            if number is not None:
                ground.add("qcow2", where[at // BLOCK], Place(_HARM[number], _below(image), at, guest, number))


def _write_guest_disk(node: Node, image: str, format: str) -> None:
    """The disk of disks.partitioned(), made on the host, with data in its partitions."""
    disk = node.share / "guest-disk"
    disks.partitioned(disk)
    for start, length in _FILLED.values():
        disks.write(disk, start, random.Random(start).randbytes(length))
    node.run(
        f"qemu-img convert -n --target-is-zero -f raw -O {format} -t none {GUEST_SHARE}/guest-disk {image} && sync", 120
    )
    disk.unlink()


def _written(where: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """(block of the guest's disk, partition) of those that were filled, of a raw image."""
    for at in where:
        number = _partition(at * BLOCK)
        if number is not None:
            yield at, number


def _partition(guest: int) -> int | None:
    """The partition that was filled there."""
    for number, (start, length) in _FILLED.items():
        if start <= guest < start + length:
            return number
    return None


# --- the file system's own -------------------------------------------------------------------------------------------


def _metadata(ground: Ground, node: Node) -> None:
    """What nobody needs: inodes, a folder, a list of extents, and the part of b's journal that b does not get to.

    A node that reads such a block finds its checksum wrong (metaecc), fails to read that one file, and goes on.
    """
    folder = f"{MOUNT_POINT}/{_UNUSED}"
    node.run(f"/usr/bin/python3 -S -c {shlex.quote(_MAKE_UNUSED)} {folder} {_FILES} {_FRAGMENTS} && sync", 120)
    inodes = node.run(f"stat -c '%i %n' {folder}/*").split()
    for block, name in zip(map(int, inodes[::2]), inodes[1::2], strict=True):
        _own(ground, block, f"the inode of {_below(name)}")
    size = int(node.run(f"stat -c %s {folder}"))
    for at, block in placed(node, folder).items():
        if at * BLOCK < size:
            _own(ground, block, f"the folder {_UNUSED}")
    for block in re.findall(r"Blknum: (\d+)", _debugfs(node, f"stat /{_UNUSED}/fragments")):
        _own(ground, int(block), "a list of extents")
    name = f"journal:{_slot(node, _NODE_B):04}"
    journal = _debugfs(node, f"stat //{name}")
    *_, (clusters, first) = re.findall(r"^\s*\d+\s+\d+\s+(\d+)\s+(\d+)\s+0x", journal, re.M)
    for block in range(int(first) + int(clusters) * 12, int(first) + int(clusters) * 16):
        _own(ground, block, name)


def _slot(node: Node, number: int) -> int:
    """Which of the file system's slots, and journals, the node of this number has: the free one, whenever it comes back."""
    for slot, holder in re.findall(r"^\s+(\d+)\s+(\d+)\s*$", _debugfs(node, "slotmap"), re.M):
        if int(holder) == number:
            return int(slot)
    raise LabError(f"no slot is node {number}'s")


def _own(ground: Ground, block: int, region: str) -> None:
    ground.add("metadata", block, Place("metadata", None, block * BLOCK, region=region))


def _debugfs(node: Node, request: str) -> str:
    return node.run(f"debugfs.ocfs2 -R '{request}' {DEVICE}")


def _below(file: str) -> str:
    return file.removeprefix(f"{MOUNT_POINT}/")
