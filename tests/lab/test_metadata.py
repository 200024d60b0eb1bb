"""The backup of metadata on a real, mounted OCFS2: what it costs, and that it alone gives images back when the file system is gone."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab import doctoring, splitting
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import ops
from tests.lab.results import Results
from tests.lab.storage import alloc, call, path

REPRODUCES = {"metadata-backup-none", "metadata-backup-old", "metadata-backup-damaged"}
MIB = 1 << 20
BELOW = "/var/lib/pvedrbdstor/metadata"
BLOCK = 4096
SUPERBLOCK = b"OCFSV2"
INODE = b"INODE01"


def save(node: Node, *options: str) -> dict[str, Any]:
    """The set that was made."""
    out = node.run(f"pvedrbdstor metadata save --json {STORAGE} {' '.join(options)}", 60)
    return dict(json.loads(out[out.index("[") :])[0])


def findings(node: Node) -> dict[str, dict[str, Any]]:
    """Those of the backup of metadata, by id."""
    return {each["id"]: each for each in doctoring.findings(node) if each["id"].startswith("metadata-")}


def destroy(disk: Path) -> int:
    """Every superblock, and every inode, of the file system on a copy of a disk: how many blocks."""
    destroyed = 0
    with disk.open("r+b") as file:
        size = disk.stat().st_size
        for at in range(0, size, BLOCK):
            file.seek(at)
            if file.read(8).rstrip(b"\0") in (SUPERBLOCK, INODE):
                file.seek(at)
                file.write(bytes(BLOCK))
                destroyed += 1
    return destroyed


def opens(disk: Path) -> bool:
    """Whether OCFS2's own tools still find a file system there."""
    command = ["debugfs.ocfs2", "-R", "ls -l /images", str(disk)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "Bad magic" not in found.stderr and found.stdout.strip() != ""


def test_images_come_back_from_a_disk_without_inodes(
    volumes: Cluster, vmid: int, tmp_path: Path, results: Results
) -> None:
    """A raw image with holes, its snapshot that shares blocks with it, and a qcow2 image; the map is of the other node."""
    a, b = volumes.nodes
    raw, qcow2 = alloc(a, vmid, 64 * MIB), alloc(a, vmid, 64 * MIB, "qcow2")
    ops(a, "write_pattern", path(a, raw), "first", 3 * MIB, 8 * MIB)
    call(a, "volume_snapshot", raw, "one")
    ops(a, "write_pattern", path(a, raw), "second", 7 * MIB, 8 * MIB)
    ops(a, "write_pattern", path(a, qcow2), "third", 2 * MIB, 5 * MIB)
    names = {name: name.removeprefix(f"{MOUNT_POINT}/") for name in (path(a, raw), path(a, raw, "one"), path(a, qcow2))}
    before = {name: ops(b, "digest", name) for name in names}
    a.run("sync")
    made = save(b)
    manifest = made["manifest"]
    assert manifest["missing"] == {} and manifest["map"]["failed"] == []
    assert {
        "cluster.conf",
        "drbd.res",
        "drbd-show.txt",
        "lower.txt",
        "map.jsonl.gz",
        "storage.cfg",
        "superblock.bin",
    } <= set(manifest["files"])
    assert b.run(f"stat -c %a {BELOW}/{STORAGE} {made['path']}").split() == ["700", "700"]

    disk = tmp_path / "disk.img"
    subprocess.run(["cp", "--sparse=always", str(b.disk), str(disk)], check=True)
    assert opens(disk)
    assert destroy(disk) > 10
    assert not opens(disk)

    began = time.monotonic()
    for name, inside in names.items():
        asked = inside.removeprefix("images/")
        target = tmp_path / Path(inside).name
        script = b.run(f"pvedrbdstor metadata locate {made['path']} {asked} --from {disk} --to {target}")
        subprocess.run(["sh", "-c", script], check=True, timeout=120)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == before[name], name
    results.row(
        "Images from a disk whose superblocks and inodes are gone",
        key=("images",),
        images=len(names),
        save_seconds=f"{made['seconds']:.1f}",
        set_bytes=made["bytes"],
        seconds=f"{time.monotonic() - began:.1f}",
    )
    for volid in (raw, qcow2):
        call(a, "vdisk_free", volid)


def test_the_finding_is_cleared_by_its_own_command(volumes: Cluster) -> None:
    on_each(volumes.nodes, splitting.prepare)
    on_each(volumes.nodes, doctoring.compiled)
    on_each(volumes.nodes, lambda node: node.run(f"rm -rf {BELOW}"))
    found = findings(volumes.a)
    assert set(found) == {"metadata-backup-none"}
    assert found["metadata-backup-none"]["nodes"] == ["nodea", "nodeb"]
    command = found["metadata-backup-none"]["commands"][0]
    on_each(volumes.nodes, lambda node: node.run(command, 60))
    assert findings(volumes.a) == {}
    volumes.b.run(f"echo more >>{BELOW}/{STORAGE}/nodeb-*/map.jsonl.gz")
    damaged = findings(volumes.a)["metadata-backup-damaged"]
    assert damaged["nodes"] == ["nodeb"]
    assert volumes.b.sh("pvedrbdstor metadata list").rc == 1
    volumes.b.run(damaged["commands"][0], 60)
    assert findings(volumes.a) == {}
    volumes.a.run("date -s '+36 days'")
    try:
        old = findings(volumes.a)["metadata-backup-old"]
        assert old["nodes"] == ["nodea"]
        volumes.a.run(old["commands"][0], 60)
        assert findings(volumes.a) == {}
    finally:
        volumes.a.run("date -s '-36 days'")


@pytest.mark.soak
def test_what_would_be_lost_with_it_and_what_is_not_mounted_is_refused(volumes: Cluster) -> None:
    a = volumes.a
    inside = a.sh(f"pvedrbdstor metadata save {STORAGE} --to {MOUNT_POINT}/saved")
    assert inside.rc == 75 and "lies on the storage itself" in inside.out
    a.run(f"rm -rf {MOUNT_POINT}/saved; pvedrbdstor mirror down {STORAGE}", 60)
    try:
        refused = a.sh(f"pvedrbdstor metadata save {STORAGE}")
        assert refused.rc == 69 and f"pvedrbdstor mirror up {STORAGE}" in refused.out, refused.out
        everything = a.sh("pvedrbdstor metadata save")
        assert everything.rc == 0 and re.search("passed over", everything.out), everything.out
    finally:
        a.run(f"pvedrbdstor mirror up {STORAGE}", 150)
