"""What is known of DRBD: the stream's state, with the counters of a fresh look."""

from __future__ import annotations

from pvedrbdstor.mirror.live.knowledge import Knowledge

SYNCING = """exists resource name:r0 role:Primary suspended:no
exists connection name:r0 peer-node-id:0 conn-name:peer connection:Connected role:Secondary
exists device name:r0 volume:0 minor:0 disk:UpToDate
exists peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 replication:SyncSource peer-disk:Inconsistent \
out-of-sync:{left}
exists -
"""


def test_the_counters_are_those_of_the_last_look_as_the_stream_of_8_4_tells_no_changes_of_them() -> None:
    known = Knowledge()
    known.stream_started(0.0)
    known.stream_said(SYNCING.format(left=1000).splitlines(keepends=True), 0.1)
    assert [peer.out_of_sync for peer in known.state.peer_devices] == [1000]
    assert known.looked(SYNCING.format(left=10), asked_at=5.0, now=5.1)
    assert [peer.out_of_sync for peer in known.state.peer_devices] == [10]
    known.stream_said(["change resource name:r0 role:Secondary\n"], 6.0)
    assert known.state.resources[0].role == "Secondary"
