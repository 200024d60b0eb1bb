"""What the stream of events tells of a peer that is gone."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.events2 import parse_events
from pvedrbdstor.drbd.history import REJOIN_SECONDS, History, Loss
from tests.drbd.support import STREAMS, stream

PEER = "connection name:r0 peer-node-id:0 conn-name:peer"


def told(*lines: str) -> History:
    """Line n is heard at second n."""
    history = History()
    for now, line in enumerate(lines):
        for event in parse_events([f"{line}\n"]):
            history.apply(event, float(now))
    return history


def heard(name: str) -> History:
    return told(*(line.rstrip("\n") for line in stream(name)))


def test_a_connected_peer_is_not_lost() -> None:
    assert told(f"exists {PEER} connection:Connected role:Primary").loss("r0", 0, 9) is None


def test_a_peer_nobody_ever_heard_of_is_not_known() -> None:
    assert History().loss("r0", 0, 9) is None


def test_a_peer_that_was_away_from_the_start_is_lost_since_nobody_knows_when() -> None:
    history = told(f"exists {PEER} connection:Connecting role:Unknown")
    assert history.loss("r0", 0, 9) == Loss(None, None, None)


def test_the_role_just_before_the_loss_and_its_age_are_kept() -> None:
    history = told(
        f"exists {PEER} connection:Connected role:Primary",
        f"change {PEER} connection:NetworkFailure role:Unknown",
        f"change {PEER} connection:Connecting",
    )
    assert history.loss("r0", 0, 76) == Loss(75.0, "Primary", False)


def test_a_peer_that_stepped_down_before_it_left_was_no_writer() -> None:
    history = told(
        f"exists {PEER} connection:Connected role:Primary",
        f"change {PEER} role:Secondary",
        f"change {PEER} connection:TearDown role:Unknown",
        f"destroy {PEER}",
    )
    assert history.loss("r0", 0, 10) == Loss(8.0, "Secondary", False)


def test_a_handshake_that_finds_a_split_brain_does_not_end_the_loss() -> None:
    """8.4 says Connected before it compares the generations."""
    history = told(
        f"exists {PEER} connection:Connected role:Primary",
        f"change {PEER} connection:NetworkFailure role:Unknown",
        f"change {PEER} connection:Connected",
        "call helper name:r0 peer-node-id:0 conn-name:peer volume:0 minor:0 helper:split-brain",
        f"change {PEER} connection:StandAlone",
    )
    assert history.loss("r0", 0, 61) == Loss(60.0, "Primary", True)


def test_a_handshake_that_fails_keeps_the_time_of_the_loss_and_is_remembered() -> None:
    """So it is on the slower node of a split brain in 8.4, whose handler is never called: the lab's events."""
    history = told(
        f"exists {PEER} connection:Connected role:Primary",
        f"change {PEER} connection:NetworkFailure role:Unknown",
        f"change {PEER} connection:Connected",
        f"change {PEER} connection:NetworkFailure",
        f"change {PEER} connection:Unconnected",
        f"change {PEER} connection:Connecting",
    )
    refused = Loss(60.0, "Primary", False, refused=True)
    assert history.loss("r0", 0, 61) == refused
    assert History.from_json(history.to_json(), 1.0).loss("r0", 0, 61) == refused
    for line in (f"change {PEER} connection:Connected", f"change {PEER} role:Primary"):
        history.apply(next(parse_events([line + "\n"])), 70)
    history.apply(next(parse_events([f"change {PEER} connection:NetworkFailure\n"])), 80)
    assert history.loss("r0", 0, 81) == Loss(1.0, "Primary", False)


def test_a_split_brain_is_forgotten_when_the_peer_is_back() -> None:
    history = told(
        f"exists {PEER} connection:StandAlone role:Unknown",
        "call helper name:r0 peer-node-id:0 helper:split-brain",
        f"change {PEER} connection:Connected role:Secondary",
        f"change {PEER} connection:Connecting role:Unknown",
    )
    assert history.loss("r0", 0, 3) == Loss(0.0, "Secondary", False)


