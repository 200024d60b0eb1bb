"""What becomes visible was on the disk before, and its name is on the disk when the call returns."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pvedrbdstor import native
from pvedrbdstor.volumes import images, renames, snapshots, templates
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, framed

IMAGE = parse_volume("100/vm-100-disk-0.raw")


@pytest.fixture
def steps(area: Area, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, linked and renamed from now on: `sync NAME`, `link TO`, `rename FROM TO`; entries of work/ by kind."""
    area.alloc()
    area.do(snapshots.create_snapshot, IMAGE, "one")
    area.alloc()
    seen: list[str] = []

    def short(name: str) -> str:
        return name.partition(".")[0] if name.startswith(("new.", "trash.", "intent.")) else name

    def record(verb: str, function: Callable[..., None], *names: int) -> Callable[..., None]:
        def recording(*arguments: object, **named: object) -> None:
            function(*arguments, **named)
            shown = (
                os.readlink(f"/proc/self/fd/{a}").rpartition("/")[2] if isinstance(a, int) else str(a)
                for a in (arguments[position] for position in names)
            )
            seen.append(" ".join([verb, *map(short, shown)]))

        return recording

    monkeypatch.setattr(native, "fsync", record("sync", native.fsync, 0))
    monkeypatch.setattr(os, "link", record("link", os.link, 1))
    monkeypatch.setattr(os, "rename", record("rename", os.rename, 0, 1))
    return seen


def in_order(steps: list[str], *wanted: str) -> bool:
    """Whether the wanted steps were done in this order, with any others between them."""
    rest = iter(steps)
    return all(step in rest for step in wanted)


NAMED: dict[str, tuple[Callable[[Area], object], str, str]] = {
    "alloc": (lambda a: a.alloc(), "vm-100-disk-2.raw", "100"),
    "alloc qcow2": (lambda a: a.alloc(fmt="qcow2"), "vm-100-disk-0.qcow2", "100"),
    "clone": (lambda a: a.do(templates.clone_image, IMAGE, 200, None), "vm-200-disk-0.raw", "200"),
    "import": (lambda a: a.receive(framed(b"x" * 512), VolumeName(300, "x.raw")), "x.raw", "300"),
    "snapshot": (lambda a: a.do(snapshots.create_snapshot, IMAGE, "two"), "two.raw", IMAGE.name),
}


@pytest.mark.parametrize("operation", NAMED)
def test_a_new_file_is_synced_before_it_is_named_and_its_folder_after(
    area: Area, steps: list[str], operation: str
) -> None:
    do, name, folder = NAMED[operation]
    do(area)
    assert in_order(steps, "sync new", f"link {name}", f"sync {folder}"), steps


def test_an_image_rolled_back_is_synced_before_it_replaces_the_old_one(area: Area, steps: list[str]) -> None:
    area.do(snapshots.rollback, IMAGE, "one")
    assert in_order(steps, "sync new", f"rename new {IMAGE.name}", "sync 100"), steps


def test_growing_is_synced(area: Area, steps: list[str]) -> None:
    area.do(images.resize_image, IMAGE, 2 * MIB)
    assert steps == [f"sync {IMAGE.name}"]


MOVED: dict[str, tuple[Callable[[Area], object], str, list[str]]] = {
    "free": (lambda a: a.do(images.free_image, IMAGE), f"rename {IMAGE.name} trash", ["sync 100"]),
    "rename": (
        lambda a: a.do(renames.rename_volume, IMAGE, 200, None),
        f"rename {IMAGE.name} vm-200-disk-0.raw",
        ["sync 200", "sync 100"],
    ),
    "template": (
        lambda a: a.do(templates.create_base, VolumeName(100, "vm-100-disk-1.raw")),
        "rename vm-100-disk-1.raw base-100-disk-1.raw",
        ["sync base-100-disk-1.raw", "sync 100"],
    ),
}


@pytest.mark.parametrize("operation", MOVED)
def test_an_intent_is_on_the_disk_before_the_first_step_and_the_last_one_is_before_the_end(
    area: Area, steps: list[str], operation: str
) -> None:
    do, first, last = MOVED[operation]
    do(area)
    assert in_order(steps, "sync intent", "sync work", first, *last), steps


def test_a_snapshot_that_was_deleted_stays_deleted(area: Area, steps: list[str]) -> None:
    area.do(snapshots.delete_snapshot, IMAGE, "one")
    assert in_order(steps, "rename one.raw trash", f"sync {IMAGE.name}"), steps
