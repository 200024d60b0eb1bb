"""From ranges of the device to files and what is in them, on a real file system that shares blocks (XFS)."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.mirror.walk import Entry, walk
from pvedrbdstor.verify import where as module
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.meaning import Found, Meaning, as_json
from pvedrbdstor.verify.where import where
from tests.examples import examples
from tests.loopback import Loopback
from tests.verify.disks import BARE, GAP, MIB, ROOT, SWAP, partitioned, write

BLOCK = 4096
IMAGE = "images/100/vm-100-disk-0.raw"
RUNS = {100: Guest(100, "VM", True, "pve1", "web")}
STOPPED = {100: Guest(100, "VM", False, "pve1", "web")}


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def look(fs: Loopback, folder: Path, ranges: list[Range], guests: dict[int, Guest] | None = None) -> Meaning:
    os.sync()
    with opened(folder) as fd:
        return where(ranges, fd, fs.device, guests=guests, used=lambda name: f"scsi0 of {name}")


def extents(path: Path) -> list[native.Extent]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(native.fiemap(fd, sync=True))
    finally:
        os.close(fd)


def on_device(path: Path, at: int, length: int = BLOCK) -> Range:
    """Where a place of a file lies."""
    found = next(it for it in extents(path) if it.logical <= at < it.logical + it.length)
    return found.physical + at - found.logical, length


def clone(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as one, target.open("wb") as two:
        native.reflink_fd(one.fileno(), two.fileno())


def image(folder: Path) -> Path:
    path = folder / IMAGE
    path.parent.mkdir(parents=True)
    partitioned(path)
    for at in (SWAP, ROOT, BARE, GAP):
        write(path, at)
    os.sync()
    return path


def in_image(meaning: Meaning, path: str = IMAGE) -> list[Found]:
    return [found for found in meaning.found if found.path == path]


# --- files -----------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_block_is_named_with_all_files_that_have_it(seed: int, reflink_fs: Loopback, reflink_dir: Path) -> None:
    """Random files and reflinks of them, random ranges, against FIEMAP block by block."""
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(dir=reflink_dir))
    for number in range(chance.randint(1, 5)):
        path = folder / f"dump/{chance.randint(0, 2)}/file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for _ in range(chance.randint(1, 12)):
                file.seek(chance.randrange(64) * BLOCK)
                file.write(b"d" * BLOCK)
        os.sync()
        if chance.random() < 0.6:
            clone(path, folder / f"dump/copy-{number}")
            write(path, chance.randrange(8) * BLOCK)
    os.sync()
    files = [path for path in folder.rglob("*") if path.is_file()]
    blocks = {  # XFS reserves more than is written where it copies before it writes
        (path, extent.logical + at, extent.physical + at, extent.unwritten)
        for path in files
        for extent in extents(path)
        for at in range(0, extent.length, BLOCK)
    }
    ranges = [
        (max(0, physical - chance.choice([0, 512, BLOCK])), chance.choice([512, BLOCK, 5 * BLOCK]))
        for _, _, physical, _ in chance.sample(sorted(blocks), min(len(blocks), 6))
    ]
    wanted = {at for start, length in ranges for at in range(start, start + length, 512)}
    expected = {
        (str(path.relative_to(folder)), logical + at, physical + at)
        for path, logical, physical, unwritten in blocks
        for at in range(0, BLOCK, 512)
        if physical + at in wanted and not unwritten and logical + at < path.stat().st_size
    }
    meaning = look(reflink_fs, folder, ranges)
    got = [
        (found.path, part.offset + at, part.device + at)
        for found in meaning.found
        if found.path and found.harm is Harm.CONTENT
        for part in found.parts
        for at in range(0, part.length, 512)
    ]
    assert set(got) == expected
    assert len(got) == len(expected)
    owned = {device for _, _, device in expected}
    rest = [found for found in meaning.found if not found.path]
    unowned = {part.device + at for found in rest for part in found.parts for at in range(0, part.length, 512)}
    assert unowned == wanted - {physical + at for _, _, physical, _ in blocks for at in range(0, BLOCK, 512)}
    assert not owned & unowned


def test_reserved_blocks_and_those_behind_the_end_are_free(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = reflink_dir / "dump" / "vzdump.log"
    path.parent.mkdir()
    path.write_bytes(b"d" * 1000)
    with path.open("r+b") as file:
        native.fallocate(file.fileno(), 64 * BLOCK, BLOCK, keep_size=True)
    os.sync()
    found = look(reflink_fs, reflink_dir, [on_device(path, 0), on_device(path, 64 * BLOCK)]).found
    assert [(it.harm, it.region, it.bytes) for it in found] == [
        (Harm.CONTENT, "", 1000),
        (Harm.FREE, "behind its end, in its last cluster", BLOCK - 1000),
        (Harm.FREE, "reserved, never written", BLOCK),
    ]


def test_files_that_go_while_all_are_walked_are_no_error(
    reflink_fs: Loopback, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (reflink_dir / f"{number}").mkdir()
        (reflink_dir / f"{number}/file").write_bytes(b"d" * BLOCK)
    (reflink_dir / "0/later").write_bytes(b"d" * BLOCK)
    os.sync()
    wanted = [on_device(reflink_dir / f"{number}/file", 0) for number in range(6)]
    plain = native.fiemap

    def removing(fd: int, *arguments: object, **named: object) -> Iterator[native.Extent]:
        for number in (2, 3):  # the first time; then they are gone
            (reflink_dir / f"{number}/file").unlink(missing_ok=True)
        if named["path"] == "0/file":  # whose folder has been listed
            (reflink_dir / "0/later").unlink()
        if (reflink_dir / "4").is_dir():
            (reflink_dir / "4/file").unlink(missing_ok=True)
            (reflink_dir / "4").rmdir()
        return plain(fd, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "fiemap", removing)
    meaning = look(reflink_fs, reflink_dir, wanted)
    assert [found.path for found in meaning.found if found.path] == ["0/file", "1/file", "5/file"]
    assert [remark for remark in meaning.remarks if "superblock" not in remark] == []


def test_pipes_links_and_devices_are_left_alone(reflink_dir: Path) -> None:
    os.mkfifo(reflink_dir / "pipe")
    (reflink_dir / "link").symlink_to("/etc/passwd")
    os.mknod(reflink_dir / "zero", 0o20600, os.makedev(1, 5))
    (reflink_dir / "file").write_bytes(b"d")
    with opened(reflink_dir) as fd:
        assert [entry.path for entry in walk(fd)] == ["file"]
        assert [entry.path for entry in walk(fd, folders=True)] == [".", "file"]


def test_more_pieces_than_are_kept_are_counted(
    reflink_fs: Loopback, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECES_MAX", 20)
    for name in ("a", "b"):
        with (reflink_dir / name).open("wb") as file:
            for block in range(50):
                file.seek(2 * block * BLOCK)
                file.write(b"d" * BLOCK)
    os.sync()
    ranges = [on_device(reflink_dir / name, 2 * block * BLOCK) for name in ("a", "b") for block in range(50)]
    meaning = look(reflink_fs, reflink_dir, ranges)
    counts = {(found.path, found.region != ""): (found.count, found.bytes) for found in meaning.found}
    assert counts == {
        ("a", False): (20, 20 * BLOCK),
        ("a", True): (30, 30 * BLOCK),
        ("b", False): (16, 16 * BLOCK),
        ("b", True): (34, 34 * BLOCK),
    }


def test_a_name_can_do_nothing_to_a_terminal(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = reflink_dir / "evil\n\x1b[2J\u202ename"
    path.write_bytes(b"d" * BLOCK)
    os.sync()
    assert [found.path for found in look(reflink_fs, reflink_dir, [on_device(path, 0)]).found] == ["evil??[2J?name"]


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "harm", "text"),
    [
        (0, Harm.RUNNING, "the guest's partition table (GPT)"),
        (SWAP, Harm.SWAP, "partition 1 (swap)"),
        (ROOT, Harm.RUNNING, "partition 2 'linux' (ext4 \"root\")"),
        (BARE, Harm.UNKNOWN, "partition 3 (no known file system)"),
        (GAP, Harm.UNKNOWN, "outside of the guest's partitions"),
    ],
)
def test_a_place_in_an_image_is_that_of_the_partition(
    reflink_fs: Loopback, reflink_dir: Path, place: int, harm: Harm, text: str
) -> None:
    path = image(reflink_dir)
    found = look(reflink_fs, reflink_dir, [on_device(path, place)], RUNS).found
    assert [(it.harm, it.path, it.region, it.parts[0].offset, it.parts[0].guest) for it in found] == [
        (harm, IMAGE, text, place, place)
    ]
    assert (found[0].vmid, found[0].guest, found[0].used) == (100, RUNS[100], "scsi0 of 100/vm-100-disk-0.raw")


@pytest.mark.parametrize(
    ("guests", "harm"), [(RUNS, Harm.RUNNING), (STOPPED, Harm.GUEST), ({}, Harm.GUEST), (None, Harm.RUNNING)]
)
def test_a_guest_whose_state_nobody_knows_counts_as_one_that_runs(
    reflink_fs: Loopback, reflink_dir: Path, guests: dict[int, Guest] | None, harm: Harm
) -> None:
    path = image(reflink_dir)
    assert look(reflink_fs, reflink_dir, [on_device(path, ROOT)], guests).worst is harm


def test_a_file_system_on_the_bare_disk_has_no_partitions_even_if_it_looks_so(
    reflink_fs: Loopback, reflink_dir: Path
) -> None:
    path = image(reflink_dir)
    subprocess.run(["mkfs.vfat", "-F", "32", "-n", "BARE", path], check=True, capture_output=True)
    entry = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    write(path, 446, entry + bytes(48))
    found = look(reflink_fs, reflink_dir, [on_device(path, ROOT)], STOPPED).found
    assert [(it.harm, it.region) for it in found] == [(Harm.GUEST, 'the whole disk (vfat "BARE")')]


def test_hibernated_swap_is_data(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    write(path, MIB + 4086, b"S1SUSPEND\0")
    found = look(reflink_fs, reflink_dir, [on_device(path, SWAP)], STOPPED).found
    assert (found[0].harm, found[0].region) == (Harm.GUEST, "partition 1 (swap, with a hibernated guest in it)")


def test_image_and_snapshot_that_share_a_block_are_both_named(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    snapshots = path.parent / ".snapshots" / path.name
    clone(path, snapshots / "old.raw")
    write(path, ROOT, b"y" * 4096)
    os.sync()
    clone(path, snapshots / "new.raw")
    own = look(reflink_fs, reflink_dir, [on_device(path, ROOT)], RUNS)
    names = {found.path: found for found in own.found}
    new = f"images/100/.snapshots/{path.name}/new.raw"
    assert {name: found.harm for name, found in names.items()} == {IMAGE: Harm.RUNNING, new: Harm.SNAPSHOT}
    assert (names[IMAGE].shared, names[IMAGE].intact) == ((new,), ("old",))
    assert (names[new].shared, names[new].snapshot) == ((IMAGE,), "new")
    old = look(reflink_fs, reflink_dir, [on_device(snapshots / "old.raw", ROOT)], RUNS)
    assert [(found.harm, found.snapshot) for found in old.found] == [(Harm.SNAPSHOT, "old")]


def test_intact_snapshots_are_told_from_the_oldest_to_the_newest(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    for name in ("b", "a", "c", "current", "no name"):  # the last two are none
        clone(path, path.parent / ".snapshots" / path.name / f"{name}.raw")
    write(path, ROOT, b"y" * 4096)
    os.sync()
    assert in_image(look(reflink_fs, reflink_dir, [on_device(path, ROOT)], RUNS))[0].intact == ("b", "a", "c")


def snapshots_of(path: Path, *names: str) -> list[Path]:
    """With an inode each that was made in their order."""
    made = [path.parent / ".snapshots" / path.name / f"{name}.raw" for name in names]
    for snapshot in made:
        clone(path, snapshot)
    write(path, ROOT)
    os.sync()
    return made


def test_a_snapshot_whose_extents_cannot_be_read_is_not_called_intact(
    reflink_fs: Loopback, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(reflink_dir)
    snapshots_of(path, "good", "unread")
    fiemap = native.fiemap

    def failing(fd: int, *, path: str = "", sync: bool = False) -> Iterator[native.Extent]:
        if path.endswith("/unread.raw"):
            raise OSError(errno.EIO, "Input/output error", path)
        return iter(fiemap(fd, path=path, sync=sync))

    place = on_device(path, ROOT)
    monkeypatch.setattr(native, "fiemap", failing)
    meaning = look(reflink_fs, reflink_dir, [place], RUNS)
    assert in_image(meaning)[0].intact == ("good",)
    assert any("unread.raw" in remark for remark in meaning.remarks)


def test_a_snapshot_whose_inode_differs_is_not_called_intact(
    reflink_fs: Loopback, reflink_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XFS numbers its inodes otherwise than OCFS2, where the number is that of the block: so the numbers are made up."""
    path = image(reflink_dir)
    far = 1 << 40

    def walked(*arguments: object, **options: object) -> Iterator[Entry]:
        for entry in walk(*arguments, **options):  # type: ignore[arg-type]
            number = (far + (BLOCK if entry.path.endswith("/differs.raw") else 0)) // BLOCK
            yield replace(entry, status=os.stat_result((entry.status.st_mode, number, *entry.status[2:])))

    snapshots_of(path, "differs", "good")
    os.sync()
    with opened(reflink_dir) as fd:
        monkeypatch.setattr(module, "walk", walked)
        found = module._Look([on_device(path, ROOT), (far + BLOCK, 512)], "images", RUNS)
        for _ in found.files(fd, BLOCK):
            pass
    told = module._found(found, RUNS, lambda _: "")
    assert [it.intact for it in told if it.path == IMAGE] == [("good",)]
    assert any("inode of" in it.region and "differs.raw" in it.region for it in told)


