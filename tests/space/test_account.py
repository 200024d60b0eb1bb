"""What is made of files and the bytes they hold: whose it is, and that it adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.space.account import Account, account
from pvedrbdstor.space.look import File
from pvedrbdstor.space.places import sets_of_files
from pvedrbdstor.verify.owners import owner_of
from pvedrbdstor.volumes.identity import SnapshotMark
from pvedrbdstor.volumes.qcow2 import Snapshot
from tests.space.test_places import places_of

ID, OTHER_ID = "a" * 32, "b" * 32
IMAGE = "images/100/vm-100-disk-0.raw"


def snapshot_path(name: str, image: str = "100/vm-100-disk-0.raw") -> str:
    vmid, _, file = image.partition("/")
    return f"images/{vmid}/.snapshots/{file}/{name}.raw"


def file(path: str, *extents: tuple[int, int], **more: Any) -> File:
    owner = owner_of(path)
    more = {"id": ID, "mark": SnapshotMark("c" * 32, ID, 1700000000), **more}
    return File(owner, more.pop("apparent", 100), places_of(list(extents)), **more)


def of(*files: File) -> Account:
    return account(files, sets_of_files([one.places for one in files]))


def test_an_image_and_its_snapshots() -> None:
    """On the device: 10 bytes of all three, 5 of both snapshots, 3 of the first alone, 20 of the image alone."""
    found = of(
        file(IMAGE, (0, 10), (100, 20)),
        file(snapshot_path("one"), (0, 18)),
        file(snapshot_path("two"), (0, 15), mark=SnapshotMark("c" * 32, ID, 1700000001)),
    )
    (guest,) = found.guests
    (image,) = guest.images
    assert (image.allocated, image.shared, image.exclusive) == (30, 10, 20)
    assert (image.frees, image.snapshots_free) == (38, 8)
    assert [(s.name, s.allocated, s.shared, s.frees) for s in image.snapshots] == [
        ("one", 18, 15, 3),
        ("two", 15, 15, 0),
    ]
    assert (guest.allocated, guest.shared, guest.frees, guest.snapshots_only) == (38, 0, 38, 8)
    assert (found.in_files, found.between, guest.apparent) == (38, 0, 300)


def test_guests_that_share_free_only_what_is_theirs_alone_and_the_family_frees_all() -> None:
    found = of(
        file("images/90/base-90-disk-0.raw", (0, 50)),
        file("images/101/vm-101-disk-0.raw", (0, 40), (100, 7)),
        file("images/102/vm-102-disk-0.raw", (20, 30), (200, 9)),
        file("images/103/vm-103-disk-0.raw", (300, 4)),
    )
    assert {guest.vmid: (guest.allocated, guest.frees) for guest in found.guests} == {
        90: (50, 0),
        101: (47, 7),
        102: (39, 9),
        103: (4, 4),
    }
    assert {guest.vmid: guest.shares_with for guest in found.guests} == {
        90: (101, 102),
        101: (90, 102),
        102: (90, 101),
        103: (),
    }
    (family,) = found.families
    assert (family.template, family.clones, family.allocated, family.frees) == (90, (101, 102), 66, 66)
    assert found.between == 50


def test_a_family_does_not_free_what_others_hold() -> None:
    found = of(
        file("images/90/base-90-disk-0.raw", (0, 50)),
        file("images/101/vm-101-disk-0.raw", (0, 50), (100, 10)),
        file("images/101/vm-101-disk-1.raw", (200, 10)),
        file("images/102/vm-102-disk-0.raw", (200, 10)),  # a clone of the clone's other disk: no block of the template
    )
    (family,) = found.families
    assert (family.clones, family.allocated, family.frees) == ((101,), 70, 60)


def test_a_qcow2_image_backed_by_a_template_is_of_its_family_without_a_common_block() -> None:
    found = of(
        file("images/90/base-90-disk-0.qcow2", (0, 50)),
        file("images/101/vm-101-disk-0.qcow2", (100, 5), backing="images/90/base-90-disk-0.qcow2"),
        file("images/102/vm-102-disk-0.qcow2", (200, 5), backing="images/90/vm-90-disk-9.qcow2"),
    )
    (family,) = found.families
    assert (family.clones, family.frees) == ((101,), 55)


def test_snapshots_inside_qcow2_are_named_and_nothing_is_claimed_of_them() -> None:
    inner = Snapshot("1", "one\x1b", 1700000000, 1 << 30, 0)
    (guest,) = of(file("images/100/vm-100-disk-0.qcow2", (0, 10), inner=(inner,))).guests
    (snapshot,) = guest.images[0].snapshots
    assert (snapshot.name, snapshot.inside, snapshot.apparent) == ("one?", True, 1 << 30)
    assert snapshot.allocated is snapshot.shared is snapshot.exclusive is snapshot.frees is None
    assert guest.images[0].snapshots_free == 0


def test_a_snapshot_of_an_earlier_image_goes_with_the_image_that_has_its_name() -> None:
    (guest,) = of(file(IMAGE, (0, 10), id=OTHER_ID), file(snapshot_path("one"), (20, 5))).guests
    assert guest.images[0].snapshots[0].stray
    assert guest.images[0].frees == guest.frees == 15
    assert guest.images[0].snapshots_free == 0  # nobody can delete it by itself


def test_what_is_no_guest_s_has_a_line_of_its_own() -> None:
    work = ".drbdocfs2/work"
    found = of(
        file(snapshot_path("one", "100/gone.raw"), (0, 1)),
        file("images/100/.new.100.0123456789abcdef", (10, 2)),
        file(f"{work}/trash.100.0123456789abcdef", (20, 3)),
        file(f"{work}/trash.101.0123456789abcdef/one.raw", (30, 4)),
        file(f"{work}/new.100.0123456789abcdef", (40, 5)),
        file(".drbdocfs2/lock/guest-100", (45, 1)),
        file("template/iso/a.iso", (50, 6)),
        file("dump/a.vma", (60, 7)),
        file("readme", (70, 8)),
    )
    assert found.guests == ()
    assert {other.what: (other.files, other.frees) for other in found.others} == {
        "snapshots without their image": (1, 1),
        "files in guests' folders that are no volumes": (1, 2),
        "removed, not given back yet": (2, 7),
        "work in progress": (1, 5),
        "lock files": (1, 1),
        "ISO image": (1, 6),
        "backup": (1, 7),
        "file": (1, 8),
    }


_PATHS = (
    "images/90/base-90-disk-0.raw",
    snapshot_path("old", "90/base-90-disk-0.raw"),
    "images/100/vm-100-disk-0.raw",
    snapshot_path("one"),
    snapshot_path("two"),
    "images/101/vm-101-disk-0.qcow2",
    "template/iso/a.iso",
    ".drbdocfs2/work/trash.100.0123456789abcdef",
)


@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=6), min_size=8, max_size=8))
def test_every_byte_is_counted_once_in_the_sum(extents: Sequence[list[tuple[int, int]]]) -> None:
    found = of(*(file(path, *own) for path, own in zip(_PATHS, extents, strict=True)))
    alone = sum(guest.frees for guest in found.guests) + sum(other.frees for other in found.others)
    bytes_of = {byte for own in extents for start, length in own for byte in range(start, start + length)}
    assert alone + found.between == found.in_files == len(bytes_of)
    for guest in found.guests:
        assert guest.allocated == guest.shared + guest.exclusive
        assert guest.frees >= guest.snapshots_only + sum(image.exclusive for image in guest.images)
        for image in guest.images:
            assert image.frees >= image.snapshots_free + image.exclusive
            own = [snapshot.frees or 0 for snapshot in image.snapshots if not snapshot.stray]
            assert image.snapshots_free >= sum(own)
