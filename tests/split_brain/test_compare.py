"""What the sides changed and would lose, from values; digests decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.errors import BadRequest
from pvedrbdstor.fencing.split import compare
from pvedrbdstor.fencing.split.compare import Fate, changes, lost_here, lost_there, wanted
from pvedrbdstor.fencing.split.preserve import to_copy
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.fencing.split.side import FileState, Side, as_json, from_json

SINCE = 1000.0
BEFORE, AFTER = int(500 * 1e9), int(2000 * 1e9)
IMAGE = FileState("images/100/vm-100-disk-0.raw", 4 * CHUNK, 4 * CHUNK, BEFORE)
OWN = Side("ha", "a", 3000.0, since=SINCE, mounted=True, hint=True)
OTHER = replace(OWN, node="b")


def sides(mine: list[FileState], theirs: list[FileState]) -> tuple[Side, Side]:
    return replace(OWN, files=tuple(mine)), replace(OTHER, files=tuple(theirs))


def test_an_image_changed_here_is_lost_here_alone() -> None:
    written = replace(IMAGE, changed=((0, 4096),), sure=4096, modified=AFTER)
    own, other = sides([written], [IMAGE])
    assert wanted(own, other) == {IMAGE.path: ((0, CHUNK),)}
    found = changes(own, other, {IMAGE.path: False})
    assert found[0].fate is Fate.DIFFERS and found[0].image
    assert lost_here(found) == (f"what was written to {IMAGE.path} (4 KiB)",)
    assert lost_there(found) == ()


def test_equal_digests_mean_that_nothing_is_lost() -> None:
    written = replace(IMAGE, changed=((0, 4096),), sure=4096, modified=AFTER)
    found = changes(*sides([written], [written]), {IMAGE.path: True})
    assert found[0].fate is Fate.SAME and lost_here(found) == lost_there(found) == ()


def test_what_only_the_activity_log_has_counts_if_the_file_is_newer() -> None:
    hot = replace(IMAGE, changed=((0, CHUNK),), modified=AFTER)
    cold = replace(hot, modified=BEFORE)
    found = changes(*sides([hot], [cold]), {IMAGE.path: False})
    assert lost_here(found) == (f"perhaps something written to {IMAGE.path} (its place was in use lately)",)
    assert lost_there(found) == ()


def test_a_difference_that_nobody_claims_is_told_all_the_same() -> None:
    cold = replace(IMAGE, changed=((0, CHUNK),))
    found = changes(*sides([cold], [cold]), {IMAGE.path: False})
    assert found[0].fate is Fate.DIFFERS and lost_here(found) and lost_there(found)


def test_made_here_or_removed_there() -> None:
    made, old = replace(IMAGE, path="new", modified=AFTER), replace(IMAGE, path="old")
    found = changes(*sides([made, old], []), {})
    assert [change.fate for change in found] == [Fate.ONLY_HERE] * 2
    assert lost_here(found) == ("new, which the other side does not have",)
    assert lost_there(found) == ("the removal of old, which comes back",)


def test_a_write_whose_time_was_set_back_is_told_by_the_time_that_nobody_sets() -> None:
    hot = replace(IMAGE, changed=((0, CHUNK),), status_changed=AFTER)
    found = changes(*sides([hot], [replace(hot, status_changed=0)]), {IMAGE.path: False})
    assert lost_here(found) and lost_there(found) == ()


@pytest.mark.parametrize("here", [True, False])
def test_a_renamed_file_is_told_as_such_by_its_number(here: bool) -> None:
    old = replace(IMAGE, path="old", inode=7)
    new = replace(old, path="new", status_changed=AFTER)
    found = changes(*(sides([new], [old]) if here else sides([old], [new])), {})
    assert [change.fate for change in found] == [Fate.RENAMED]
    told, not_told = (lost_here(found), lost_there(found)) if here else (lost_there(found), lost_here(found))
    assert told == ("the renaming of old to new",) and not_told == ()
    assert [file.path for file in to_copy(sides([new], [])[0], None)] == ["new"]


def test_another_file_of_the_same_number_is_no_renamed_one() -> None:
    old, made = replace(IMAGE, path="old", inode=7), replace(IMAGE, path="new", inode=7, modified=AFTER)
    assert [change.fate for change in changes(*sides([made], [old]), {})] == [Fate.ONLY_HERE, Fate.ONLY_THERE]
    written = replace(old, path="new", status_changed=AFTER, changed=((0, 1),), sure=1)
    assert Fate.RENAMED not in [change.fate for change in changes(*sides([written], [old]), {})]


def test_without_the_other_side_only_what_this_one_changed_is_named() -> None:
    own, _ = sides([replace(IMAGE, changed=((0, 1),), sure=1, modified=AFTER), replace(IMAGE, path="cold")], [])
    (change,) = changes(own, None, {})
    assert change.fate is Fate.CHANGED and change.there is None


def test_from_a_file_digests_of_what_the_other_side_changed_decide_only_that() -> None:
    changed = replace(IMAGE, changed=((0, 1),), sure=1)
    own, other = sides([IMAGE], [changed])
    other = replace(other, digests={IMAGE.path: ("x",)})
    assert compare.equal_from_file(own, other, {IMAGE.path: ("y",)}) == {IMAGE.path: False}
    assert compare.equal_from_file(own, other, {IMAGE.path: ("x",)}) == {IMAGE.path: True}
    both = replace(own, files=(replace(IMAGE, changed=((3 * CHUNK, 1),), sure=1),))
    assert compare.equal_from_file(both, other, {IMAGE.path: ("x",)}) == {IMAGE.path: None}


def test_everything_is_copied_that_may_have_changed() -> None:
    files = [
        replace(IMAGE, path="bits", changed=((0, 1),)),
        replace(IMAGE, path="time", modified=AFTER),
        replace(IMAGE, path="status", status_changed=AFTER),
        replace(IMAGE, path="size", size=7),
        replace(IMAGE, path="absent there"),
        replace(IMAGE, path="same"),
    ]
    own, other = sides(files, [replace(IMAGE, path=path) for path in ("bits", "time", "status", "size", "same")])
    assert [file.path for file in to_copy(own, other)] == ["bits", "time", "status", "size", "absent there"]
    assert [file.path for file in to_copy(own, None)] == ["bits", "time", "status"]
    assert len(to_copy(replace(own, hint=False), other)) == 6


def test_a_side_is_read_back_and_anything_else_refused() -> None:
    own, _ = sides([replace(IMAGE, changed=((0, 1),))], [])
    own = replace(own, digests={"x": ("1", "2")}, blocks=((0, 4096),), remarks=("so",))
    assert from_json(as_json(own)) == own
    for bad in (
        None,
        [],
        {},
        {**as_json(own), "format": 1},
        {**as_json(own), "at": None},
        {**as_json(own), "files": [{}]},
    ):
        with pytest.raises(BadRequest, match="split-brain show"):
            from_json(bad)
