"""From ranges of the device to pieces of files, against the same done byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.metadata import merged
from pvedrbdstor.mirror.extents import Ranges, pieces, without
from pvedrbdstor.native import FIEMAP_EXTENT_DELALLOC, FIEMAP_EXTENT_UNWRITTEN, Extent

_INLINE = 0x200
_places = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 12)), max_size=6)


def _bytes(ranges: list[tuple[int, int]]) -> set[int]:
    return {at for start, length in ranges for at in range(start, start + length)}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 80),
            st.integers(1, 12),
            st.sampled_from([0, 0, _INLINE, FIEMAP_EXTENT_UNWRITTEN, FIEMAP_EXTENT_DELALLOC]),
        )
    ),
    _places,
)
def test_pieces_are_those_of_each_byte(extents: list[tuple[int, int, int]], places: list[tuple[int, int]]) -> None:
    found, logical = [], 0
    for physical, length, flags in extents:
        found.append(Extent(logical, physical, length, flags))
        logical += length + 3
    wanted = _bytes(places)
    expected = {
        (extent.logical + at, extent.physical + at, extent.unwritten)
        for extent in found
        if not extent.flags & (_INLINE | FIEMAP_EXTENT_DELALLOC)
        for at in range(extent.length)
        if extent.physical + at in wanted
    }
    got = [
        (piece.logical + at, piece.physical + at, piece.unwritten)
        for piece in pieces(found, Ranges(merged(places)))
        for at in range(piece.length)
    ]
    assert set(got) == expected
    assert len(got) == len(expected)


@given(st.integers(0, 80), st.integers(1, 40), _places)
def test_what_is_left_is_what_nobody_has(start: int, length: int, places: list[tuple[int, int]]) -> None:
    left = list(without(start, length, Ranges(merged(places))))
    assert _bytes(left) == set(range(start, start + length)) - _bytes(places)
    assert left == sorted(left)
