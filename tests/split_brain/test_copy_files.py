"""Copying what one side has changed: what is written meanwhile is noticed, a second try copies nothing twice, no name collides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import copies, files, look, lvm, manifest, preserve, snapshot
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.manifest import Copied
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.fencing.split.side import FileState, Side
from pvedrbdstor.fencing.split.steps import Preserve

MIB = 1 << 20


class Storage:
    """A folder as a mounted storage, all of which was changed by this side. during: called after each file that is copied."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.aside = root / "storage", root / "aside" / "ha-split-T"
        (self.root / "images" / "100").mkdir(parents=True)
        self.config = StorageConfig("ha", str(self.root), "r0")
        self.journal = Journal("ha", "pve1", "pve2", 0.0, 2, 4, None, Preserve.FILES, str(self.aside))
        self.read_only = True
        self.during: Callable[[str], None] = lambda path: None
        self.copied: list[str] = []
        monkeypatch.setattr(look, "look", lambda config, **_: self.side())
        monkeypatch.setattr(preserve, "Mounted", lambda config: self.mounted())

    @contextmanager
    def opened(self) -> Iterator[SimpleNamespace]:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield SimpleNamespace(root_fd=fd)
        finally:
            os.close(fd)

    @contextmanager
    def mounted(self) -> Iterator[SimpleNamespace]:
        with self.opened() as opened:

            def copy(path: str, folder: str, progress: copies.Progress) -> Copied:
                self.copied.append(path)
                done = copies.copy_file(opened.root_fd, path, folder, progress)
                self.during(path)
                return done

            def walk(sure: Sequence[Range], perhaps: Sequence[Range] | None) -> Iterator[FileState]:
                return files.walk(opened.root_fd, sure, perhaps)

            yield SimpleNamespace(read_only=self.read_only, walk=walk, copy=copy)

    def side(self) -> Side:
        with self.opened() as opened:
            return Side("ha", "pve2", 0.0, mounted=True, files=tuple(files.walk(opened.root_fd, (), None)))

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    def copy(self) -> Journal:
        self.copied.clear()
        return preserve.copy_files(self.journal, self.config, lambda _: None)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    made = Storage(tmp_path, monkeypatch)
    for number in range(3):
        made.write(f"images/100/disk-{number}", bytes([number + 1]) * 5000)
    return made


def test_names_of_the_storage_never_collide_with_ours_or_with_a_half_copied_one(storage: Storage) -> None:
    names = ["MANIFEST.json", "device.img", "copied.jsonl", "part", "disk", "disk.part", "images/100/disk-0.part"]
    for name in names:
        storage.write(name, name.encode())
    journal = storage.copy()
    assert set(names) < set(journal.files)
    assert all((storage.aside / "files" / name).read_bytes() == name.encode() for name in names)
    preserve.check(journal, lambda _: None)
    assert not (storage.aside / "part").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "images/100/disk-0").write_bytes(b"new"), "disk-0 has changed"),
        (lambda root: os.truncate(root / "images/100/disk-2", 7), "disk-2 has changed"),
        (lambda root: (root / "made").write_bytes(b""), "made has come"),
        (lambda root: (root / "images/100/disk-0").unlink(), "disk-0 has gone"),
    ],
)
def test_what_is_changed_while_files_are_copied_stops_it(
    storage: Storage, change: Callable[[Path], None], words: str
) -> None:
    storage.during = lambda path: change(storage.root) if path.endswith("disk-1") else None
    with pytest.raises(SplitStepFailed, match=words):
        storage.copy()
    assert manifest.read_manifest(str(storage.aside)) is None


def test_a_write_whose_time_is_set_back_is_noticed(storage: Storage) -> None:
    image = storage.root / "images/100/disk-0"
    status = image.stat()

    def rewrite(path: str) -> None:
        if path.endswith("disk-1"):
            image.write_bytes(b"z" * 5000)
            os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))

    storage.during = rewrite
    with pytest.raises(SplitStepFailed, match="disk-0 has changed"):
        storage.copy()


