"""How the side to lose is preserved: the choice, LVM's answers, copies that are what they are copies of."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor import command
from pvedrbdstor.errors import SplitStepFailed
from pvedrbdstor.fencing.split import copies, lvm, manifest, preserve, snapshot
from pvedrbdstor.fencing.split.manifest import Manifest
from pvedrbdstor.fencing.split.plan import Refusal
from pvedrbdstor.fencing.split.preserve import Choice, choose
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.fencing.split.steps import Preserve, Step
from tests.split_brain import world

GIB = 1 << 30
LV = lvm.Volume("pve", "r0", 100 * GIB, 200 * GIB, "")
FOUND = {
    "storage": "ha",
    "stamp": "T",
    "volume": LV,
    "marked": ((0, GIB),),
    "folder": None,
    "unfit": None,
    "room": 0,
    "files": GIB,
    "device": 100 * GIB,
    "hints": True,
}
POOL = lvm.Pool(200 * GIB, 25.0, 10.0, "", 1 << 16)
THIN = replace(LV, pool="data", thin=POOL)


def chosen(**values: object) -> Choice | Refusal:
    return choose(**{**FOUND, **values})  # type: ignore[arg-type]


def test_a_snapshot_that_cannot_overflow_where_there_is_room() -> None:
    assert chosen() == Choice(Preserve.SNAPSHOT, "pve/r0-split-T", LV.full_snapshot)
    assert LV.full_snapshot > LV.size


@given(st.integers(1, 1 << 45), st.integers(0, 1 << 45), st.integers(0, 1 << 40), st.booleans())
def test_lvm_takes_whole_sectors_alone(size: int, free: int, changed: int, hints: bool) -> None:
    """As it is: `Size is not a multiple of 512`. And what nobody knows the size of gets room for all of it."""
    found = lvm.snapshot_size(lvm.Volume("vg", "r0", size, free, ""), changed, hints=hints)
    assert found is None or (found % (1 << 20) == 0 and found <= free)
    assert found is None or found >= (min(size, changed) if hints else size)


def test_a_smaller_one_that_holds_what_the_resync_overwrites_several_times() -> None:
    small = replace(LV, group_free=20 * GIB)
    assert chosen(volume=small) == Choice(Preserve.SNAPSHOT, "pve/r0-split-T", 18 * GIB)
    refused = chosen(volume=replace(LV, group_free=2 * GIB))
    assert isinstance(refused, Refusal) and "--preserve-to" in refused.remedy


def test_a_smaller_one_could_overflow_where_a_side_s_changes_are_not_known() -> None:
    refused = chosen(volume=replace(LV, group_free=20 * GIB), hints=False)
    assert isinstance(refused, Refusal) and "nobody knows" in refused.cause and "101 GiB" in refused.cause
    assert chosen(hints=False) == Choice(Preserve.SNAPSHOT, "pve/r0-split-T", LV.full_snapshot)


def test_a_thin_one_has_no_size() -> None:
    assert chosen(volume=THIN) == Choice(Preserve.SNAPSHOT, "pve/r0-split-T", 0)


@pytest.mark.parametrize(
    ("pool", "hints", "words"),
    [
        (replace(POOL, data=99.5), True, "1.0 GiB free, and up to 1.0 GiB"),
        (replace(POOL, data=98.9), True, None),
        (replace(POOL, data=98.9), False, "up to 100.0 GiB"),
        (replace(POOL, data=100.0), True, "0.0 GiB free"),
        (replace(POOL, health="out_of_data"), True, "not healthy (out_of_data)"),
        (replace(POOL, metadata=60.0), True, "60 % of its metadata"),
        (None, True, "does not tell"),
    ],
)
def test_a_thin_pool_must_be_sound_and_have_room(pool: lvm.Pool | None, hints: bool, words: str | None) -> None:
    found = chosen(volume=replace(THIN, thin=pool), hints=hints)
    if words is None:
        assert isinstance(found, Choice)
    else:
        assert isinstance(found, Refusal) and words in found.cause and "pve/data" in found.cause


def test_without_lvm_a_folder_must_be_named_and_must_have_room() -> None:
    refused = chosen(volume=None)
    assert isinstance(refused, Refusal) and "no logical volume" in refused.cause and "1 GiB" in refused.remedy
    full = chosen(folder="/aside", room=GIB - 1)
    assert isinstance(full, Refusal) and "room" in full.cause
    assert chosen(folder="/aside", room=GIB) == Choice(Preserve.FILES, "/aside/ha-split-T", needed=GIB)
    memory = chosen(folder="/aside", room=GIB, unfit="it lies in memory (tmpfs)")
    assert isinstance(memory, Refusal) and "tmpfs" in memory.cause


def test_what_is_not_mounted_is_copied_as_a_device() -> None:
    refused = chosen(folder="/aside", files=None, room=99 * GIB)
    assert isinstance(refused, Refusal) and "100 GiB" in refused.cause
    taken = chosen(folder="/aside", files=None, room=100 * GIB)
    assert isinstance(taken, Choice) and taken.how is Preserve.DEVICE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("  pve;r0;107374182400;214748364800;linear;\n", LV),
        ("  pve;r0;107374182400;214748364800;thin;data\n", replace(LV, pool="data")),
        ("", None),
        ("  pve;r0;big;1;linear;\n", None),
    ],
)
def test_what_lvs_says_of_a_device(text: str, found: lvm.Volume | None) -> None:
    assert lvm.parse(text) == found


def test_of_a_thin_volume_the_pool_is_asked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "/dev/pve/r0": "  pve;r0;107374182400;214748364800;thin;data\n",
        "pve/data": f"  {200 * GIB};25.00;10.00;;65536\n",
    }
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, answers[argv[-1]], ""))
    assert snapshot.volume_of("/dev/pve/r0") == THIN
    answers["pve/data"] = f"  {200 * GIB};;;;65536\n"
    assert snapshot.volume_of("/dev/pve/r0") == replace(THIN, thin=None)


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("  swi-a-s---;r0;12.50;\n", True),
        ("  Vwi-a-tz--;r0;100.00;\n", True),
        ("  Vwi---tz-k;r0;;\n", True),
        ("  Swi-I-s---;r0;100.00;\n", False),
        ("  swi-a-s---;r0;100.00;\n", False),
        ("  swi---s---;r0;;\n", False),
        ("  swi-a-s---;r0;12.50;partial\n", False),
        ("  Vwi-a-tzF-;r0;12.50;failed\n", False),
        ("  -wi-ao----;;;\n", False),
        ("", False),
    ],
)
def test_a_snapshot_that_has_overflowed_or_is_damaged_is_none(text: str, sound: bool) -> None:
    assert lvm.is_sound(text) is sound


class Lvm:
    """Answers as LVM does, and keeps the command lines."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = []
        self.snapshots: dict[str, str] = {}

    def __call__(self, argv: list[str], **_: object) -> command.Result:
        self.lines.append(argv)
        match argv:
            case ["lvs", *_, "lv_attr,origin,data_percent,lv_health_status", target]:
                found = self.snapshots.get(target)
                return command.Result(0 if found else 5, f"  {found}\n" if found else "", "")
            case ["lvs", *_, device]:
                return command.Result(
                    0 if device == "/dev/pve/r0" else 5, "  pve;r0;107374182400;214748364800;linear;\n", ""
                )
            case ["lvcreate", *_, name, origin]:
                self.snapshots[f"{origin.partition('/')[0]}/{name}"] = "swi-a-s---;r0;0.00;"
                return command.Result(0, "", "")
        raise AssertionError(argv)


