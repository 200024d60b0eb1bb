"""The evidence of what a copy was: other marked blocks, or another content of the same, are another copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvedrbdstor.fencing.split import evidence
from pvedrbdstor.fencing.split.evidence import Evidence, covers

BLOCK = 4096
RANGES = ((0, 2 * BLOCK), (600 * BLOCK, 300 * BLOCK))


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "device"
    path.write_bytes(os.urandom(1024 * BLOCK))
    return str(path)


def ignore(_count: int) -> None:
    return


def write(device: str, at: int) -> None:
    fd = os.open(device, os.O_WRONLY)
    os.pwrite(fd, b"new", at)
    os.fsync(fd)
    os.close(fd)


def test_a_copy_that_nobody_has_written_is_what_it_was(device: str) -> None:
    found = evidence.take(device, RANGES, ignore)
    assert found is not None and found.ranges == RANGES
    assert evidence.holds(found, device, RANGES, ignore)
    assert evidence.holds(found, device, RANGES[:1], ignore)  # what DRBD marks late is in the activity log before


@pytest.mark.parametrize("at", [0, 2 * BLOCK - 3, 600 * BLOCK, 900 * BLOCK - 3])
def test_a_write_to_a_block_that_was_marked_already_is_seen(device: str, at: int) -> None:
    found = evidence.take(device, RANGES, ignore)
    write(device, at)
    assert found is not None and not evidence.holds(found, device, RANGES, ignore)


@pytest.mark.parametrize("new", [(2 * BLOCK, BLOCK), (599 * BLOCK, 2 * BLOCK), (1000 * BLOCK, BLOCK)])
def test_a_newly_marked_block_is_a_write(device: str, new: tuple[int, int]) -> None:
    found = evidence.take(device, RANGES, ignore)
    assert found is not None and not evidence.holds(found, device, (*RANGES, new), ignore)


def test_what_would_take_too_long_to_read_gives_none(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LIMIT", 301 * BLOCK)
    assert evidence.take(device, RANGES, ignore) is None


def test_nothing_changed_is_evidence_as_well(device: str) -> None:
    found = evidence.take(device, (), ignore)
    assert found == Evidence((), found.digest) and not evidence.holds(found, device, ((0, BLOCK),), ignore)


def test_ranges_that_touch_cover_what_lies_across() -> None:
    assert covers(((0, 8), (8, 8)), ((4, 8),)) and not covers(((0, 8), (9, 8)), ((4, 8),)) and covers((), ())
