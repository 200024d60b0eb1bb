"""The sweep over extents against a model that asks every byte who has it."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from pvedrbdstor.space.places import Held, Places, by_label, members, of_group, set_of, sets_of_files

_EXTENT = st.tuples(st.integers(0, 60), st.integers(0, 12))
_FILES = st.lists(st.lists(_EXTENT, max_size=12), max_size=6)
Extents = list[list[tuple[int, int]]]


def places_of(extents: list[tuple[int, int]], nowhere: int = 0) -> Places:
    places = Places()
    for start, length in extents:
        places.add(start, length)
    places.sort()
    places.nowhere = nowhere
    return places


def holders_of_each_byte(files: Extents) -> Counter[frozenset[int]]:
    """How many bytes each set of files holds, byte by byte."""
    bytes_of = [{byte for start, length in extents for byte in range(start, start + length)} for extents in files]
    every = set().union(*bytes_of)
    return Counter(frozenset(at for at, has in enumerate(bytes_of) if byte in has) for byte in every)


@given(_FILES)
@example([[(0, 4), (4, 4)], [(4, 4)], [(8, 1)]])  # neighbours that touch
@example([[(5, 3), (0, 10), (5, 3)]])  # a file that shares with itself
def test_the_sweep_finds_who_has_each_byte(files: Extents) -> None:
    found = sets_of_files([places_of(extents) for extents in files])
    assert {frozenset(members(holders)): size for holders, size in found.items()} == holders_of_each_byte(files)


@given(_FILES, st.data())
def test_groups_hold_each_byte_once_and_alone_what_nobody_else_has(files: Extents, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(files), max_size=len(files)))
    sets = sets_of_files([places_of(extents) for extents in files])
    model = holders_of_each_byte(files)
    for label in set(labels):
        group = {at for at, own in enumerate(labels) if own == label}
        held = sum(size for holders, size in model.items() if holders & group)
        alone = sum(size for holders, size in model.items() if holders <= group)
        assert of_group(sets, set_of(group)) == Held(held, alone)
        assert by_label(sets, labels).get(label, Held()) == Held(held, alone)


@given(_FILES, st.data())
def test_removing_files_frees_what_they_hold_alone(files: Extents, data: st.DataObject) -> None:
    removed = data.draw(st.sets(st.sampled_from(range(len(files))))) if files else set()
    sets = sets_of_files([places_of(extents) for extents in files])
    left = sets_of_files([places_of([] if at in removed else extents) for at, extents in enumerate(files)])
    assert sum(sets.values()) - sum(left.values()) == of_group(sets, set_of(removed)).alone


@given(_FILES)
def test_the_order_of_the_extents_means_nothing(files: Extents) -> None:
    turned = [places_of(extents[::-1]) for extents in files]
    assert sets_of_files([places_of(extents) for extents in files]) == sets_of_files(turned)


def test_bytes_without_a_place_are_the_file_s_alone() -> None:
    sets = sets_of_files([places_of([(0, 8)], nowhere=5), places_of([(0, 8)])])
    assert by_label(sets, ["a", "b"]) == {"a": Held(13, 5), "b": Held(8, 0)}


def test_extents_that_follow_one_another_are_kept_as_one() -> None:
    assert len(places_of([(at * 4096, 4096) for at in range(1000)])) == 1


def test_the_caller_hears_of_long_work() -> None:
    heard = []
    scattered = places_of([(at * 2, 1) for at in range(100_000)])
    sets_of_files([scattered], lambda: heard.append(1))
    assert len(heard) >= 3
