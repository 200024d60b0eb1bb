"""Recovery: what is dead is dealt with, what is alive or unknown is left alone, and nothing in work/ can break it.

What each operation leaves at each of its steps is the matter of test_crash.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.errors import DeadlineExceeded
from pvedrbdstor.volumes import locks, recovery, snapshots, work
from pvedrbdstor.volumes.names import parse_volume
from tests.loopback import Loopback
from tests.volumes.support import Area, is_immutable, set_immutable

NOTHING = {"removed": 0, "finished": 0, "undone": 0, "failed": 0}
ID = "0123456789abcdef"


def entry(area: Area, name: str, content: bytes = b"") -> Path:
    return area.put(f".drbdocfs2/work/{name}", content)


def plan(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize("made", ["nothing", "a volume"])
def test_there_is_nothing_to_do_after_a_clean_end(area: Area, made: str) -> None:
    if made == "a volume":
        area.alloc()
    assert area.recover() == NOTHING


def test_what_was_being_built_is_removed_with_the_folder_made_for_it(area: Area) -> None:
    entry(area, f"new.100.{ID}", b"half an image")
    (area.folder / "images/100").mkdir(parents=True)
    assert area.recover() == {**NOTHING, "removed": 1}
    assert not (area.folder / "images/100").exists()
    assert area.leftovers() == []
    assert area.recover() == NOTHING


def test_a_file_that_became_visible_just_before_the_end_stays(area: Area) -> None:
    volume = area.alloc()
    os.link(area.path(volume), area.folder / f".drbdocfs2/work/new.100.{ID}")
    before = area.view()
    assert area.recover() == {**NOTHING, "removed": 1}
    assert area.view() == before
    assert area.path(volume).stat().st_nlink == 1


def test_what_a_live_process_builds_is_left_alone(area: Area) -> None:
    with area.store() as store, work.building(store, 100) as item:
        os.write(item.fd, b"still at it")
        assert area.recover() == NOTHING
        with store.guest(100, create=True) as guest_fd:
            item.publish(Call("alloc_image", "ha"), guest_fd, "vm-100-disk-0.raw")
    assert area.path("100/vm-100-disk-0.raw").read_bytes() == b"still at it"


def test_an_intent_of_a_live_process_is_left_alone(area: Area) -> None:
    with area.store() as store, work.intent(store, 100, {"do": "free", "vmid": 100, "name": "vm-100-disk-0.raw"}):
        assert area.recover() == NOTHING
        assert len(list((area.folder / ".drbdocfs2/work").iterdir())) == 1
    assert area.leftovers() == []


@pytest.mark.parametrize("kind", ["new", "trash"])
def test_a_second_name_of_a_template_goes_and_the_template_stays_immutable(area: Area, kind: str) -> None:
    """What a rollback that was killed left, once the image has become a template."""
    volume = area.alloc()
    left = area.folder / f".drbdocfs2/work/{kind}.100.{ID}"
    left.parent.mkdir(parents=True, exist_ok=True)
    os.link(area.path(volume), left)
    base = area.folder / "images/100/base-100-disk-0.raw"
    area.path(volume).rename(base)
    set_immutable(base, True)
    area.recover()
    assert not left.exists()
    assert is_immutable(base)
    assert base.stat().st_nlink == 1


def test_trash_is_removed_whatever_it_is(area: Area) -> None:
    entry(area, f"trash.100.{ID}", b"file")
    entry(area, "trash.100.1123456789abcdef/one.raw", b"folder")
    entry(area, "trash.100.2123456789abcdef/deep/er/x.raw", b"folder")
    set_immutable(entry(area, "trash.100.3123456789abcdef", b"immutable"), True)
    set_immutable(entry(area, "trash.100.4123456789abcdef/base.raw", b"immutable"), True)
    (area.folder / ".drbdocfs2/work/trash.100.5123456789abcdef").symlink_to("/etc")
    assert area.recover() == {**NOTHING, "removed": 6}
    assert area.leftovers() == []
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "new", "new.", "new.txt", "new.100", f"new.x.{ID}", f"new.0.{ID}", f"new.\u00b2.{ID}", "trash"),
        *(
            "trash.txt",
            "trash.100.xyz",
            f"trash.100.{ID}.bak",
            "intent",
            "intent.100.",
            f"old.100.{ID}",
            "lost+found/a",
        ),
    ],
)
def test_what_is_not_ours_is_not_touched(area: Area, name: str) -> None:
    path = entry(area, name, b"somebody's")
    assert area.recover() == NOTHING
    assert path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("kind", ["new", "intent"])
@pytest.mark.parametrize("what", ["folder", "link", "dangling link", "fifo"])
def test_an_entry_that_is_no_file_stops_nothing(area: Area, kind: str, what: str) -> None:
    path = entry(area, "x").with_name(f"{kind}.100.{ID}")
    make = {
        "folder": Path.mkdir,
        "link": lambda p: p.symlink_to("/etc/passwd"),
        "dangling link": lambda p: p.symlink_to("/nowhere/at/all"),
        "fifo": os.mkfifo,
    }
    make[what](path)
    last = entry(area, "new.900.ffffffffffffffff")
    area.recover()
    assert not last.exists()
    assert Path("/etc/passwd").exists()


VOLUME = {"vmid": 100, "name": "vm-100-disk-0.raw"}


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"", "undone"),
        (b'{"do": "free", "vmid": 100, "na', "undone"),
        (plan(do="free", **VOLUME)[:-1], "undone"),
        (b"\xff\xfe\n", "undone"),
        (b"[1, 2]\n", "undone"),
        (b"[" * 4000 + b"\n", "undone"),
        (b"x" * 100_000 + b"\n", "undone"),
        (plan(), "failed"),
        (plan(do="explode", **VOLUME), "failed"),
        (plan(do="free", vmid=100), "failed"),
        (plan(do="free", vmid="../..", name="passwd.raw"), "failed"),
        (plan(do="free", vmid=100, name="../../../etc/passwd"), "failed"),
        (plan(do="free", vmid=100, name="\ud800.raw"), "failed"),
        (plan(do="rename", **VOLUME), "failed"),
        (plan(do="rename", **VOLUME, target_vmid=True, target_name="vm-1-disk-0.raw"), "failed"),
    ],
    ids=range(15),
)
def test_a_broken_intent_does_no_harm(area: Area, content: bytes, outcome: str) -> None:
    """One cut short was never begun; one that makes no sense is left for a person to look at."""
    volume = area.alloc()
    area.do(snapshots.create_snapshot, volume, "one")
    before = area.view()
    path = entry(area, f"intent.100.{ID}", content)
    assert area.recover() == {**NOTHING, outcome: 1}
    assert area.view() == before
    assert path.exists() == (outcome == "failed")


@pytest.mark.parametrize("do", ["free", "template", "rename"])
def test_an_intent_whose_guests_are_gone_goes_too(area: Area, do: str) -> None:
    entry(area, f"intent.100.{ID}", plan(do=do, **VOLUME, target_vmid=200, target_name="vm-200-disk-0.raw"))
    report = area.recover()
    assert report["failed"] == 0
    assert area.leftovers() == []
    assert area.recover() == NOTHING


def test_recovering_twice_does_nothing_the_second_time(area: Area) -> None:
    volume = area.alloc()
    area.do(snapshots.create_snapshot, volume, "one")
    area.path(volume).rename(area.folder / f".drbdocfs2/work/trash.100.{ID}")
    entry(area, "intent.100.1123456789abcdef", plan(do="free", **VOLUME))
    assert area.recover() == {**NOTHING, "finished": 1, "removed": 1}
    assert area.leftovers() == []
    assert area.recover() == NOTHING


def test_an_intent_of_a_busy_guest_waits_for_the_next_time(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.05)
    path = entry(area, f"intent.100.{ID}", plan(do="free", **VOLUME))
    with area.store() as store, locks.guest_lock(store, Call("volume_resize", "ha"), 100):
        assert area.recover() == {**NOTHING, "failed": 1}
    assert path.exists()
    assert area.recover() == {**NOTHING, "finished": 1}


def test_a_busy_guest_does_not_keep_its_trash_or_the_caller_waiting(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 3600.0)
    for number in range(3):
        entry(area, f"trash.100.{number}123456789abcdef")
    with area.store() as store, locks.guest_lock(store, Call("volume_resize", "ha"), 100):
        assert area.recover() == {**NOTHING, "removed": 3}
    assert area.leftovers() == []


def test_an_entry_that_its_owner_finishes_meanwhile_is_no_failure(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    path = entry(area, f"new.100.{ID}")

    def finished_first(fd: int) -> bool:
        path.rename(area.put("images/100/x").with_name("vm-100-disk-0.raw"))
        return True

    monkeypatch.setattr(recovery, "try_lock", finished_first)
    assert area.recover() == NOTHING
    assert area.volids() == ["ha:100/vm-100-disk-0.raw"]


def test_an_intent_that_a_cleaner_takes_for_a_dead_one_is_written_again(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its creation and its lock an entry looks dead."""
    refusals = [False, False]

    def lost_twice(fd: int) -> bool:
        return refusals.pop() if refusals else locks.try_lock(fd)

    monkeypatch.setattr(work, "try_lock", lost_twice)
    with area.store() as store, work.intent(store, 100, {"do": "free"}):
        pass
    assert refusals == []
    assert area.recover()["undone"] == 2, "the two that were lost belong to the cleaner"
    assert area.leftovers() == []


