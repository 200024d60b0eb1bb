"""`pvedrbdstor verify` in the lab: differences planted below DRBD, what the report says of them, and comparisons that take a while."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each, wait_whole
from tests.lab.node import GUEST_SHARE, Node, Result
from tests.lab.results import Results
from tests.lab.storage import alloc, path

MIB = 1 << 20
BLOCK = 4096
SAVED = f"/var/lib/pvedrbdstor/verify/{STORAGE}.json"
_PLANT = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
for block in map(int, sys.stdin.read().split()):
    old = os.pread(fd, 512, block * 4096)
    os.pwrite(fd, bytes(byte ^ 255 for byte in old), block * 4096)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
"""


# --- comparing -----------------------------------------------------------------------------------------------------


def verify(node: Node, *options: str, timeout: float = 240) -> Result:
    return node.sh(f"pvedrbdstor verify {STORAGE} {shlex.join(options)}", timeout)


def found(node: Node, *options: str, timeout: float = 240) -> dict[str, Any]:
    """The document of a comparison that came to an end or was stopped."""
    result = verify(node, *options, "--json", timeout=timeout)
    assert "{" in result.out, result.out
    document, _ = json.JSONDecoder().raw_decode(result.out[result.out.index("{") :])
    assert isinstance(document, dict) and document.get("exit_status") == result.rc, result.out
    return document


def refused(nodes: Sequence[Node], reason: str, *options: str) -> None:
    """On each of the nodes it is, with this reason, and 2 for its exit status."""
    for result in on_each(nodes, lambda node: verify(node, *options)):
        assert result.rc == 2 and reason in result.out, result.out


def stopped(result: Result) -> str:
    """What a comparison says that could not go on."""
    assert result.rc == 2 and "not compared to the end" in result.out, result.out
    return result.out


