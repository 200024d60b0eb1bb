"""What two copies' identifiers say of one another: the kernel's rules, on real lines and on simulated histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.generation_ids import Identifiers, Relation, parse, relation

A = "1F2876730BC74927:EDD02BC5AF3D82D7:365CCF83F6A9C584:365BCF83F6A9C585:1:1:1:0:0:0:0"
B = "07A2F1D8C90C85B1:EDD02BC5AF3D82D7:365CCF83F6A9C585:365BCF83F6A9C585:1:1:1:0:0:0:0"


def test_two_real_lines_of_a_split_brain() -> None:
    mine, theirs = parse(A), parse(B)
    assert mine is not None and theirs is not None
    assert mine.current == 0x1F2876730BC74926 and mine.primary and not mine.connected
    assert relation(mine, theirs) is relation(theirs, mine) is Relation.SPLIT


def test_what_has_no_identifiers_is_none() -> None:
    assert parse("") is None and parse("0: Failure: (127) Device minor not allocated\n") is None


NINE_A = "341B98452316DB1D:8FAD43BD14D0C583:8A127941769E4212:0000000000000000:1:1:1:1:0:0:0:0:0:0:0:1"
NINE_B = "0435461777F92B05:8FAD43BD14D0C583:8A127941769E4212:0000000000000000:1:1:1:1:0:0:0:0:0:0:0:1"


def test_two_real_lines_of_drbd_9() -> None:
    mine, theirs = parse(NINE_A), parse(NINE_B)
    assert mine is not None and theirs is not None
    assert mine.crashed_primary and mine.primary and not mine.connected and not mine.peer_outdated
    assert relation(mine, theirs) is Relation.SPLIT


def test_what_a_forced_promotion_leaves_is_no_split_that_bitmaps_could_settle() -> None:
    """Real lines: the kernel's rule 100 finds that both histories are empty, and calls it a split brain."""
    forced = parse("FFFD9BBAFEE384E5:9844953260082FC0:0000000000000000:0000000000000000:1:1:1:0:0:1:1")
    crashed = parse("9E61E2A4DC001DD6:0000000000000000:0000000000000000:0000000000000000:1:1:0:0:0:0:1")
    assert forced is not None and crashed is not None
    assert relation(forced, crashed) is relation(crashed, forced) is Relation.UNRELATED


def test_flags_of_an_unknown_number_are_not_guessed() -> None:
    found = parse("A7B1:x\n1F2876730BC74927:EDD02BC5AF3D82D7:0000000000000000:0000000000000000:1:1:0:0:0:0:0:0:0\n")
    assert found is not None and found.current == 0x1F2876730BC74926 and not found.consistent


@dataclass
class Copy:
    """What the kernel does with one copy's identifiers."""

    current: int
    bitmap: int = 0
    history: list[int] = field(default_factory=list)

    def goes_on_alone(self, uuid: int) -> None:
        """drbd_uuid_new_current(): once for each time it is left."""
        if self.bitmap == 0:
            self.bitmap, self.current = self.current, uuid

    def synced_to(self, target: Copy) -> None:
        """The end of a resync: the target takes the identifiers over, the source remembers the past."""
        if self.bitmap:
            self.history, self.bitmap = [self.bitmap, *self.history][:2], 0
        target.current, target.bitmap, target.history = self.current, 0, list(self.history)

    def ids(self) -> Identifiers:
        history = (*self.history, 0, 0)[:2]
        return Identifiers(self.current, self.bitmap, history)


@given(st.lists(st.sampled_from(["a", "b", "meet"]), max_size=8))
def test_histories_are_told_apart(events: list[str]) -> None:
    """Each may go on alone; when they meet one is synced from the other, unless both went on: then nothing is."""
    uuids = count(16, 2)
    a, b = Copy(8), Copy(8)
    alone: set[str] = set()
    for event in events:
        if event == "meet" and len(alone) < 2:
            if alone:
                (a if "a" in alone else b).synced_to(b if "a" in alone else a)
            alone = set()
        elif event != "meet":
            (a if event == "a" else b).goes_on_alone(next(uuids))
            alone.add(event)
    expected = {
        frozenset(): Relation.SAME,
        frozenset("a"): Relation.NEWER,
        frozenset("b"): Relation.OLDER,
        frozenset("ab"): Relation.SPLIT,
    }[frozenset(alone)]
    assert relation(a.ids(), b.ids()) is expected


_uuid = st.sampled_from([0, 4, 8, 10, 12, 14])
_ids = st.builds(Identifiers, _uuid, _uuid, st.tuples(_uuid, _uuid))
_MIRRORED = {Relation.NEWER: Relation.OLDER, Relation.OLDER: Relation.NEWER}


@given(_ids, _ids)
def test_both_sides_agree_that_it_is_a_split(one: Identifiers, other: Identifiers) -> None:
    found, seen = relation(one, other), relation(other, one)
    if Relation.SPLIT in (found, seen) or Relation.UNRELATED in (found, seen):
        assert found is seen
