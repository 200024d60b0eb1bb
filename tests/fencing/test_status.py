"""The guard's status file, whole, old and broken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.corosync_conf import Timing
from pvedrbdstor.fencing.status import Ring, Status, parse

DOCUMENT = {
    "at": 100.0,
    "pid": 7,
    "quorum": {"quorate": True, "ring": 12, "members": [1, 2]},
    "votes": {"node_id": 1, "expected": 3, "highest_expected": 3, "total": 3, "quorum": 2, "flags": 2 | 64 | 128 | 256},
    "problems": [],
}
TEXT = json.dumps(DOCUMENT)


def test_what_a_running_guard_tells() -> None:
    flags = Flag.QUORATE | Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE | Flag.QDEVICE_CAST_VOTE
    assert parse(TEXT, 101.5) == Status(1.5, 7, Ring(True, 12, frozenset({1, 2})), Votes(1, 3, 3, 3, 2, flags))


def test_what_corosync_has_in_force() -> None:
    found = parse(json.dumps({**DOCUMENT, "timing": {"token": 5.0, "consensus": 6}}), 100.0)
    assert found is not None
    assert found.timing == Timing(5.0, 6.0)


def test_a_guard_without_corosync_runs_all_the_same() -> None:
    assert parse(json.dumps({**DOCUMENT, "quorum": None, "votes": None}), 100.0) == Status(0.0, 7, None, None)


@pytest.mark.parametrize("now", [110.1, 98.0, 1e9])
def test_a_guard_that_no_longer_writes_does_not_run(now: float) -> None:
    assert parse(TEXT, now) is None


def test_without_a_file_there_is_no_guard() -> None:
    assert parse(None, 0.0) is None


def test_a_file_cut_off_is_no_guard() -> None:
    assert all(parse(TEXT[:end], 101.0) is None for end in range(len(TEXT)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*DOCUMENT, "ring", "members", "token", "consensus"]), inner)
    ),
)


@given(
    st.fixed_dictionaries({"at": JSON, "pid": JSON}, optional={"quorum": JSON, "votes": JSON, "timing": JSON}) | JSON
)
def test_an_arbitrary_document_is_a_guard_or_none(document: object) -> None:
    found = parse(json.dumps(document), 0.0)
    assert found is None or found.age >= 0