JOURNAL = replace(world.JOURNAL, preserve=Preserve.SNAPSHOT, target="pve/r0-split-T", size=LV.full_snapshot)


def test_the_snapshot_is_made_once_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Lvm()
    monkeypatch.setattr(command, "run", fake)
    assert not preserve.is_there(JOURNAL)
    snapshot.make(JOURNAL, "/dev/pve/r0")
    snapshot.make(JOURNAL, "/dev/pve/r0")
    made = [line for line in fake.lines if line[0] == "lvcreate"]
    assert made == [
        *([["lvcreate", "--yes", "--snapshot", "--size", f"{LV.full_snapshot}b", "--name", "r0-split-T", "pve/r0"]]),
    ]
    preserve.check(JOURNAL, lambda _: None)
    fake.snapshots["pve/r0-split-T"] = "Swi-I-s---;r0;;"
    with pytest.raises(SplitStepFailed, match="not there, or not whole"):
        preserve.check(JOURNAL, lambda _: None)
    assert snapshot.volume_of("/dev/sda") is None


# --- copies ------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # it writes files
@given(st.lists(st.sampled_from(["data", "zero", "hole"]), min_size=1, max_size=5), st.integers(0, 4096))
def test_a_copy_is_what_it_is_a_copy_of(tmp_path_factory: pytest.TempPathFactory, parts: list[str], tail: int) -> None:
    root = tmp_path_factory.mktemp("copies")
    (root / "images").mkdir()
    with (root / "images" / "disk.raw").open("wb") as file:
        for number, part in enumerate(parts):
            if part != "hole":
                file.seek(number * CHUNK)
                file.write((b"x" if part == "data" else b"\0") * CHUNK)
        file.truncate((len(parts) - 1) * CHUNK + tail)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        copied = copies.copy_file(fd, "images/disk.raw", str(root / "aside"), lambda _: None)
    finally:
        os.close(fd)
    manifest.write_manifest(str(root / "aside"), Manifest({"images/disk.raw": copied}))
    assert (root / "aside/files/images/disk.raw").read_bytes() == (root / "images/disk.raw").read_bytes()
    assert manifest.are_there(str(root / "aside"))
    assert copies.wrong(str(root / "aside"), lambda _: None) is None