def test_work_files_and_templates_are_told_apart(reflink_fs: Loopback, reflink_dir: Path) -> None:
    ranges = []
    names = (".drbdocfs2/work/new.100.1", "template/iso/a.iso", "dump/vzdump-qemu-100.vma", "images/100/snap-a.qcow2")
    for name in names:
        path = reflink_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"d" * BLOCK)
        os.sync()
        ranges.append(on_device(path, 0))
    found = look(reflink_fs, reflink_dir, ranges, RUNS).found
    assert {it.path: (it.harm, it.what) for it in found} == {
        names[0]: (Harm.WORK, "work in progress"),
        names[1]: (Harm.CONTENT, "ISO image"),
        names[2]: (Harm.CONTENT, "backup"),
        names[3]: (Harm.UNKNOWN, "image"),
    }
    assert [it.harm for it in found] == sorted((it.harm for it in found), key=lambda harm: harm.rank)


def test_neighbours_are_one_place(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    write(path, ROOT, b"y" * 16 * BLOCK)
    os.sync()
    ranges = merged([on_device(path, ROOT + BLOCK * number) for number in range(16)])
    found = in_image(look(reflink_fs, reflink_dir, list(ranges), RUNS))
    assert sum(it.bytes for it in found) == 16 * BLOCK
    assert sum(it.count for it in found) == len(ranges)


def test_json_is_bounded_and_names_its_units(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    told = as_json(look(reflink_fs, reflink_dir, [on_device(path, SWAP), on_device(path, ROOT)], RUNS), most=1)
    found = told["found"]
    assert isinstance(found, list)
    assert (told["bytes"], told["worst"]) == (2 * BLOCK, "running-guest")
    assert found[0]["parts"] == [
        {"offset": ROOT, "length": BLOCK, "device-offset": on_device(path, ROOT)[0], "guest-offset": ROOT}
    ]
    assert (found[0]["partition"], found[0]["holds"], found[1]["holds"]) == (2, "ext4", "swap")
