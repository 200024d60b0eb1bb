"""What `pvedrbdstor doctor` tells of operations that were cut off, images in many pieces and what is no volume; each cleared by doing what its remedy says.

Proxmox is not in the lab: what `qm disk move` and `qm delsnapshot` do to the storage, they do through the plugin, and the copying by qemu-img.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, Finding, doctor, follow, found_by, prepare, told
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.test_doctor_guests import PROGRAMS, STAND_INS, write_program
from tests.lab.test_node_death import Kind, stall

REPRODUCES = {"volume-interrupted", "volume-fragmented", "volume-unlooked", "volume-foreign"}
MIB, CLUSTER = 1 << 20, 64 << 10
CONF = f"{GUESTS}/100.conf"
RECOVER = f"pvedrbdstor volume recover {STORAGE}"
FREE = Kind("free with snapshots", "free_image", {"is_base": False}, "free.image-gone", snapshot=True)
AWAY = f"{GUEST_SHARE}/away.raw"
PIECES, CLONES, ROUNDS = 2560, 80, 5
SCATTER = f"""
import mmap, os, random, sys
block = mmap.mmap(-1, {CLUSTER})
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
for at in random.Random(1).sample(range({PIECES}), {PIECES}):
    block.seek(0)
    block.write(os.urandom({CLUSTER}))
    os.pwrite(fd, block, at * {CLUSTER})
"""


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    prepare(volumes)
    yield volumes
    on_each(volumes.nodes, lambda node: node.run(f"rm -f {CONF} {AWAY}"))


def configure(pair: Cluster, lines: list[str]) -> None:
    """Of guest 100, which is off, as both nodes have it."""
    text = "\n".join(["memory: 512", *lines, ""])
    on_each(pair.nodes, lambda node: node.run(f"printf %s {shlex.quote(text)} >{CONF}"))


@pytest.mark.soak
def test_an_operation_that_a_crash_cut_off_is_finished_and_one_that_runs_is_left_alone(pair: Cluster) -> None:
    a, b = pair.nodes
    configure(pair, [])
    stall(a, 100, FREE)  # the image is gone, its snapshots are not
    runs = told(found_by(b, "volume-interrupted")["volume-interrupted"], "warning", "")
    follow([b], runs, [RECOVER])
    cut_off = found_by(b, "volume-interrupted")["volume-interrupted"]
    a.run(f"kill -9 $(cat {GUEST_SHARE}/reached)")
    assert cut_off["commands"] == [RECOVER]
    assert "operations finished: 1" in b.run(RECOVER)
    found_by(b)


def scattered(pair: Cluster) -> str:
    """A guest's image that it has filled in no order, a cluster at a time."""
    volid = storage.alloc(pair.a, 100, PIECES * CLUSTER)
    configure(pair, [f"scsi0: {volid},cache=writeback"])
    pair.a.run(f"/usr/bin/python3 -S -c {shlex.quote(SCATTER)} {storage.path(pair.a, volid)}", 180)
    return volid


def move_away(node: Node, volid: str) -> None:
    """What `qm disk move 100 scsi0 local --delete 1` does."""
    node.run(f"qemu-img convert -f raw -O raw {storage.path(node, volid)} {AWAY}", 120)
    storage.call(node, "vdisk_free", volid)


def move_back(node: Node) -> str:
    """What `qm disk move 100 scsi0 STORAGE --delete 1` does."""
    volid = storage.alloc(node, 100, PIECES * CLUSTER)
    node.run(f"qemu-img convert -n -f raw -O raw {AWAY} {storage.path(node, volid)}", 120)
    return volid


def digest(node: Node, volid: str) -> str:
    return node.run(f"sha256sum {storage.path(node, volid)}", 60).split()[0]


@pytest.mark.soak
def test_an_image_in_many_pieces_is_moved_away_and_back(pair: Cluster) -> None:
    """With a snapshot, which is removed first, as is said."""
    a = pair.a
    volid = scattered(pair)
    storage.call(a, "volume_snapshot", volid, "old")
    before = digest(a, volid)
    many = told(found_by(a, "volume-fragmented")["volume-fragmented"], "hint", "")
    pieces = re.search(r"1 image .*/vm-100-disk-0\.raw \((\d+) pieces of 64 KiB\)", many["title"])
    assert pieces is not None and int(pieces[1]) > 2000, many["title"]
    listed, remove, move, *_of_a_container = many["commands"]
    assert (
        remove == "qm delsnapshot 100 NAME"
        and move == "qm disk move 100 DISK STORAGE --delete 1"
        and "with the guest off" in many["remedy"]
    )
    assert "old" in a.run(listed).split(), "it shows what there is to remove"
    storage.call(a, "volume_snapshot_delete", volid, "old")
    move_away(a, volid)
    back = move_back(a)
    configure(pair, [f"scsi0: {back},cache=writeback"])
    found_by(a)
    assert digest(pair.b, back) == before


