"""What lies in guests' folders and is no volume: told as `pvedrbdstor space` tells it, and nothing that an operation is in the middle of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pvedrbdstor.doctor.storages import _foreign
from pvedrbdstor.space import foreign as module
from pvedrbdstor.space.account import account
from pvedrbdstor.space.foreign import Foreign, foreign
from pvedrbdstor.space.look import look
from pvedrbdstor.space.places import sets_of_files
from pvedrbdstor.space.whose import LONE_SNAPSHOT, NO_VOLUME
from tests.volumes.support import Area

IMAGE, NOTE = "images/100/vm-100-disk-0.raw", "images/100/note"
SNAPSHOT = "images/100/.snapshots/vm-100-disk-0.raw/one.raw"
LONE = "images/100/.snapshots/vm-100-disk-1.raw/one.raw"
DEAD = "0123456789abcdef"


@pytest.fixture
def area(reflink_dir: Path) -> Area:
    return Area(reflink_dir)


def found(area: Area) -> Foreign:
    told = area.do(foreign)
    assert isinstance(told, Foreign)
    return told


def test_a_storage_with_volumes_and_their_snapshots_has_none(area: Area) -> None:
    for path in (IMAGE, SNAPSHOT, "images/101/base-101-disk-0.qcow2", "images/101/a.vmdk", "dump/a.vma", "readme"):
        area.put(path)
    assert found(area) == Foreign()


def test_an_empty_storage_has_none(area: Area) -> None:
    assert found(area) == Foreign()


def test_stray_files_and_lone_snapshots_are_told_by_their_paths(area: Area) -> None:
    chain = "images/102/snap-one-vm-102-disk-0.qcow2"
    for path in (IMAGE, SNAPSHOT, LONE, NOTE, chain, "images/note", "images/private/x"):
        area.put(path)
    (area.folder / "images/100/link").symlink_to("note")
    assert found(area) == Foreign((NOTE, chain), (LONE,))


def test_it_counts_what_the_space_account_counts(area: Area) -> None:
    for path in (
        IMAGE,
        SNAPSHOT,
        LONE,
        NOTE,
        "images/100/sub/file",
        "images/7/.snapshots/x.raw/note",
        "images/7/a b.raw",
    ):
        area.put(path)
    looked = area.do(look).files
    others = {
        other.what: other.files for other in account(looked, sets_of_files([file.places for file in looked])).others
    }
    told = found(area)
    assert (len(told.files), len(told.snapshots)) == (others[NO_VOLUME], others[LONE_SNAPSHOT]) == (2, 1)


def test_what_an_operation_under_way_or_cut_off_has_made_so_is_not_told(area: Area) -> None:
    """A file being built shows in its guest's folder by a hidden name; an image that is freed goes before its snapshots."""
    area.put(f".drbdocfs2/work/new.100.{DEAD}")
    area.put(f"images/100/.new.100.{DEAD}")
    assert found(area) == Foreign()
    area.put(LONE)
    assert found(area).snapshots == (LONE,)
    intent = area.put(f".drbdocfs2/work/intent.100.{DEAD}")
    assert found(area) == Foreign()
    area.put("images/101/note")
    assert found(area).files == ("images/101/note",), "of other guests it is"
    intent.unlink()
    os.unlink(area.folder / f".drbdocfs2/work/new.100.{DEAD}")
    assert found(area) == Foreign((f"images/100/.new.100.{DEAD}", "images/101/note"), (LONE,))


@pytest.mark.parametrize(
    "ends",
    [lambda area: os.unlink(area.folder / LONE), lambda area: area.put("images/100/vm-100-disk-1.raw")],
    ids=["the snapshots follow their image", "the image comes"],
)
def test_an_operation_that_ends_while_it_is_looked_is_not_told(
    area: Area, monkeypatch: pytest.MonkeyPatch, ends: Callable[[Area], object]
) -> None:
    area.put(LONE)

    def work(_store: object) -> list[str]:
        ends(area)
        return []

    monkeypatch.setattr(module, "_work", work)
    assert found(area) == Foreign()


def test_layers_of_chains_come_last_and_are_counted(area: Area) -> None:
    for path in (NOTE, "images/100/b", "images/10/snap-a-vm-10-disk-0.qcow2"):
        area.put(path)
    assert area.do(_foreign) == {
        "foreign": {"count": 3, "first": ["images/100/b", NOTE, "images/10/snap-a-vm-10-disk-0.qcow2"]},
        "lone": {"count": 0, "first": []},
        "layers": 1,
    }
