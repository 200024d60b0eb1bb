"""What DRBD must say before reads prove anything, on recordings of real clusters of both generations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import proc_drbd
from pvedrbdstor.verify import state
from pvedrbdstor.verify.state import NodeState
from tests.drbd.support import FILES, outputs, state_of

GOOD = {
    "8.4/03-dual-primary-nofs",
    "8.4/04-mounted-both",
    "8.4/F6c-rejoined-after-kill",
    "8.4/T3-cut-undetected-pending-io",
    "9/03-dual-primary-nofs",
    "9/04-mounted-both",
    "9/13-verify-done-oos",
    "9/23-fencing-healed-while-handler-blocks",
    "9/24-tiebreaker-healthy",
    "9/27-drbd9.2.18-dual-primary",
}
GOOD_ON_A = {"8.4/05-connected-primary-secondary-a-mounted", "8.4/F5c-verify-done-oos"}
"""The other node is Secondary, and says so itself."""
NODES = [name for name in FILES if not name.endswith(".c.txt")]


def found_in(name: str) -> NodeState:
    if name.startswith("8.4/"):
        device = proc_drbd.parse(outputs(name)["cat /proc/drbd"]).devices.get(0)
        return state.of_proc(device) if device else NodeState()
    return state.of_events(state_of(name), "r0", 0)


def why(name: str) -> str:
    found = state.obstacle(found_in(name), "nodea", "ha", "r0")
    return found.cause if found else ""


@pytest.mark.parametrize("name", NODES)
def test_only_a_whole_copy_in_use_that_is_connected_to_another_is_read(name: str) -> None:
    kind, node = name.removesuffix(".txt").rsplit(".", 1)
    assert (why(name) == "") == (kind in GOOD or (node == "a" and kind in GOOD_ON_A)), why(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("8.4/F4-b-diskless-mounted.b.txt", "nodea is Diskless: that would read the peer and prove nothing"),
        ("8.4/F4-b-diskless-mounted.a.txt", "the peer of nodea is Diskless: that would read the peer"),
        ("9/11-b-diskless-mounted.b.txt", "nodea is Diskless: that would read the peer and prove nothing"),
        ("8.4/F3-resync-in-progress.a.txt", "a resync is running (SyncSource"),
        ("8.4/F7b-dualprimary-synctarget.a.txt", "a resync is running (SyncTarget"),
        ("9/08-resync-in-progress.b.txt", "a resync is running (SyncTarget"),
        ("9/10-resync-paused.a.txt", "a resync is running (PausedSync"),
        ("8.4/F5b-verify-running.a.txt", "DRBD's own verify is running (VerifyS"),
        ("9/12-verify-running.b.txt", "DRBD's own verify is running (VerifyT"),
        ("8.4/F2-splitbrain-standalone.a.txt", "nodea is StandAlone"),
        ("9/07-splitbrain-standalone.a.txt", "nodea is StandAlone"),
        ("8.4/F1-cut-10s-DRBD-WFConnection.a.txt", "not connected to its peer (WFConnection)"),
        ("9/05-cut-10s-connecting.a.txt", "not connected to its peer (Connecting)"),
        ("8.4/T3a-fencing-suspended.a.txt", "has frozen the I/O"),
        ("9/19-quorum-lost-suspend-io.a.txt", "has frozen the I/O"),
        ("8.4/02-connected-uptodate-secondary.a.txt", "nodea is Secondary"),
        ("8.4/01-connected-inconsistent-secondary.a.txt", "the disk of nodea is Inconsistent"),
    ],
)
def test_what_is_in_the_way_is_named(name: str, expected: str) -> None:
    assert expected in why(name)


def test_a_resource_that_is_down_is_brought_up_first() -> None:
    for found in (NodeState(), state.of_events(state_of("8.4/04-mounted-both.a.txt"), "r1", 0)):
        obstacle = state.obstacle(found, "nodea", "ha", "r0")
        assert obstacle is not None and "is down on nodea" in obstacle.cause and "mirror up ha" in obstacle.remedy


def test_both_ways_to_ask_8_4_say_the_same() -> None:
    name = "8.4/F5c-verify-done-oos.a.txt"
    by_events = state.of_events(state_of(name), "r0", 0)
    assert replace(by_events, read=None) == replace(found_in(name), read=None, wrap=None)
    assert by_events.out_of_sync == 12 and by_events.outstanding == 0 and by_events.written


def test_a_request_that_has_not_ended_is_seen() -> None:
    assert found_in("8.4/T3-cut-undetected-pending-io.a.txt").outstanding


@pytest.mark.parametrize("name", NODES)
def test_every_state_survives_the_wire(name: str) -> None:
    found = found_in(name)
    assert state.from_json(state.as_json(found)) == found


@given(
    st.dictionaries(
        st.sampled_from(["role", "disk", "suspended", "quorum", "read", "writes"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=80)
        | st.lists(st.none(), max_size=1),
    )
)
def test_any_state_of_the_other_node_is_read_or_refused(data: dict[str, object]) -> None:
    try:
        found = state.from_json({**state.as_json(NodeState()), **data})
    except ValueError:
        return
    state.obstacle(found, "nodeb", "ha", "r0")
    assert state.unlike(found, found, "nodeb") is None


WHOLE = NodeState("Primary", "UpToDate", "Connected", "Established", "UpToDate", False, None, 0, 0, 100, 1000)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (replace(WHOLE, read=900, written=200), "taken away and attached again"),
        (replace(WHOLE, written=None), "taken away and attached again"),
        (replace(WHOLE, out_of_sync=4, read=9999), "out of sync: 0 KiB, now 4 KiB"),
        (replace(WHOLE, read=1000 + 510), "512 KiB were asked for, and DRBD has counted 510"),
    ],
)
def test_what_happened_between_two_good_states_is_seen(now: NodeState, expected: str) -> None:
    found = state.unlike(WHOLE, now, "nodea", 512)
    assert found is not None and expected in found.cause


def test_reads_of_others_and_rounded_counters_are_no_obstacle() -> None:
    for read in (1511, 1512, 99999):
        assert state.unlike(WHOLE, replace(WHOLE, read=read, written=200), "nodea", 512) is None


ROUND = 1 << 31
"""KiB: 2 TiB, after which 8.4's counters begin anew."""
WRAPS = replace(WHOLE, wrap=ROUND)
counters = st.integers(0, ROUND - 1)


