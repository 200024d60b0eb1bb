"""What is found before a storage changes its type: all that the other type would not know, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.errors import CallerGone
from pvedrbdstor.volumes import images, snapshots
from pvedrbdstor.volumes.store import INTERNAL
from pvedrbdstor.volumes.survey import survey
from tests.volumes.support import Area

NOTHING = {"snapshots": [], "chains": [], "subvolumes": [], "interrupted": 0}


def found(area: Area) -> dict[str, Any]:
    answer: dict[str, Any] = area.do(survey)
    return answer


def test_a_storage_without_folders_holds_nothing(area: Area) -> None:
    assert found(area) == NOTHING
    assert list(area.folder.iterdir()) == []  # and it stays without


def test_what_both_types_know_is_nothing_special(area: Area) -> None:
    for fmt in ("raw", "qcow2"):
        area.alloc(fmt=fmt)
    area.put("images/100/vm-100-disk-9.vmdk", b"KDMV")
    area.put("images/snap-a-vm-100-disk-0.qcow2", b"")  # in no guest's folder
    assert found(area) == NOTHING


def test_every_snapshot_of_a_raw_image_is_named(area: Area) -> None:
    for vmid in (101, 100):
        volume = area.alloc(vmid)
        for name in ("one", "two"):
            area.do(snapshots.create_snapshot, volume, name)
    assert found(area)["snapshots"] == [
        f"{vmid}/vm-{vmid}-disk-0.raw: {name}" for vmid in (100, 101) for name in ("one", "two")
    ]


def test_snapshots_inside_qcow2_images_stay_usable(area: Area) -> None:
    volume = area.alloc(fmt="qcow2")
    area.do(snapshots.create_snapshot, volume, "one")
    assert found(area) == NOTHING


def test_a_snapshot_of_an_image_that_is_gone_is_nobodys(area: Area) -> None:
    volume = area.alloc()
    area.do(snapshots.create_snapshot, volume, "one")
    (area.folder / "images/100" / volume.name).unlink()
    area.alloc()  # the name is used again
    assert found(area) == NOTHING


def test_chains_and_subvolumes_are_named(area: Area) -> None:
    area.put("images/100/snap-one-vm-100-disk-0.qcow2", b"QFI\xfb")
    (area.folder / "images/200/subvol-200-disk-0.subvol").mkdir(parents=True)
    assert found(area) == {
        **NOTHING,
        "chains": ["100/snap-one-vm-100-disk-0.qcow2"],
        "subvolumes": ["200/subvol-200-disk-0.subvol"],
    }


def test_interrupted_operations_are_counted_and_other_work_is_not(area: Area) -> None:
    volume = area.alloc()
    work = area.folder / INTERNAL / "work"
    for entry in ("intent.100.0123456789abcdef", "new.100.0123456789abcdef", "trash.100.0123456789abcdef", "x"):
        (work / entry).write_text("")
    assert found(area)["interrupted"] == 1
    area.do(images.free_image, volume)


def test_it_ends_when_its_caller_has_gone(area: Area) -> None:
    area.alloc()
    call = Call("survey", "ha")
    call.gone = lambda: True
    with area.store() as store, pytest.raises(CallerGone):
        survey(store, call)
