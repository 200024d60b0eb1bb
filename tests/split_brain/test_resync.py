"""A resync that stands still is told from one that is slow, and one that was from none. The events are those of DRBD 8.4 and 9."""

from __future__ import annotations

import pytest

from pvedrbdstor.drbd.events2 import parse_events
from pvedrbdstor.fencing.split.resync import Stall, Witness

INITIAL = """exists resource name:r0 role:Secondary suspended:no
exists connection name:r0 peer-node-id:1 conn-name:peer connection:Connected role:Primary
exists device name:r0 volume:0 minor:0 disk:UpToDate
exists peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 replication:{before} peer-disk:UpToDate
exists -
"""
RECONNECT = """change peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 replication:Off peer-disk:DUnknown
destroy peer-device name:r0 peer-node-id:1 conn-name:peer volume:0
create peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 replication:Off peer-disk:DUnknown
change peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 replication:WFBitMapT
change peer-device name:{name} peer-node-id:1 conn-name:peer volume:0 replication:SyncTarget
change peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 out-of-sync:0
change peer-device name:r0 peer-node-id:1 conn-name:peer volume:0 replication:Established
"""


def witness(text: str) -> Witness:
    found = Witness("r0", 0)
    for event in parse_events(text.splitlines(keepends=True)):
        found.apply(event)
    return found


def test_a_resync_is_seen_however_short_it_was() -> None:
    found = witness(INITIAL.format(before="Established") + RECONNECT.format(name="r0"))
    assert found.was_target and not found.was_source
    assert found.replications == ["Off", "Off", "WFBitMapT", "SyncTarget", "Established"]


@pytest.mark.parametrize("text", [INITIAL.format(before="SyncTarget"), INITIAL.format(before="Established")])
def test_what_was_before_and_what_another_resource_does_do_not_count(text: str) -> None:
    assert not witness(text).was_target
    assert not witness(INITIAL.format(before="Established") + RECONNECT.format(name="r1")).was_target


def test_it_stands_still_when_nothing_changes_for_long_enough() -> None:
    stall = Stall(120)
    assert not stall.seen(100, 0.0) and not stall.seen(100, 119.9)
    assert stall.seen(100, 120.0)
    assert not stall.seen(99, 121.0) and not stall.seen(99, 240.0) and stall.seen(99, 241.0)


def test_without_a_connection_it_begins_anew() -> None:
    stall = Stall(10)
    assert not stall.seen(5, 0.0) and not stall.seen(None, 9.0) and not stall.seen(None, 99.0)
    assert not stall.seen(5, 100.0) and stall.seen(5, 110.0)