def test_a_role_from_before_missed_events_does_not_count() -> None:
    history = told(f"exists {PEER} connection:Connected role:Secondary")
    history.interrupted()
    for event in parse_events([f"exists {PEER} connection:Connecting role:Unknown\n"]):
        history.apply(event, 5)
    assert history.loss("r0", 0, 6) == Loss(1.0, None, False)


def test_peers_are_told_apart_and_a_removed_resource_is_forgotten() -> None:
    history = told(
        "exists connection name:r0 peer-node-id:1 connection:Connected role:Primary",
        "exists connection name:r0 peer-node-id:2 connection:Connecting role:Unknown",
        "call helper name:r0 peer-node-id:2 helper:split-brain",
    )
    assert history.loss("r0", 1, 9) is None
    assert history.loss("r0", 2, 9) == Loss(None, None, True)
    for event in parse_events(["destroy resource name:r0\n"]):
        history.apply(event, 9)
    assert history.loss("r0", 2, 9) is None


def test_a_recorded_cut_between_two_writers() -> None:
    found = heard("C7-fencing.a.ev").loss("r0", 1, 100)
    assert found is not None
    assert (found.peer_role, found.split_brain) == ("Primary", False)


def test_a_recorded_recovery_from_a_split_brain_ends_connected() -> None:
    assert heard("C3-recover-resync.b.ev").loss("r0", 0, 100) is None


def test_recorded_disconnections_of_8_4_were_from_a_secondary() -> None:
    lines = [line.rstrip("\n") for line in stream("8.4-cmp.a.ev")]
    first_loss = next(n for n, line in enumerate(lines) if "connection:Disconnecting" in line)
    found = told(*lines[: first_loss + 1]).loss("r0", 0, first_loss)
    assert found == Loss(0.0, "Secondary", False)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["exists", "change", "destroy", "call"]),
        st.sampled_from(["connection", "helper", "resource", "path", "-"]),
        st.sampled_from(["name:r0", "name:", "name:r1"]),
        st.sampled_from(["peer-node-id:0", "peer-node-id:x", "peer-node-id:", "peer-node-id:9999999999", "x"]),
        st.sampled_from(["connection:Connected", "connection:StandAlone", "helper:split-brain", "y"]),
        st.sampled_from(["role:Primary", "role:Unknown", "role:Secondary", "role:"]),
    ).map(" ".join)
    | st.text(max_size=20),
    max_size=12,
)


@given(EVENTS)
def test_any_events_give_a_loss_that_makes_sense(lines: list[str]) -> None:
    found = told(*lines).loss("r0", 0, 100.0)
    if found is not None:
        assert found.seconds is None or 0 <= found.seconds <= 100
        assert found.peer_role in (None, "Primary", "Secondary")


def test_every_stream_is_heard_to_its_end() -> None:
    for name in STREAMS:
        heard(name)


@given(st.lists(st.sampled_from(sorted({line.rstrip("\n") for name in STREAMS for line in stream(name)})), max_size=30))
def test_a_history_handed_on_at_once_knows_the_same_of_lost_peers(lines: list[str]) -> None:
    before = told(*lines)
    after = History.from_json(json.loads(json.dumps(before.to_json())), 0.0)
    for resource, peer in (("r0", 0), ("r0", 1), ("r0", 2)):
        assert after.loss(resource, peer, 99) == before.loss(resource, peer, 99)


def test_a_history_handed_on_after_a_long_time_keeps_when_a_peer_was_lost_and_not_its_role() -> None:
    before = told(
        f"exists {PEER} connection:Connected role:Secondary", f"change {PEER} connection:Connecting role:Unknown"
    )
    after = History.from_json(before.to_json(), REJOIN_SECONDS + 1)
    assert after.loss("r0", 0, 9) == Loss(8.0, None, False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resource", "peer", "state", "role", "lost_at", "split_brain"]), inner, max_size=6
        )
    ),
    max_leaves=12,
)


@given(JSON, st.floats(0, 1000))
def test_no_text_of_a_former_watcher_is_a_reason_to_fail(data: object, blind: float) -> None:
    assert History.from_json(data, blind).loss("r0", 0, 9) is None or isinstance(data, list)
