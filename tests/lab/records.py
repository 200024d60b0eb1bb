"""What the writers of a trial were told, and what of it is on the nodes' disks: read on the host, when no node runs any more."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.guest.writer import BLOCK, BLOCKS, LINE
from tests.lab.node import Node
from tests.lab.trial import KINDS, data_file

_METADATA_ROOM = 8 << 20  # at the end of a lower disk, which is DRBD's own (formation.make_disks)
_COMPARED_AT_ONCE = 1 << 22
_FSCK_CLEAN, _FSCK_MENDED = 0, 1  # exit statuses of fsck(8)


@dataclass(frozen=True)
class Writer:
    """What the writer of one kind on one node has said: number -> when (time.time()) it was acknowledged."""

    node: str
    kind: str
    acknowledged: dict[int, float]

    def stall(self, begin: float, end: float) -> float:
        """The longest time without an acknowledgement between two moments, in seconds."""
        times = sorted(when for when in self.acknowledged.values() if begin <= when <= end)
        return max(after - before for before, after in pairwise([begin, *times, end]))

    def last(self) -> float:
        return max(self.acknowledged.values(), default=0.0)


def heard(nodes: Sequence[Node]) -> list[Writer]:
    """All writers of the nodes."""
    return [Writer(node.name, kind, _acknowledged(node.share / f"{kind}.log")) for node in nodes for kind in KINDS]


def missing(writers: Sequence[Writer], disk: Path, scratch: Path) -> list[tuple[float, str]]:
    """Acknowledged writes that are not on the disk: when each was acknowledged, and which it is. Raises LabError."""
    found = []
    for writer in writers:
        there = _numbers(writer, disk, scratch)
        found += [
            (when, f"{writer.kind} {number} of node {writer.node}")
            for number, when in writer.acknowledged.items()
            if number not in there
        ]
    return sorted(found)


def mend(disk: Path) -> None:
    """Replay the journals of a file system that was not unmounted, as the next mount would. Raises LabError."""
    done = _run("fsck.ocfs2", "-fyF", str(disk))  # F: this host is no node of the cluster that it would ask
    if done.returncode not in (_FSCK_CLEAN, _FSCK_MENDED):
        raise LabError(f"fsck.ocfs2 cannot mend {disk}: {done.stdout}{done.stderr}")


def complaints(disk: Path) -> str:
    """What a full check of the file system finds, without changing it; empty where all is well."""
    done = _run("fsck.ocfs2", "-fn", str(disk))
    return "" if done.returncode == _FSCK_CLEAN else done.stdout + done.stderr


def first_difference(one: Path, other: Path) -> int | None:
    """The first byte in which two lower disks differ, DRBD's own metadata aside."""
    size = one.stat().st_size - _METADATA_ROOM
    with one.open("rb") as left, other.open("rb") as right:
        for offset in range(0, size, _COMPARED_AT_ONCE):
            length = min(_COMPARED_AT_ONCE, size - offset)
            mine, theirs = left.read(length), right.read(length)
            if mine != theirs:
                return offset + next(index for index in range(length) if mine[index] != theirs[index])
    return None


def _acknowledged(log: Path) -> dict[int, float]:
    lines = log.read_text().splitlines() if log.exists() else []
    words = (line.split() for line in lines if " ack " in line)
    return {int(number): float(when) for when, _, number in words}


def _numbers(writer: Writer, disk: Path, scratch: Path) -> set[int]:
    """The acknowledged numbers that a disk has, or had until the same writer wrote a later one in the same place."""
    copy = scratch / "dumped"
    copy.unlink(missing_ok=True)
    _run("debugfs.ocfs2", "-R", f"dump /{Path(data_file(writer.kind, writer.node)).name} {copy}", str(disk))
    content = copy.read_bytes() if copy.exists() else b""
    if writer.kind == "cached":
        lines = (content[start : start + LINE] for start in range(0, len(content), LINE))
        return {int(line) for line in lines if line.strip().isdigit()}
    newest = {}
    for slot in range(min(BLOCKS, len(content) // BLOCK)):
        block = content[slot * BLOCK : (slot + 1) * BLOCK]
        newest[slot] = int.from_bytes(block[:8], "little") if block == block[:8] * (BLOCK // 8) else 0
    return {number for number in writer.acknowledged if newest.get(number % BLOCKS, 0) >= number}


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(argv[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise LabError(f"{argv[0]} is missing: install the packages of tests/lab/packages.txt")
    return subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=120, check=False)
