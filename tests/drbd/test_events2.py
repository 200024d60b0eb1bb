"""The parser of `drbdsetup events2`, on the outputs of real clusters in every state and on arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import devices
from pvedrbdstor.drbd.events2 import State, parse_events, parse_line, parse_now
from tests.drbd.support import FILES, STATE_COMMAND, STREAMS, outputs, state_of, stream


def test_the_captures_are_there() -> None:
    assert len(FILES) == 96
    assert len(STREAMS) == 5


@pytest.mark.parametrize("name", FILES)
def test_every_capture_is_understood_whole(name: str) -> None:
    texts = [text for command, text in outputs(name).items() if command.startswith("drbdsetup events2 ")]
    assert len(texts) == 2 if name.startswith("8.4/") else len(texts) in (1, 2)
    for text in texts:
        state = parse_now(text)
        assert state.complete
        lines = text.splitlines()
        kinds = {
            "resource": state.resources,
            "device": state.devices,
            "connection": state.connections,
            "peer-device": state.peer_devices,
        }
        for kind, values in kinds.items():
            assert len(values) == sum(line.startswith(f"exists {kind} ") for line in lines)
        for device in state.devices:
            assert (device.resource, device.volume, device.minor) == ("r0", 0, 0)
            assert f" disk:{device.disk}" in text
        for connection in state.connections:
            assert f" peer-node-id:{connection.peer_node_id} " in text
            assert f" connection:{connection.state} " in text
        for peer in state.peer_devices:
            assert f" replication:{peer.replication} peer-disk:{peer.disk} " in text


def test_a_healthy_8_4_mirror() -> None:
    state = state_of("8.4/04-mounted-both.a.txt")
    (resource,), (device,), (connection,), (peer,) = (
        state.resources,
        state.devices,
        state.connections,
        state.peer_devices,
    )
    assert (resource.name, resource.role, resource.suspended) == ("r0", "Primary", frozenset())
    assert (device.disk, device.size, device.quorum, device.blocked) == ("UpToDate", 2097052, None, "no")
    assert (connection.name, connection.state, connection.role) == ("peer", "Connected", "Primary")
    assert (peer.replication, peer.disk, peer.out_of_sync, peer.done) == ("Established", "UpToDate", 0, None)
    assert peer.resync_suspended == frozenset()
    assert state.minor_of("r0", 0) == 0
    assert state.minor_of("r0", 1) is None
    assert state.minor_of("r1", 0) is None


def test_a_standalone_peer_of_8_4_has_no_name() -> None:
    (connection,) = state_of("8.4/F2-splitbrain-standalone.a.txt").connections
    assert (connection.name, connection.state) == (None, "StandAlone")


def test_a_resource_that_is_down_is_an_empty_complete_state() -> None:
    state = state_of("8.4/F5a-b-down.b.txt")
    assert state.complete
    assert (state.resources, state.devices) == ([], [])


def test_io_frozen_for_fencing_is_seen() -> None:
    state = state_of("8.4/T3a-fencing-suspended.a.txt")
    assert state.resources[0].suspended == {"fencing"}
    assert state.devices[0].blocked == "upper"


def test_two_peers_of_9_are_told_apart_by_their_node_id() -> None:
    state = state_of("9/24-tiebreaker-healthy.a.txt")
    assert {(c.peer_node_id, c.name, c.role) for c in state.connections} == {
        (2, "nodec", "Secondary"),
        (1, "nodeb", "Primary"),
    }
    assert {p.peer_node_id: p.disk for p in state.peer_devices} == {2: "Diskless", 1: "UpToDate"}
    assert state.devices[0].quorum is True


def test_a_peer_without_a_disk_on_purpose_is_told_from_one_that_lost_it() -> None:
    tie_breaker, mirror = state_of("9/24-tiebreaker-healthy.a.txt"), state_of("9/11-b-diskless-mounted.a.txt")
    assert {p.peer_node_id: p.client for p in tie_breaker.peer_devices} == {2: True, 1: False}
    assert [(p.disk, p.client) for p in mirror.peer_devices] == [("Diskless", False)]
    assert [device.client for device in state_of("9/24-tiebreaker-healthy.c.txt").devices] == [True]
    assert [device.client for device in state_of("8.4/04-mounted-both.a.txt").devices] == [None]


def test_seconds_to_go_are_told_by_9() -> None:
    (peer,) = state_of("9/08-resync-in-progress.a.txt").peer_devices
    assert (peer.done, peer.eta, peer.out_of_sync) == (12.21, 54, 920512)


def test_io_that_fails_by_force_is_seen_on_9() -> None:
    assert [r.failing for r in state_of("9/04-mounted-both.a.txt").resources] == [False]
    assert [r.failing for r in state_of("8.4/04-mounted-both.a.txt").resources] == [None]
    assert parse_now("exists resource name:r0 role:Secondary force-io-failures:yes\n").resources[0].failing is True


def test_lost_quorum_is_seen_on_9() -> None:
    assert state_of("9/19-quorum-lost-suspend-io.b.txt").devices[0].quorum is False


def test_progress_of_a_verify_on_9_is_a_number_of_per_cent() -> None:
    (peer,) = state_of("9/12-verify-running.a.txt").peer_devices
    assert peer.replication in ("VerifyS", "VerifyT")
    assert peer.done is not None
    assert 0 < peer.done < 100


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_changes_ends_in_the_state_of_its_last_lines(name: str) -> None:
    state = State()
    last: dict[str, str] = {}
    for line in stream(name):
        for event in parse_events([line]):
            state.apply(event)
            if event.object == "device" and "disk" in event.values:
                last["disk"] = event.values["disk"]
            if event.object == "resource" and "suspended" in event.values:
                last["suspended"] = event.values["suspended"]
            if event.verb == "destroy" and event.object in ("device", "resource"):
                last.clear()
    assert state.complete
    assert [device.disk for device in state.devices] == [last["disk"]] * bool(last)
    frozen = {reason for reason in last.get("suspended", "no").split(",") if reason != "no"}
    assert all(resource.suspended == frozen for resource in state.resources)


def test_a_changed_connection_keeps_what_the_change_does_not_name() -> None:
    state = parse_now("exists connection name:r peer-node-id:1 conn-name:b connection:Connected role:Primary\n")
    for event in parse_events(["change connection name:r peer-node-id:1 connection:Connecting\n"]):
        state.apply(event)
    (connection,) = state.connections
    assert (connection.name, connection.state, connection.role) == ("b", "Connecting", "Primary")


def test_destroyed_objects_are_gone() -> None:
    state = parse_now("create device name:r volume:0 minor:3 disk:UpToDate\ndestroy device name:r volume:0 minor:3\n")
    assert state.devices == []


def test_unknown_verbs_objects_and_keys_are_passed_over() -> None:
    state = parse_now(
        "- skipped 3\nrename resource name:r0 new_name:r1\nexists path name:r0 peer-node-id:1 local:ipv4:1.2.3.4:7\n"
        "call helper name:r0 helper:fence-peer\nexists resource name:r0 role:Primary shiny:yes suspended:user,quorum\n"
    )
    (resource,) = state.resources
    assert resource.suspended == {"user", "quorum"}
    assert not state.complete


def test_values_are_split_at_their_first_colon_only() -> None:
    event = parse_line("exists path name:r0 local:ipv4:10.77.0.1:7789")
    assert event is not None
    assert event.values["local"] == "ipv4:10.77.0.1:7789"


@pytest.mark.parametrize("name", FILES[::9])
def test_text_cut_off_anywhere_never_gives_a_value_that_was_not_there(name: str) -> None:
    text = outputs(name)[STATE_COMMAND]
    whole = parse_now(text)
    for end in range(0, len(text), 7):
        part = parse_now(text[:end])
        assert not part.complete
        assert set(part.devices) <= set(whole.devices)
        assert set(part.connections) <= set(whole.connections)
        assert set(part.peer_devices) <= set(whole.peer_devices)


WORDS = st.sampled_from(
    [
        "exists",
        "create",
        "change",
        "destroy",
        "call",
        "-",
        "resource",
        "device",
        "connection",
        "peer-device",
        "name:r0",
        "name:",
        "name",
        "volume:0",
        "volume:x",
        "volume:-1",
        "minor:99999999999999999999",
        "peer-node-id:1",
        "disk:UpToDate",
        "suspended:,",
        "done:1.2.3",
        "quorum:maybe",
        ":",
        ":a",
    ]
)


@given(st.lists(st.lists(WORDS | st.text(max_size=8), max_size=8).map(" ".join), max_size=8).map("\n".join))
def test_arbitrary_text_gives_a_state(text: str) -> None:
    state = parse_now(text)
    for device in state.devices:
        assert device.volume >= 0
        assert device.minor is None or device.minor >= 0
    assert all(resource.name for resource in state.resources)
    assert all(peer.done is None or peer.done >= 0 for peer in state.peer_devices)


def test_links_of_a_volume() -> None:
    assert devices.by_res_links("vm", 0) == ("/dev/drbd/by-res/vm/0", "/dev/drbd/by-res/vm")
    assert devices.by_res_links("vm", 2) == ("/dev/drbd/by-res/vm/2",)
    assert devices.node(12) == "/dev/drbd12"
