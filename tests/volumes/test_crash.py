"""A process killed at any fault point leaves, after recovery, what was before or what was to be; nothing else.

Every operation is run once to learn its fault points, then once more for each of them in a child process that kills
itself there (SIGKILL, as a power cut or the OOM killer would).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pvedrbdstor
from pvedrbdstor import faultpoints
from pvedrbdstor.errors import RecoveryPending
from pvedrbdstor.volumes import images, renames, snapshots, templates, transfer
from pvedrbdstor.volumes.names import parse_volume
from pvedrbdstor.volumes.store import SNAPSHOTS
from tests.volumes.support import KIB, MIB, Area

IMAGE = "100/vm-100-disk-0.raw"
QCOW2 = "100/vm-100-disk-0.qcow2"
Prepare = Callable[[Area], None]


@dataclass(frozen=True)
class Scenario:
    """An operation, what must be there before it, and the fault points it must pass."""

    name: str
    prepare: Prepare
    act: Callable[[Area], Any]


def _nothing(area: Area) -> None:
    pass


def _image(area: Area) -> None:
    area.do(images.alloc_image, 100, "raw", None, 8 * MIB)
    area.write(IMAGE, b"first" * 1000)


def _snapshotted(area: Area) -> None:
    _image(area)
    area.do(snapshots.create_snapshot, parse_volume(IMAGE), "one")
    area.write(IMAGE, b"second" * 1000, offset=MIB)
    area.do(snapshots.create_snapshot, parse_volume(IMAGE), "two")
    area.write(IMAGE, b"third" * 1000, offset=2 * MIB)


def _made_by_dir_storage(area: Area) -> None:
    path = area.path(IMAGE)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old" * 4096)


def _strays(area: Area) -> None:
    """An image whose name was another one's, which left snapshots behind."""
    _snapshotted(area)
    folder = area.path(IMAGE).parent / SNAPSHOTS / "vm-100-disk-0.raw"
    kept = folder.rename(area.folder / "kept")
    area.do(images.free_image, parse_volume(IMAGE))
    _image(area)
    folder.parent.mkdir()
    kept.rename(folder)


def _strays_at_target(area: Area) -> None:
    _snapshotted(area)
    target = area.folder / "images" / "200" / SNAPSHOTS / "vm-200-disk-0.raw"
    target.parent.mkdir(parents=True)
    (target.parent / "vm-200-disk-0.raw").mkdir()
    (target / "old.raw").write_bytes(b"stray")


def _template(area: Area) -> None:
    _image(area)
    area.do(templates.create_base, parse_volume(IMAGE))


def _qcow2(area: Area) -> None:
    area.do(images.alloc_image, 100, "qcow2", None, 8 * MIB)


def _import(name: str, fmt: str) -> Callable[[Area], Any]:
    def act(area: Area) -> Any:
        with (area.folder / "stream").open("rb") as stream:
            volume = parse_volume(f"300/{name}")
            return area.do(transfer.import_image, volume, fmt, fmt == transfer.QCOW2, False, stream.fileno())

    return act


def _stream(prepare: Prepare, volume: str, fmt: str) -> Prepare:
    def made(area: Area) -> None:
        prepare(area)
        with (area.folder / "stream").open("wb") as stream:
            name = parse_volume(volume)
            area.do(transfer.export_image, name, fmt, None, fmt == transfer.QCOW2, stream.fileno())

    return made