def blocks(ranges: Sequence[dict[str, int]]) -> set[int]:
    return {
        block for part in ranges for block in range(part["offset"] // BLOCK, (part["offset"] + part["length"]) // BLOCK)
    }


@dataclass(frozen=True)
class Place:
    """What the report says of one block. path: below the mount point, None in no file. offset: bytes in the file, or on the device. guest:
    bytes in the guest's disk. partition: its number there. region: in words."""

    harm: str
    path: str | None
    offset: int
    guest: int | None = None
    partition: int | None = None
    region: str | None = None


def named(document: dict[str, Any]) -> dict[int, set[Place]]:
    """Block of the device -> what it is said to be. Of each kind in one file the report lists the first 100 places, and counts the others."""
    told: dict[int, set[Place]] = {}
    for entry in document["meaning"]["found"]:
        for part in entry["parts"]:
            for at in range(0, part["length"], BLOCK):
                guest = None if part["guest-offset"] is None else part["guest-offset"] + at
                place = Place(
                    entry["harm"], entry["path"], part["offset"] + at, guest, entry["partition"], entry["region"]
                )
                told.setdefault((part["device-offset"] + at) // BLOCK, set()).add(place)
    return told


def size_of(node: Node) -> int:
    return int(node.run("cat /sys/block/drbd0/size")) * 512


@contextmanager
def slow_comparison(node: Node) -> Iterator[Future[Result]]:
    """One that takes half a minute, under way: its first slice was compared, and the second one is read."""
    with ThreadPoolExecutor(1) as pool:
        node.run(f"rm -f /run/slow {SAVED}")
        command = f"pvedrbdstor verify {STORAGE} --mode full --rate 8"
        running = pool.submit(node.sh, f"echo $$ >/run/slow; exec {command}", 300)
        node.run(
            """before=$(awk '{print $3}' /sys/block/drbd0/stat)
until [ -s /run/slow ] && [ "$(awk '{print $3}' /sys/block/drbd0/stat)" -gt $((before + 65536)) ]; do sleep 0.2; done""",
            90,
        )
        yield running


def as_found(node: Node) -> None:
    """The mirror is whole, and no process of a comparison is left, neither leading nor serving."""
    told = node.run("cat /proc/drbd; pgrep -fa '[p]vedrbdstor verify' || true")
    assert "cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate" in told, told
    assert "pvedrbdstor verify" not in told, told


def served_no_more(node: Node, seconds: float) -> None:
    """The part of a comparison that serves the other node ends by itself."""
    node.run("while pgrep -f 'pvedrbdstor verify --serve'; do sleep 0.1; done", seconds)


# --- files and their places ----------------------------------------------------------------------------------------


def places(node: Node, file: str) -> list[int]:
    """The blocks of the device that a file has, in the order of the file."""
    return list(placed(node, file).values())


def placed(node: Node, file: str) -> dict[int, int]:
    """Block of the file -> block of the device, for those that it has, in the order of the file."""
    found: dict[int, int] = {}
    for line in node.run(f"sync; filefrag -v -b4096 {file}").splitlines():
        words = line.replace(":", " ").replace("..", " ").split()
        if words and words[0].isdigit():
            first, last, at = map(int, words[1:4])
            found |= {first + step: at + step for step in range(last + 1 - first)}
    return found


def image_of(node: Node, vmid: int, size: int = 16 * MIB, name: str | None = None) -> str:
    """A new image, written from end to end; nobody uses it, so that what is planted there harms no file system."""
    image = path(node, alloc(node, vmid, size, name=name))
    fill(node, image, size // MIB)
    return image


def fill(node: Node, file: str, mib: int) -> None:
    node.run(f"dd if=/dev/urandom of={file} bs=1M count={mib} oflag=direct conv=notrunc status=none", 120)


def free_space(node: Node) -> list[int]:
    """Blocks that no file has, and none will soon: those of a file that is gone, in the middle."""
    node.run(f"fallocate -l 32M {MOUNT_POINT}/gone")
    numbers = places(node, f"{MOUNT_POINT}/gone")
    node.run(f"rm {MOUNT_POINT}/gone; sync -f {MOUNT_POINT}")
    return numbers[len(numbers) // 4 : -len(numbers) // 4]


# --- differences and load --------------------------------------------------------------------------------------------


def plant(node: Node, numbers: Sequence[int]) -> None:
    """Turn the first bits of blocks of the node's disk over, behind DRBD's back. Done again, it undoes it."""
    (node.share / "planted").write_text(" ".join(map(str, numbers)))
    disk = node.run(f"drbdadm sh-ll-dev {RESOURCE}").strip()
    node.run(f"/usr/bin/python3 -S -c {shlex.quote(_PLANT)} {disk} <{GUEST_SHARE}/planted")


@contextmanager
def planted(node: Node, numbers: Sequence[int]) -> Iterator[None]:
    plant(node, numbers)
    try:
        yield
    finally:
        plant(node, numbers)


def unmarked(pair: Cluster, node: Node) -> None:
    """What DRBD's own verify has marked is copied, to this node."""
    node.run(
        f"""drbdadm detach {RESOURCE} && drbdadm attach {RESOURCE}
until grep -q ds:UpToDate/UpToDate /proc/drbd && grep -q oos:0 /proc/drbd; do sleep 0.1; done""",
        60,
    )
    wait_whole(pair.nodes)


@contextmanager
def busy(node: Node, file: str, seed: int) -> Iterator[None]:
    """While the block runs, the node writes to the file as guests do."""
    program = f"{REPOSITORY}/tests/lab/guest/busy.py"
    node.run(f"/usr/bin/python3 -S {program} {file} {seed} >/run/busy.log 2>&1 </dev/null & echo $! >/run/busy.pid")
    node.run("until [ -s /run/busy.log ]; do sleep 0.1; done", 30)
    try:
        yield
        assert int(node.run("tail -n 1 /run/busy.log").strip()) > 20
    finally:
        node.run("pid=$(cat /run/busy.pid); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done")


@contextmanager
def soon_given_up(pair: Cluster) -> Iterator[None]:
    """DRBD gives a request 20 s instead of 40 before it gives up the peer, and so long a difference under load has to last to be one."""
    on_each(pair.nodes, lambda node: node.run(f"drbdadm net-options --ko-count=3 --ping-int=3 {RESOURCE}"))
    try:
        yield
    finally:
        on_each(pair.nodes, lambda node: node.run(f"drbdadm adjust {RESOURCE}"))


def under_load(pair: Cluster, vmid: int, rounds: int, results: Results) -> None:
    """Nothing is found to differ while both nodes write, but what does. Each round has other blocks planted and is led by the other node."""
    images = [image_of(node, vmid + at, 16 * MIB) for at, node in enumerate(pair.nodes)]
    quiet = places(pair.a, image_of(pair.a, vmid, 4 * MIB, name=f"vm-{vmid}-disk-9.raw"))
    dice = random.Random(vmid)
    with ExitStack() as stack:
        for number, (node, image) in enumerate(zip(pair.nodes, images, strict=True)):
            stack.enter_context(busy(node, image, number))
        for number in range(rounds):
            different = dice.sample(quiet, dice.randint(1, 20))
            with planted(pair.b, different):
                document = found(pair.nodes[number % 2], "--mode", "full", timeout=400)
            assert document["stopped"] is None and not document["left_out"], document
            assert blocks(document["diverged"]) == set(different), document
            results.row(
                "Comparing the copies while both nodes write",
                round=str(number + 1),
                planted=str(len(different)),
                found=str(len(blocks(document["diverged"]))),
                unsettled=str(len(blocks(document["unsettled"]))),
                seconds=f"{document['seconds']:.0f}",
            )