@pytest.mark.soak
def test_more_images_than_there_is_time_for(pair: Cluster) -> None:
    """Clones of one that is in many pieces, which share all of them. Nothing is to be done; without the clones the next look is whole."""
    a, b = pair.nodes
    volid = scattered(pair)
    clones: list[str] = []
    folder = f"{MOUNT_POINT}/images/100"
    for _ in range(ROUNDS):  # on a fast machine more are needed
        names = [f"vm-100-disk-{len(clones) + at}.raw" for at in range(1, CLONES + 1)]
        b.run(
            f"cd {folder} && for name in {' '.join(names)}; do cp --reflink=always vm-100-disk-0.raw $name; done", 120
        )
        clones += [f"{STORAGE}:100/{name}" for name in names]
        configure(pair, [f"scsi0: {volid},cache=writeback", *(f"unused{at}: {each}" for at, each in enumerate(clones))])
        if "volume-unlooked" in (found := doctor(a)):
            break
    assert set(found) - NEVER_COMPARED == {"volume-unlooked", "volume-fragmented"}, list(found.values())
    unlooked = told(found["volume-unlooked"], "hint", "")
    (count,) = unlooked["commands"]
    assert unlooked["remedy"].startswith("Nothing needs to be done.") and count.startswith(f"filefrag {folder}/")
    extents = re.search(r": (\d+) extents found", a.run(count))
    assert extents is not None and int(extents[1]) > 2000
    storage.call_many(a, [("vdisk_free", each) for each in clones], 300)
    configure(pair, [f"scsi0: {volid},cache=writeback"])
    found_by(a, "volume-fragmented")


def carry_out(node: Node, finding: Finding, *expected: str, answer: str = "") -> None:
    """These commands of the remedy, word by word, but for a container's. answer: to what they ask."""
    told(finding, "hint", "")
    offered = [command for command in finding["commands"] if not command.startswith("pct ")]
    assert [command for command in offered if command in expected] == list(expected), offered
    for command in expected:
        node.run(f"PATH={PROGRAMS}:$PATH; {f'echo {answer} | ' if answer else ''}{command}", 60)


@pytest.mark.soak
def test_files_that_are_no_volumes_and_snapshots_without_their_image(pair: Cluster) -> None:
    """A note, which is removed, and a disk's image that somebody copied there, which is kept; then an image that somebody removed by hand."""
    a, b = pair.nodes
    write_program(a, f"{PROGRAMS}/qm", STAND_INS["qm"])
    folder, volid = f"{MOUNT_POINT}/images/100", storage.alloc(a, 100, MIB)
    configure(pair, [f"scsi0: {volid},cache=writeback"])
    a.run(f"dd if=/dev/urandom of={storage.path(a, volid)} bs=1M count=1 conv=notrunc status=none")
    before = digest(a, volid)
    for name in ("one", "two"):
        storage.call(a, "volume_snapshot", volid, name)
    found_by(b)

    b.run(f"printf text >{folder}/note; head -c 1M /dev/urandom >{folder}/restored.img")
    copied = b.run(f"sha256sum {folder}/restored.img").split()[0]
    stray = found_by(a, "volume-foreign")["volume-foreign"]
    assert stray["title"].startswith("2 files ") and "images/100/note, images/100/restored.img" in stray["title"]
    carry_out(a, stray, f"ls -l {folder}/note")
    carry_out(a, stray, f"rm --interactive {folder}/note", answer="y")
    image = f"{folder}/restored.img"
    kept = (f"mv --no-clobber {image} {folder}/vm-100-disk-1.raw", "qm disk rescan --vmid 100")
    carry_out(a, found_by(a, "volume-foreign")["volume-foreign"], f"ls -l {image}", f"qemu-img info {image}", *kept)
    found_by(a)
    assert digest(b, f"{STORAGE}:100/vm-100-disk-1.raw") == copied

    a.run(f"rm {storage.path(a, volid)} && sed -i /^scsi0/d {CONF}")
    lone = found_by(a, "volume-foreign")["volume-foreign"]
    assert lone["title"].startswith("2 snapshots ") and "/one.raw" in lone["title"]
    snapshots = f"{folder}/.snapshots/vm-100-disk-0.raw"
    again = (f"mv --no-clobber {snapshots}/one.raw {storage.path(a, volid)}", "qm disk rescan --vmid 100")
    carry_out(a, lone, f"ls -l {snapshots}", *again, "pvedrbdstor volume free --help")
    found_by(a)
    assert digest(b, volid) == before
    a.run(f"sed -i /vm-100-disk-0/d {CONF} && pvedrbdstor volume free {volid}")  # as that help says
    found_by(a)
    assert b.sh(f"ls {folder}/.snapshots").rc != 0, "the other one has gone with it"
