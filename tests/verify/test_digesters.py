"""How a copy is read: a sample's blocks all at once, long stretches in large requests."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pvedrbdstor.native import Cancelled
from pvedrbdstor.verify.digesters import APART_DEPTH, Digesters
from pvedrbdstor.verify.plan import SLICE_RANGES
from pvedrbdstor.verify.wire import Request
from tests.faulty_disk import faulty_disk
from tests.native.digests import KIB, MIB, expected, noise

CONTENT = noise(12 * MIB)
SAMPLE = Request(1, tuple((number * 192 * KIB, 64 * KIB) for number in range(SLICE_RANGES)), 64 * KIB)


def test_a_slice_of_a_sample_is_all_in_flight_at_once(tmp_path: Path) -> None:
    assert SLICE_RANGES <= APART_DEPTH
    with faulty_disk(CONTENT, tmp_path) as disk:
        fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
        digesters = Digesters(fd, "disk")
        disk.hang()
        found: list[object] = []
        reading = threading.Thread(target=lambda: found.append(digesters.digest(SAMPLE)))
        reading.start()
        try:
            assert disk.wait_for_reads(SLICE_RANGES)
            assert sorted(disk.asked()) == list(SAMPLE.ranges)
        finally:
            disk.resume()
            reading.join()
            digesters.close()
            os.close(fd)
    parts = [expected(CONTENT[start : start + length], 64 * KIB) for start, length in SAMPLE.ranges]
    assert found == [(b"".join(parts), {})]


def test_a_long_stretch_is_read_in_large_requests(tmp_path: Path) -> None:
    with faulty_disk(CONTENT, tmp_path) as disk:
        fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
        digesters = Digesters(fd, "disk")
        found = digesters.digest(Request(1, ((0, 12 * MIB),), 64 * KIB))
        assert found.values == expected(CONTENT, 64 * KIB)
        assert {length for _, length in disk.asked()} == {MIB}
        digesters.close()
        os.close(fd)


def test_after_a_cancel_nothing_is_read_any_more_in_either_way(tmp_path: Path) -> None:
    with faulty_disk(CONTENT, tmp_path) as disk:
        fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
        digesters = Digesters(fd, "disk")
        digesters.digest(SAMPLE)
        before = disk.asked()
        digesters.cancel()
        for asked in (SAMPLE, Request(2, ((0, 12 * MIB),), 64 * KIB)):
            with pytest.raises(Cancelled):
                digesters.digest(asked)
        assert disk.asked() == before
        digesters.close()
        os.close(fd)