def test_a_mount_that_became_writable_meanwhile_stops_it(storage: Storage) -> None:
    storage.read_only = False
    with pytest.raises(SplitStepFailed, match="has become writable"):
        storage.copy()


def test_a_second_try_copies_only_what_is_not_there_or_was_changed_since(storage: Storage) -> None:
    def crash(path: str) -> None:
        if path.endswith("disk-2"):
            raise KeyboardInterrupt

    storage.during = crash
    with pytest.raises(KeyboardInterrupt):
        storage.copy()
    storage.during = lambda path: None
    storage.write("images/100/disk-0", b"other" * 1000)
    with (storage.aside / "copied.jsonl").open("a") as file:
        file.write('{"path": "images/100/disk-1", "cop')  # as a crash leaves it
    journal = storage.copy()
    assert [path[-6:] for path in storage.copied] == ["disk-0", "disk-2"]
    preserve.check(journal, lambda _: None)
    storage.copy()
    assert storage.copied == []


def test_what_was_removed_since_the_plan_was_made_is_no_reason_to_stop_for_ever(storage: Storage) -> None:
    storage.journal = replace(storage.journal, files=("images/100/disk-0", "dump/old.zst"))
    journal = storage.copy()
    assert "dump/old.zst" not in journal.files and "images/100/disk-0" in journal.files
    preserve.check(journal, lambda _: None)


HOUR_NS = 3600 * 10**9


def side_of(*files_: FileState, since: float | None, hint: bool = True) -> Side:
    return Side("ha", "pve2", 7200.0, since=since, mounted=True, hint=hint, files=files_)