def test_a_file_that_a_cleaner_removed_before_it_was_locked_is_made_again(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def after_the_cleaner(fd: int) -> bool:
        if not removed:
            removed.append(os.readlink(f"/proc/self/fd/{fd}"))
            os.unlink(removed[0])
        return locks.try_lock(fd)

    monkeypatch.setattr(work, "try_lock", after_the_cleaner)
    volume = area.alloc()
    assert removed
    assert area.volids() == [f"ha:{volume}"]
    assert area.leftovers() == []


def test_recovery_stops_when_its_time_is_over(area: Area) -> None:
    path = entry(area, f"new.100.{ID}")
    with pytest.raises(DeadlineExceeded):
        area.do(recovery.recover, timeout=0.0)
    assert path.exists()


def test_on_a_read_only_file_system_nothing_can_be_recovered_and_that_is_said(
    small_fs: Loopback, small_dir: Path
) -> None:
    area = Area(small_dir)
    path = entry(area, f"new.100.{ID}")
    with small_fs.read_only(), pytest.raises(OSError, match="Read-only"):
        area.recover()
    assert path.exists()


def test_a_volume_of_a_guest_with_leftovers_can_be_used_before_recovery(area: Area) -> None:
    entry(area, f"new.100.{ID}", b"half an image")
    assert area.alloc() == parse_volume("100/vm-100-disk-0.raw")
