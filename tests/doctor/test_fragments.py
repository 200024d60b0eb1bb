"""Counting an image's pieces: what lies apart, and that a count which the time cut short is none of the whole image."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pvedrbdstor.doctor import storages


def extents(*places: tuple[int, int]) -> list[SimpleNamespace]:
    return [SimpleNamespace(physical=at, length=length) for at, length in places]


@pytest.mark.parametrize(
    ("places", "count"),
    [((), 0), (((0, 4), (4, 4)), 1), (((0, 4), (8, 4), (12, 4)), 2), (((8, 4), (0, 4), (4, 4)), 2)],
    ids=["none", "split by a flag alone", "a gap", "backwards"],
)
def test_pieces_are_what_lies_apart(
    monkeypatch: pytest.MonkeyPatch, places: tuple[tuple[int, int], ...], count: int
) -> None:
    monkeypatch.setattr(storages.native, "fiemap", lambda _fd: extents(*places))
    assert storages._pieces(-1, time.monotonic() + 60) == (count, True)


def test_a_count_that_was_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages.native, "fiemap", lambda _fd: extents(*((at * 8, 4) for at in range(1000))))
    count, whole = storages._pieces(-1, time.monotonic() - 1)
    assert count < 1000 and not whole