SCENARIOS = [
    Scenario("alloc raw", _nothing, lambda a: a.do(images.alloc_image, 100, "raw", None, 8 * MIB)),
    Scenario(
        "alloc raw falloc",
        _nothing,
        lambda a: a.preallocating("falloc").do(images.alloc_image, 100, "raw", None, 8 * MIB),
    ),
    Scenario("alloc qcow2", _nothing, lambda a: a.do(images.alloc_image, 100, "qcow2", None, 8 * MIB)),
    Scenario("free", _image, lambda a: a.do(images.free_image, parse_volume(IMAGE))),
    Scenario("free with snapshots", _snapshotted, lambda a: a.do(images.free_image, parse_volume(IMAGE))),
    Scenario("free with strays", _strays, lambda a: a.do(images.free_image, parse_volume(IMAGE))),
    Scenario("free template", _template, lambda a: a.do(images.free_image, parse_volume("100/base-100-disk-0.raw"))),
    Scenario("resize raw", _image, lambda a: a.do(images.resize_image, parse_volume(IMAGE), 16 * MIB)),
    Scenario(
        "resize raw falloc",
        _image,
        lambda a: a.preallocating("falloc").do(images.resize_image, parse_volume(IMAGE), 16 * MIB),
    ),
    Scenario("resize qcow2", _qcow2, lambda a: a.do(images.resize_image, parse_volume(QCOW2), 16 * MIB)),
    Scenario(
        "first snapshot",
        _made_by_dir_storage,
        lambda a: a.do(snapshots.create_snapshot, parse_volume(IMAGE), "one"),
    ),
    Scenario("another snapshot", _snapshotted, lambda a: a.do(snapshots.create_snapshot, parse_volume(IMAGE), "three")),
    Scenario("snapshot over strays", _strays, lambda a: a.do(snapshots.create_snapshot, parse_volume(IMAGE), "two")),
    Scenario("delete snapshot", _snapshotted, lambda a: a.do(snapshots.delete_snapshot, parse_volume(IMAGE), "one")),
    Scenario("roll back", _snapshotted, lambda a: a.do(snapshots.rollback, parse_volume(IMAGE), "one")),
    Scenario("rename", _image, lambda a: a.do(renames.rename_volume, parse_volume(IMAGE), 200, None)),
    Scenario(
        "rename with snapshots", _snapshotted, lambda a: a.do(renames.rename_volume, parse_volume(IMAGE), 200, None)
    ),
    Scenario(
        "rename with snapshots in one guest",
        _snapshotted,
        lambda a: a.do(renames.rename_volume, parse_volume(IMAGE), 100, "vm-100-data.raw"),
    ),
    Scenario(
        "rename over strays", _strays_at_target, lambda a: a.do(renames.rename_volume, parse_volume(IMAGE), 200, None)
    ),
    Scenario("template", _image, lambda a: a.do(templates.create_base, parse_volume(IMAGE))),
    Scenario(
        "clone template",
        _template,
        lambda a: a.do(templates.clone_image, parse_volume("100/base-100-disk-0.raw"), 200, None),
    ),
    Scenario("clone snapshot", _snapshotted, lambda a: a.do(templates.clone_image, parse_volume(IMAGE), 200, "one")),
    Scenario("import raw", _stream(_snapshotted, IMAGE, "raw+size"), _import("vm-300-disk-0.raw", "raw+size")),
    Scenario("import template", _stream(_snapshotted, IMAGE, "raw+size"), _import("base-300-disk-0.raw", "raw+size")),
    Scenario("import qcow2", _stream(_qcow2, QCOW2, "qcow2+size"), _import("vm-300-disk-0.qcow2", "qcow2+size")),
]


def _points_of(area: Area, scenario: Scenario) -> list[str]:
    """The fault points the whole operation passes, in order."""
    passed: list[str] = []
    faultpoints.hook = passed.append
    try:
        scenario.act(area)
    finally:
        faultpoints.hook = None
    return passed


def _killed_at(area: Area, scenario: Scenario, index: int) -> None:
    """Run the operation in a child that kills itself at its fault point number ``index``, which it must reach."""
    assert _is_killed_at(area, scenario, index), f"the operation did not get to fault point {index}"