def test_where_nobody_knows_when_the_copies_parted_times_of_the_other_side_or_nothing_tell_what_is_old() -> None:
    """A clone or a rollback lies on old blocks, of which no bitmap has a bit."""
    old = FileState("images/100/disk-0", 4096, 4096, HOUR_NS, inode=1)
    clone = FileState("images/101/disk-0", 4096, 4096, HOUR_NS, inode=2)
    unknown = side_of(old, clone, since=None)
    assert preserve.to_copy(unknown, None) == (old, clone)
    assert preserve.to_copy(unknown, side_of(old, since=None)) == (clone,)
    rolled_back = replace(clone, modified=HOUR_NS // 2, inode=3)
    assert preserve.to_copy(unknown, side_of(old, rolled_back, since=None)) == (clone,)
    assert preserve.to_copy(side_of(old, clone, since=5000.0), None) == ()
    assert preserve.to_copy(side_of(old, clone, since=3600.0), None) == (old, clone)
    assert preserve.to_copy(side_of(old, clone, since=5000.0, hint=False), None) == (old, clone)


def test_room_is_wanted_only_for_what_is_still_to_be_copied(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.copy()
    storage.write("images/100/disk-3", b"x" * 5000)
    used = next(file.used for file in storage.side().files if file.path.endswith("disk-3"))
    monkeypatch.setattr(copies, "room", lambda folder: used)
    storage.copy()
    assert len(storage.copied) == 1
    storage.write("images/100/disk-3", b"y" * 5000)
    monkeypatch.setattr(copies, "room", lambda folder: used - 1)
    with pytest.raises(SplitRefused, match="has room for"):
        storage.copy()


def test_a_copy_that_is_found_wrong_is_made_again(storage: Storage) -> None:
    journal = storage.copy()
    (storage.aside / "files/images/100/disk-1").write_bytes(b"\xff" * 5000)
    with pytest.raises(SplitStepFailed, match="disk-1"):
        preserve.check(journal, lambda _: None)
    storage.copy()
    assert [path[-6:] for path in storage.copied] == ["disk-1"]
    preserve.check(journal, lambda _: None)


def test_every_folder_up_to_the_one_above_is_brought_to_the_disk(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    monkeypatch.setattr(manifest, "sync_folder", synced.add)
    storage.copy()
    aside = str(storage.aside)
    wanted = {
        str(storage.aside.parent),
        aside,
        f"{aside}/files",
        f"{aside}/files/images",
        f"{aside}/files/images/100",
    }
    assert wanted <= synced


def test_a_device_that_does_not_fit_where_files_would_have_says_how_files_can_be_copied(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "room", lambda folder: 5)
    with pytest.raises(SplitRefused, match="--abandon"):
        preserve.copy_device(storage.journal, "/dev/null", lambda _: None, size=6)
    with pytest.raises(SplitRefused, match="again") as refused:
        preserve.copy_device(replace(storage.journal, preserve=Preserve.DEVICE), "/dev/null", lambda _: None, size=6)
    assert "--abandon" not in str(refused.value)


# --- what was preserved against the device -----------------------------------------------------------------------


def test_copies_of_files_say_nothing_of_a_device(storage: Storage) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        preserve.differs_from_device(storage.journal, "/dev/null", 0, lambda _: None)


def test_an_image_is_the_device_as_long_as_nobody_writes_its_data(tmp_path: Path) -> None:
    device, size = tmp_path / "device", 2 * MIB + 512
    device.write_bytes(b"d" * size + b"metadata")
    journal = Journal("ha", "pve1", "pve2", 0.0, 2, 4, None, Preserve.DEVICE, str(tmp_path / "aside"))
    assert "no image" in (preserve.differs_from_device(journal, str(device), size, lambda _: None) or "")
    preserve.copy_device(journal, str(device), lambda _: None, size=size)
    with device.open("r+b") as file:
        file.seek(size)
        file.write(b"METADATA")
    assert preserve.differs_from_device(journal, str(device), size, lambda _: None) is None
    assert "bytes" in (preserve.differs_from_device(journal, str(device), size + 8, lambda _: None) or "")
    with device.open("r+b") as file:
        file.seek(size - 1)
        file.write(b"D")
    assert "other data" in (preserve.differs_from_device(journal, str(device), size, lambda _: None) or "")


def test_a_snapshot_is_activated_and_compared_with_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, place, size = tmp_path / "device", tmp_path / "pve" / "r0-split-T", 2 * CHUNK + 512
    device.write_bytes(b"d" * size + b"metadata")
    journal = Journal("ha", "pve1", "pve2", 0.0, 2, 4, None, Preserve.SNAPSHOT, "pve/r0-split-T")
    sound = "  Vwi---tz-k;r0;;\n"

    def lvm_(argv: list[str], **_: object) -> object:
        if argv == lvm.activate("pve/r0-split-T"):
            place.parent.mkdir()
            place.write_bytes(b"d" * size + b"METADATA")
        return SimpleNamespace(status=0, stdout=sound, stderr="")

    monkeypatch.setattr(command, "run", lvm_)
    monkeypatch.setattr(snapshot, "DEVICES", str(tmp_path))
    assert preserve.differs_from_device(journal, str(device), size, lambda _: None) is None
    with device.open("r+b") as file:
        file.seek(CHUNK + 7)
        file.write(b"D")
    found = preserve.differs_from_device(journal, str(device), size, lambda _: None)
    assert found is not None and f"from byte {CHUNK}" in found
    sound = ""
    assert "not there" in (preserve.differs_from_device(journal, str(device), size, lambda _: None) or "")


def test_a_file_whose_reading_was_cut_off_is_not_on_record(storage: Storage) -> None:
    storage.aside.mkdir(parents=True)
    copied = Copied(4, "digest", 1, 2, 3)
    manifest.note(str(storage.aside), "gone", copied)
    assert manifest.noted(str(storage.aside)) == {}
    (storage.aside / "files").mkdir()
    (storage.aside / "files/gone").write_bytes(b"1234")
    assert manifest.noted(str(storage.aside)) == {"gone": copied}
    manifest.note(str(storage.aside), "gone", replace(copied, size=5))
    assert manifest.noted(str(storage.aside)) == {}