def test_a_copy_that_was_changed_is_told(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(b"x" * 3000)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        copied = copies.copy_file(fd, "disk.raw", str(tmp_path / "aside"), lambda _: None)
    finally:
        os.close(fd)
    aside = str(tmp_path / "aside")
    manifest.write_manifest(aside, Manifest({"disk.raw": copied}))
    (tmp_path / "aside/files/disk.raw").write_bytes(b"x" * 2999 + b"y")
    assert manifest.are_there(aside) and copies.wrong(aside, lambda _: None) == "disk.raw"
    (tmp_path / "aside/files/disk.raw").write_bytes(b"x")
    assert not manifest.are_there(aside)
    journal = replace(JOURNAL, preserve=Preserve.FILES, target=aside)
    with pytest.raises(SplitStepFailed, match=Step.CHECK.value):
        preserve.check(journal, lambda _: None)


def test_of_a_device_only_the_data_are_copied_and_metadata_behind_them_are_not(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(b"d" * (CHUNK + 3 * 512) + b"m" * CHUNK)
    aside = str(tmp_path / "aside")
    journal = replace(JOURNAL, preserve=Preserve.DEVICE, target=aside)
    preserve.copy_device(journal, str(device), lambda _: None, size=CHUNK + 3 * 512)
    assert (tmp_path / "aside" / manifest.DEVICE_FILE).read_bytes() == b"d" * (CHUNK + 3 * 512)
    preserve.check(journal, lambda _: None)
    with pytest.raises(OSError, match="ends at byte"):
        preserve.copy_device(journal, str(device), lambda _: None, size=3 * CHUNK)


def test_memory_is_no_place_for_copies() -> None:
    assert "memory" in (copies.unfit("/dev/shm") or "")