@given(counters, counters, st.integers(0, ROUND // 2), st.sampled_from(["read", "written"]))
def test_a_counter_of_8_4_that_comes_round_is_no_attach(read: int, written: int, more: int, name: str) -> None:
    before = replace(WRAPS, read=read, written=written)
    now = replace(before, **{name: (getattr(before, name) + more) % ROUND})
    assert state.unlike(before, now, "nodea", more if name == "read" else 0) is None


@given(counters, st.integers(2, ROUND // 2), st.integers(2, 1 << 20))
def test_reads_of_the_peer_are_seen_over_the_round_too(read: int, more: int, missing: int) -> None:
    before = replace(WRAPS, read=read)
    found = state.unlike(before, replace(before, read=(read + more) % ROUND), "nodea", more + missing)
    assert found is not None and f"DRBD has counted {more}" in found.cause


@given(st.integers(1, ROUND - 1), st.integers(1, ROUND - 1), st.data())
def test_both_counters_fall_with_an_attach(read: int, written: int, data: st.DataObject) -> None:
    now = replace(WRAPS, read=data.draw(st.integers(0, read - 1)), written=data.draw(st.integers(0, written - 1)))
    found = state.unlike(replace(WRAPS, read=read, written=written), now, "nodea")
    assert found is not None and "attached again" in found.cause


@given(st.integers(1, ROUND // 2 - 1), st.integers(0, 1 << 20))
def test_a_counter_that_would_have_gone_over_half_the_round_was_reset(read: int, written: int) -> None:
    now = replace(WRAPS, read=0, written=100 + written)
    found = state.unlike(replace(WRAPS, read=read), now, "nodea")
    assert found is not None and "attached again" in found.cause


@given(st.integers(1, 1 << 62), st.sampled_from(["read", "written"]))
def test_counters_of_9_never_fall_but_by_an_attach(more: int, name: str) -> None:
    before = replace(WHOLE, **{name: more})
    assert state.unlike(before, replace(before, **{name: more - 1}), "nodea") is not None


def test_only_the_counters_of_8_4_come_round() -> None:
    assert found_in("8.4/04-mounted-both.a.txt").wrap == ROUND
    assert found_in("9/04-mounted-both.a.txt").wrap is None


def test_a_node_was_still_only_if_nothing_was_open_and_nothing_was_written() -> None:
    """A write of 512 bytes, as those of the heartbeat, is half a KiB, which DRBD's own counters do not show."""
    quiet = replace(WHOLE, writes=7)
    assert state.still(quiet, replace(quiet, read=2000))
    for now in (replace(quiet, writes=8), replace(quiet, outstanding=1), replace(quiet, outstanding=None)):
        assert not state.still(quiet, now)
    assert not state.still(replace(quiet, outstanding=1), quiet)
    assert not state.still(WHOLE, WHOLE), "nobody knows"


def test_the_writes_of_the_device_are_taken_from_its_statistics() -> None:
    text = "  8446  110 1000 2300  5 0  40 12 0 100 110 0 0 0 0\n"
    found = state.with_stat(WHOLE, text)
    assert (found.writes, found.write_ms) == (5, 12)
    assert state.with_stat(WHOLE, "") == state.with_stat(WHOLE, "a b c d e f g h") == WHOLE