def _is_killed_at(area: Area, scenario: Scenario, index: int) -> bool:
    """The same; False when it ended before."""
    child = os.fork()
    if child == 0:
        countdown = [index]

        def die(_: str) -> None:
            if countdown[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            countdown[0] -= 1

        try:
            faultpoints.hook = die
            scenario.act(area)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


def _fresh(parent: Path, name: str, scenario: Scenario) -> Area:
    folder = parent / name
    folder.mkdir()
    area = Area(folder)
    scenario.prepare(area)
    return area


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_killed_anywhere_leaves_before_or_after(scenario: Scenario, reflink_dir: Path) -> None:
    model = _fresh(reflink_dir, "model", scenario)
    before = model.view()
    points = _points_of(model, scenario)
    after = model.view()
    assert points, "an operation that changes the disk passes fault points"
    assert before != after
    for index, point in enumerate(points):
        area = _fresh(reflink_dir, f"at-{index}", scenario)
        _killed_at(area, scenario, index)
        area.recover()
        seen = area.view()
        assert seen in (before, after), f"killed at {point}"
        assert [p for p in area.leftovers() if p != "stream"] == _strays_in(area, scenario), f"killed at {point}"
        assert area.recover() == {"removed": 0, "finished": 0, "undone": 0, "failed": 0}
        if seen == before:
            scenario.act(area)
            assert area.view() == after, f"repeated after being killed at {point}"
        shutil.rmtree(area.folder, onerror=_unprotected)


def _strays_in(area: Area, scenario: Scenario) -> list[str]:
    """Snapshots of an image that is long gone may stay where they were: they are nobody's, and the next use of the name removes them."""
    if scenario.prepare not in (_strays, _strays_at_target):
        return []
    return [p for p in area.leftovers() if SNAPSHOTS in p or p == "images/200"]


def _unprotected(function: Callable[[str], Any], path: str, _: Any) -> None:
    subprocess.run(["chattr", "-i", path], check=True)
    function(path)


def test_every_fault_point_of_the_source_is_passed_by_a_scenario(reflink_dir: Path) -> None:
    package = Path(pvedrbdstor.__file__).parent
    named = {point for file in package.rglob("*.py") for point in re.findall(r'reach\("([^"]+)"\)', file.read_text())}
    passed: set[str] = set()
    for number, scenario in enumerate(SCENARIOS):
        passed |= set(_points_of(_fresh(reflink_dir, str(number), scenario), scenario))
    passed |= set(_points_of(_interrupted(reflink_dir), RECOVERY))
    assert named - passed == set()


RECOVERY = Scenario("recovery", _nothing, lambda area: area.recover())


def _interrupted(reflink_dir: Path) -> Area:
    """A storage on which a file that was being built and an operation of several steps were cut off."""
    rename = next(s for s in SCENARIOS if s.name == "rename with snapshots")
    area = _fresh(reflink_dir, "interrupted", rename)
    _killed_at(area, rename, _points_of_copy(area, rename).index("rename.image-moved"))
    area.put(".drbdocfs2/work/new.300.0123456789abcdef")
    return area


@pytest.mark.parametrize(
    "name", ["roll back", "rename with snapshots", "free with snapshots", "template", "free template"]
)
def test_recovery_may_be_killed_too(name: str, reflink_dir: Path) -> None:
    scenario = next(s for s in SCENARIOS if s.name == name)
    model = _fresh(reflink_dir, "model", scenario)
    before = model.view()
    points = _points_of(model, scenario)
    after = model.view()
    kills = 0
    for index, point in enumerate(points):
        area = _fresh(reflink_dir, f"at-{index}", scenario)
        _killed_at(area, scenario, index)
        step = 0
        while _is_killed_at(area, RECOVERY, step):
            step, kills = step + 1, kills + 1
        area.recover()
        assert area.view() in (before, after), f"killed at {point}"
        assert area.leftovers() == []
        shutil.rmtree(area.folder, onerror=_unprotected)
    assert kills, "recovery was never killed"


def _points_of_copy(area: Area, scenario: Scenario) -> list[str]:
    """The fault points recovery would pass here, learnt on a reflink copy of the whole folder."""
    copy = area.folder.with_name(area.folder.name + "-copy")
    subprocess.run(["cp", "-a", "--reflink=always", str(area.folder), str(copy)], check=True)
    try:
        return _points_of(Area(copy), scenario)
    finally:
        subprocess.run(["chattr", "-R", "-i", str(copy)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(copy)


def test_a_guest_is_only_worked_on_once_what_was_interrupted_is_finished(reflink_dir: Path) -> None:
    """The old name of a half renamed image may be given out again at once, and its snapshots must not be mixed up."""
    rename = next(s for s in SCENARIOS if s.name == "rename with snapshots")
    area = _fresh(reflink_dir, "area", rename)
    _killed_at(area, rename, _points_of_copy(area, rename).index("rename.image-moved"))
    area.do(images.alloc_image, 100, "raw", None, 4 * MIB)
    area.do(snapshots.create_snapshot, parse_volume(IMAGE), "one")
    seen = area.view()
    assert [name for name, _, _ in seen["200/vm-200-disk-0.raw"].snapshots] == ["one", "two"]
    assert [(name, size) for name, size, _ in seen[IMAGE].snapshots] == [("one", 4 * MIB)]
    assert area.leftovers() == []


def test_an_operation_of_a_newer_version_that_was_interrupted_keeps_hands_off_its_guest_alone(area: Area) -> None:
    volume, other = area.alloc(100), area.alloc(200)
    area.put(
        ".drbdocfs2/work/intent.100.0123456789abcdef", b'{"do": "teleport", "vmid": 100, "name": "vm-100-disk-0.raw"}\n'
    )
    with pytest.raises(RecoveryPending, match=r"intent\.100\.0123456789abcdef"):
        area.do(images.free_image, volume)
    area.do(images.free_image, other)


def test_blocks_of_a_killed_allocation_are_given_back(reflink_dir: Path) -> None:
    area = Area(reflink_dir, preallocation="falloc")
    free_before = os.statvfs(reflink_dir).f_bfree
    _killed_at(area, Scenario("alloc", _nothing, lambda a: a.do(images.alloc_image, 100, "raw", None, 64 * MIB)), 1)
    assert os.statvfs(reflink_dir).f_bfree < free_before - 8 * KIB
    area.recover()
    given_back = time.monotonic() + 20
    while os.statvfs(reflink_dir).f_bfree < free_before - 1 * KIB:
        assert time.monotonic() < given_back, "XFS gives blocks back in the background, but within seconds"
        time.sleep(0.05)
