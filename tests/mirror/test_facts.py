"""How the facts about DRBD come out of its parsed outputs."""

from __future__ import annotations

from pvedrbdstor.drbd import proc_drbd
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.drbd.history import Loss
from pvedrbdstor.mirror.facts import Progress, drbd_facts

OWN = "exists resource name:r0 role:Primary suspended:no\nexists device name:r0 volume:0 minor:3 disk:UpToDate\n"
PEER = (
    "exists connection name:r0 peer-node-id:1 conn-name:b connection:{connection} role:Primary\n"
    "exists peer-device name:r0 peer-node-id:1 conn-name:b volume:0 replication:{replication} peer-disk:UpToDate done:9.5 eta:7\n"
)
PROC = (
    " 3: cs:SyncSource ro:Primary/Primary ds:UpToDate/Inconsistent C {flags}\n"
    "\t[>....................] sync'ed:  6.7% (10/20)K\n\tfinish: 0:01:02 speed: 3 (3) K/sec\n"
)


def state(connection: str = "Connected", replication: str = "SyncSource") -> str:
    return OWN + PEER.format(connection=connection, replication=replication)


def test_a_volume_this_node_does_not_have_is_none() -> None:
    assert drbd_facts(parse_now(OWN), "r1", 0) is None
    assert drbd_facts(parse_now(OWN), "r0", 1) is None
    assert drbd_facts(parse_now(""), "r0", 0) is None


def test_8_4_without_a_connection_is_standalone() -> None:
    facts = drbd_facts(parse_now(OWN), "r0", 0, loss={0: Loss(5.0, "Primary", True)}.get)
    assert facts is not None
    (peer,) = facts.peers
    assert (peer.connection, peer.connected, peer.lost.split_brain) == ("StandAlone", False, True)


def test_a_handshake_is_no_connection_yet() -> None:
    for replication, connected in (("Off", False), ("Established", True)):
        facts = drbd_facts(parse_now(state(replication=replication)), "r0", 0)
        assert facts is not None
        assert [peer.connected for peer in facts.peers] == [connected]


def test_progress_is_that_of_proc_drbd_where_it_has_one() -> None:
    proc = proc_drbd.parse(PROC.format(flags="r-----"))
    with_proc, without = drbd_facts(parse_now(state()), "r0", 0, proc=proc), drbd_facts(parse_now(state()), "r0", 0)
    assert with_proc is not None
    assert without is not None
    assert with_proc.peers[0].progress == Progress(6.7, 62)
    assert without.peers[0].progress == Progress(9.5, 7)


def test_a_freeze_that_only_proc_drbd_tells_is_not_lost() -> None:
    facts = drbd_facts(parse_now(state()), "r0", 0, proc=proc_drbd.parse(PROC.format(flags="s-----")))
    assert facts is not None
    assert facts.suspended == {"?"}


def test_volumes_of_one_resource_are_told_apart() -> None:
    text = state() + "exists device name:r0 volume:1 minor:4 disk:Outdated\n"
    text += "exists peer-device name:r0 peer-node-id:1 volume:1 replication:Off peer-disk:Diskless\n"
    facts = drbd_facts(parse_now(text), "r0", 1)
    assert facts is not None
    assert (facts.disk, facts.peers[0].disk) == ("Outdated", "Diskless")
