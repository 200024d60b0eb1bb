"""From changed blocks to changed parts of files, against the same done byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.metadata import merged
from pvedrbdstor.fencing.split.ranges import CHUNK, changed_parts, chunks_of
from pvedrbdstor.native import FIEMAP_EXTENT_DELALLOC, FIEMAP_EXTENT_UNWRITTEN, Extent

_places = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 12)), max_size=6)


@st.composite
def extents(draw: st.DrawFn) -> list[Extent]:
    found, logical = [], 0
    for physical, length in draw(_places):
        logical += draw(st.integers(0, 5))
        flags = draw(st.sampled_from([0, 0, 0, FIEMAP_EXTENT_UNWRITTEN, FIEMAP_EXTENT_DELALLOC]))
        found.append(Extent(logical, physical, length, flags))
        logical += length
    return found


@given(extents(), _places)
def test_as_byte_by_byte(found: list[Extent], places: list[tuple[int, int]]) -> None:
    changed = merged(places)
    blocks = {at for start, length in changed for at in range(start, start + length)}
    expected = {
        extent.logical + at
        for extent in found
        if not extent.unwritten and extent.located
        for at in range(extent.length)
        if extent.physical + at in blocks
    }
    parts = changed_parts(found, changed)
    assert {at for start, length in parts for at in range(start, start + length)} == expected


def test_chunks_are_whole() -> None:
    assert chunks_of([(5, 1), (CHUNK - 1, 2), (9 * CHUNK, 1)]) == ((0, 2 * CHUNK), (9 * CHUNK, CHUNK))
