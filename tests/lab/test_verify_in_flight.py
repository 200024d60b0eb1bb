"""Memory that a program changes while it is being written leaves a real difference, which `pvedrbdstor verify` tells as what it is."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import DRBD_PORT, RESOURCE, STORAGE, wait_whole
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.verifying import BLOCK, blocks, found, image_of, places, verify

_PROGRAM = f"{REPOSITORY}/tests/lab/guest/in_flight.py"
_FOLDER = "in-flight"
_ATTEMPTS = 5


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{path} has not come")
        time.sleep(0.01)


def change_in_flight(pair: Cluster, image: str, mib: int, *, stuck: bool) -> int:
    """Write the first mib of an image on a, and change one block meanwhile, whose place in the file is returned: when the other node has the old one
    and the own disk, which stands still, has it yet to take. stuck: in the middle of being sent, so that DRBD can see it."""
    a = pair.a
    folder = a.share / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    a.run(
        f"/usr/bin/python3 -S {_PROGRAM} {image} {mib} {GUEST_SHARE}/{_FOLDER} {DRBD_PORT} "
        ">/run/in-flight.log 2>&1 </dev/null &"
    )
    wait_for(folder / "ready")
    with a.disk_held():
        if stuck:
            pair.network.cut()
        try:
            (folder / "write").touch()
            wait_for(folder / "changed")
        finally:
            if stuck:
                pair.network.heal()
    wait_for(folder / "done")
    return int((folder / "changed").read_text())


@contextmanager
def used_by_a_vm(node: Node, vmid: int, options: str) -> Iterator[None]:
    """In a lab without Proxmox's list of guests every guest counts as one that runs."""
    file = f"/etc/pve/nodes/node{node.name}/qemu-server/{vmid}.conf"
    node.run(f"mkdir -p $(dirname {file}) && echo 'scsi0: {STORAGE}:{vmid}/vm-{vmid}-disk-0.raw,{options}' >{file}")
    try:
        yield
    finally:
        node.run(f"rm {file}")


@contextmanager
def watched(pair: Cluster) -> Iterator[None]:
    """DRBD compares what it sends before and after, and has no room for a whole request in the connection, which is made anew."""
    file = f"/etc/drbd.d/{RESOURCE}.res"
    edit = "s/verify-alg crc32c;/& data-integrity-alg crc32c; sndbuf-size 64k;/"
    connect_anew(pair, f"sed -i.kept '{edit}' {file}")
    try:
        yield
    finally:
        connect_anew(pair, f"mv {file}.kept {file}")


def connect_anew(pair: Cluster, change: str) -> None:
    """With a configuration that was changed meanwhile."""
    a, b = pair.nodes
    b.run(f"pvedrbdstor mirror down {STORAGE} --stop", 60)
    for node in pair.nodes:
        node.run(change)
    a.run(f"drbdadm adjust {RESOURCE}")
    b.run(f"pvedrbdstor mirror up {STORAGE}", 120)
    wait_whole(pair.nodes)


@contextmanager
def mended(pair: Cluster, image: str) -> Iterator[None]:
    """What differs is the same again afterwards, as when the program writes it again, and in any case for the tests that follow."""
    try:
        yield
    finally:
        pair.a.run(f"dd if=/dev/urandom of={image} bs=1M count=16 oflag=direct conv=notrunc status=none", 60)
    assert found(pair.a, "--mode", "allocated")["verdict"] == "clean"


def test_without_a_digest_it_is_told_as_possible_and_no_more(pair: Cluster, vmid: int) -> None:
    a = pair.a
    image = image_of(a, vmid)
    with mended(pair, image):
        at = change_in_flight(pair, image, 1, stuck=False)
        different = {places(a, image)[at // BLOCK]}
        with used_by_a_vm(a, vmid, "cache=none,size=16M"):
            document = found(a, "--mode", "allocated")
            assert blocks(document["diverged"]) == different and document["exit_status"] == 1
            (entry,) = document["meaning"]["found"]
            assert entry["harm"] == "unknown-image-data" and entry["perhaps-in-flight"], entry
            told = verify(a, "--mode", "allocated").out
            assert "may be memory that was changed while it was written" in told, told
            assert "data-integrity-alg in net" in told, told
        with used_by_a_vm(a, vmid, "cache=writeback,size=16M"):
            (entry,) = found(a, "--mode", "allocated")["meaning"]["found"]
            assert not entry["perhaps-in-flight"], "through the page cache no program can change it"


@pytest.mark.soak
def test_what_drbd_has_seen_is_a_class_of_its_own_on_either_node(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid)
    with watched(pair), mended(pair, image):
        for _ in range(_ATTEMPTS):  # it may be stuck between two requests
            at = change_in_flight(pair, image, 1, stuck=True)
            seen = re.findall(r"modified by upper layers during write: (\d+)s \+(\d+)", a.run("dmesg"))
            block = places(a, image)[at // BLOCK]
            if any(int(start) * 512 <= block * BLOCK < int(start) * 512 + int(size) for start, size in seen):
                break
        else:
            pytest.fail(f"DRBD has said nothing of it: byte {at} of the file, block {block}, {seen}")
        for node in (a, b):
            document = found(node, "--mode", "full")
            assert blocks(document["diverged"]) == {block} and document["exit_status"] == 1, document
            (entry,) = document["meaning"]["found"]
            assert entry["harm"] == "in-flight" and entry["path"] == image.partition(f"/{STORAGE}/")[2], entry
        told = verify(b, "--mode", "allocated").out
        assert "Memory that was changed while it was written, as DRBD's log says" in told, told
        assert "See whether it is written again" in told
