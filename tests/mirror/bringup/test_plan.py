"""What the planner does next, and what it refuses: one case for each reason to stop."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import BringUpRefused
from pvedrbdstor.mirror.bringup.decision import Action, Done, Refusal
from pvedrbdstor.mirror.bringup.facts import Memory, MountPoint, Options, Situation, Step
from pvedrbdstor.mirror.bringup.plan import next_step
from pvedrbdstor.mirror.facts import Drbd, Peer
from pvedrbdstor.ocfs2.o2cb import ClusterConf, Defaults, Timeouts
from tests.mirror.bringup.situations import (
    AWAY,
    CLUSTER,
    CONFIG,
    CONNECTED,
    DEFAULTS,
    NODES,
    READY,
    REGISTERED,
    STANDALONE,
    UUID,
    facts,
    with_drbd,
    with_superblock,
)

STONITH = "resource-and-stonith"
FRESH = Memory()
WAITED = Memory({Step.WAIT_PEER: 21.0, Step.WAIT_COPIES: 16.0})


def step(now: Situation, memory: Memory = FRESH, options: Options | None = None) -> Step:
    decision = next_step(now, CONFIG, options or Options(), memory)
    assert isinstance(decision, Action), decision
    return decision.step


def refused(now: Situation, memory: Memory = FRESH, options: Options | None = None) -> str:
    """The error as it is shown."""
    decision = next_step(now, CONFIG, options or Options(), memory)
    assert isinstance(decision, Refusal), decision
    return str(BringUpRefused(storage="ha", cause=decision.cause, remedy=decision.remedy))


class TestFromNothing:
    """Each step in its order, each skipped when it is true."""

    def test_what_is_mounted_is_done_whatever_else_is_wrong(self) -> None:
        broken = replace(READY, mounted=True, conf=None, held_down=True, mirror=facts(None))
        assert next_step(broken, CONFIG, Options(), FRESH) == Done()

    def test_modules_first(self) -> None:
        assert step(replace(READY, missing_modules=("drbd",), mirror=facts(None))) is Step.MODULES

    def test_a_resource_that_is_down_is_brought_up(self) -> None:
        assert step(replace(READY, mirror=facts(None), defined=True)) is Step.UP

    def test_a_connected_secondary_is_promoted(self) -> None:
        assert step(with_drbd(role="Secondary")) is Step.PROMOTE

    def test_the_order_of_what_o2cb_needs(self) -> None:
        assert step(replace(READY, configfs=False, stack=None, dlmfs=False, registered={})) is Step.CONFIGFS
        assert step(replace(READY, stack=None, dlmfs=False, registered={})) is Step.STACK
        assert step(replace(READY, dlmfs=False, registered={})) is Step.DLMFS
        assert step(replace(READY, registered={})) is Step.REGISTER
        old = replace(REGISTERED, timeouts=Timeouts(7, 30000, 2000, 2000))
        assert step(replace(READY, registered={"pve": old})) is Step.TIMEOUTS
        assert step(READY) is Step.MOUNT

    def test_timeouts_that_nobody_set_are_left_alone(self) -> None:
        defaults = Defaults(False, None, Timeouts())
        assert step(replace(READY, defaults=defaults)) is Step.MOUNT

    def test_timeouts_are_not_touched_while_a_file_system_beats(self) -> None:
        old = replace(REGISTERED, timeouts=Timeouts(7, 30000, 2000, 2000))
        assert step(replace(READY, registered={"pve": old}, beating=True)) is Step.MOUNT


class TestThePeer:
    def test_is_waited_for(self) -> None:
        assert step(with_drbd(role="Secondary", peers=(AWAY,))) is Step.WAIT_PEER

    def test_is_waited_for_during_the_handshake_which_8_4_calls_connected(self) -> None:
        shaking = replace(CONNECTED, replication="Off", disk="DUnknown")
        assert step(with_drbd(role="Secondary", peers=(shaking,))) is Step.WAIT_PEER

    def test_that_does_not_come_and_was_not_fenced_stops_us(self) -> None:
        said = refused(with_drbd(role="Secondary", peers=(AWAY,)), WAITED)
        assert "no fencing is configured" in said
        assert "'pvedrbdstor mirror up ha --without-peer'" in said

    def test_stops_us_also_when_we_are_primary_already(self) -> None:
        assert "no fencing is configured" in refused(with_drbd(peers=(AWAY,)), WAITED)

    def test_that_does_not_come_is_left_out_on_request(self) -> None:
        alone = with_drbd(role="Secondary", peers=(AWAY,))
        assert step(alone, WAITED, Options(without_peer=True)) is Step.PROMOTE

    @pytest.mark.parametrize("disk", ["Outdated", "Inconsistent"])
    def test_whose_copy_is_on_record_as_older_is_not_waited_for(self, disk: str) -> None:
        assert step(with_drbd(role="Secondary", peers=(replace(AWAY, disk=disk),))) is Step.PROMOTE

    def test_whose_copy_is_on_record_as_older_is_given_the_time_to_show_up_after_drbd_came_up(self) -> None:
        """It may have been forced, and run guests of its own."""
        now = with_drbd(role="Secondary", peers=(replace(AWAY, disk="Outdated"),))
        assert step(now, Memory({Step.UP: 1.0})) is Step.WAIT_PEER
        assert step(now, Memory({Step.UP: 12.0, Step.WAIT_PEER: 11.0})) is Step.PROMOTE

    @pytest.mark.parametrize("disk", ["UpToDate", "Consistent"])
    def test_is_fenced_by_drbd_before_we_go_on(self, disk: str) -> None:
        assert step(with_drbd(STONITH, role="Secondary", disk=disk, peers=(AWAY,)), WAITED) is Step.PROMOTE

    def test_that_could_not_be_fenced_stops_us(self) -> None:
        memory = replace(WAITED, said={Step.PROMOTE: "State change failed: Need access to UpToDate data"})
        said = refused(with_drbd(STONITH, role="Secondary", disk="Consistent", peers=(AWAY,)), memory)
        assert "could not make sure that the other node does not write" in said
        assert "Need access to UpToDate data" in said

    @pytest.mark.parametrize("fencing", ["dont-care", STONITH])
    @pytest.mark.parametrize("disk", ["Outdated", "Inconsistent", "Diskless"])
    def test_a_copy_that_is_not_good_is_never_taken_alone(self, fencing: str, disk: str) -> None:
        now = with_drbd(fencing, role="Secondary", disk=disk, peers=(AWAY,))
        said = refused(now, WAITED, Options(without_peer=True))
        assert re.search("out of date|incomplete|Diskless", said)

    def test_a_copy_that_may_be_old_is_not_taken_without_fencing(self) -> None:
        now = with_drbd(role="Secondary", disk="Consistent", peers=(AWAY,))
        assert "may be out of date" in refused(now, WAITED, Options(without_peer=True))

    def test_a_diskless_voter_that_is_away_does_not_matter(self) -> None:
        voter = replace(AWAY, client=True)
        assert step(with_drbd(role="Secondary", peers=(CONNECTED, voter))) is Step.PROMOTE


class TestStandAlone:
    NOW = with_drbd(role="Secondary", peers=(STANDALONE,))

    def test_is_not_connected_by_itself(self) -> None:
        said = refused(self.NOW)
        assert "StandAlone" in said
        assert "Run 'pvedrbdstor mirror up ha'" in said

    def test_is_connected_once_for_an_administrator(self) -> None:
        assert step(self.NOW, options=Options(by_hand=True)) is Step.CONNECT

    @pytest.mark.parametrize("taken", [Step.CONNECT, Step.UP])
    def test_after_we_connected_is_a_split_brain_even_without_the_peer(self, taken: Step) -> None:
        said = refused(self.NOW, Memory({taken: 1.0}), Options(by_hand=True, without_peer=True))
        assert "a split brain" in said
        assert "split-brain show" in said


class TestTheData:
    def test_a_resync_from_a_good_peer_is_no_reason_to_wait(self) -> None:
        peer = replace(CONNECTED, replication="SyncTarget")
        assert step(with_drbd(role="Secondary", disk="Inconsistent", peers=(peer,))) is Step.PROMOTE

    def test_is_read_through_the_peer_without_a_disk(self) -> None:
        assert step(with_drbd(role="Secondary", disk="Diskless")) is Step.PROMOTE

    def test_is_waited_for_while_the_copies_are_compared(self) -> None:
        peer = replace(CONNECTED, replication="WFBitMapT", disk="Consistent")
        assert step(with_drbd(role="Secondary", disk="Negotiating", peers=(peer,))) is Step.WAIT_COPIES

    def test_of_two_empty_disks_is_no_data(self) -> None:
        now = with_drbd(role="Secondary", disk="Inconsistent", peers=(replace(CONNECTED, disk="Inconsistent"),))
        said = refused(now, WAITED)
        assert "copy is incomplete" in said
        assert "new-current-uuid --clear-bitmap r0/0" in said

    def test_frozen_io_stops_us_before_a_mount_would_hang(self) -> None:
        said = refused(with_drbd(suspended=frozenset({"user"})))
        assert "I/O was frozen by 'drbdadm suspend-io'. Run 'drbdadm resume-io r0'" in said


class TestPromotion:
    NOW = with_drbd(role="Secondary")

    def test_is_tried_again_while_the_other_node_does_the_same(self) -> None:
        assert step(self.NOW, Memory({Step.PROMOTE: 5.0}, {Step.PROMOTE: "State change failed"})) is Step.PROMOTE

    def test_is_given_up_in_the_end_with_drbds_words(self) -> None:
        memory = Memory({Step.PROMOTE: 21.0}, {Step.PROMOTE: "State change failed: whatever"})
        assert "State change failed: whatever" in refused(self.NOW, memory)

    def test_of_a_resource_for_one_primary_names_the_option(self) -> None:
        memory = Memory({Step.PROMOTE: 21.0}, {Step.PROMOTE: "Multiple primaries not allowed by config"})
        assert "allow-two-primaries yes" in refused(self.NOW, memory)


UNFIT = {
    "taken down": (replace(READY, held_down=True), "mirror down ha'. Run 'pvedrbdstor mirror up ha'"),
    "being discarded": (
        replace(READY, resolving=True, held_down=True),
        "this node's copy is the one to be discarded. Go on with 'pvedrbdstor split-brain resolve ha'",
    ),
    "wrong mount": (replace(READY, wrong_mount="/mnt/pve/ha holds tmpfs where OCFS2 is expected"), "holds tmpfs"),
    "file": (replace(READY, point=MountPoint(True, False)), "/mnt/pve/ha is not a folder"),
    "files": (replace(READY, point=MountPoint(True, True, ("x.raw", "..."))), r"is not empty \(x.raw, ...\)"),
    "no cluster.conf": (replace(READY, conf=None), "cluster.conf is missing"),
    "bad cluster.conf": (replace(READY, conf=ClusterConf((), ("line 3 is odd",))), "line 3 is odd"),
    "undefined": (replace(READY, mirror=facts(None), defined=False), "'r0' volume 0 is not configured on this node"),
    "no file system": (
        replace(READY, superblock=None, superblock_problem="/dev/drbd0 holds no usable OCFS2 file system: odd"),
        "holds no usable OCFS2 file system: odd",
    ),
    "no refcount": (with_superblock(features=frozenset({"xattr"})), "lacks the feature 'refcount'"),
    "local": (with_superblock(features=frozenset({"refcount", "local"})), "for one node only"),
    "pcmk": (with_superblock(stack="pcmk"), "for the cluster stack 'pcmk'"),
    "other cluster": (with_superblock(cluster="other"), "belongs to the o2cb cluster 'other'.* has 'pve'"),
    "not a member": (replace(READY, host="nodec"), "has no node 'nodec'.*nodea, nodeb"),
    "another registered": (replace(READY, registered={"old": REGISTERED}), "unregister-cluster old"),
    "registered without us": (
        replace(READY, registered={"pve": replace(REGISTERED, nodes=NODES)}),
        "does not contain this node",
    ),
    "slots": (
        replace(
            with_superblock(slots=1),
            conf=ClusterConf((CLUSTER,), ()),
            slots_taken=frozenset({1}),
        ),
        "all 1 slots .* by the o2cb nodes 1.*tunefs.ocfs2 -N 2",
    ),
}


class TestWhatIsUnfit:
    @pytest.mark.parametrize("case", UNFIT)
    def test_is_told(self, case: str) -> None:
        now, expected = UNFIT[case]
        assert re.search(expected, refused(now)), refused(now)

    def test_a_wrong_uuid_is_told_with_the_right_one(self) -> None:
        config = replace(CONFIG, uuid="F" * 32)
        decision = next_step(READY, config, Options(), FRESH)
        assert isinstance(decision, Refusal)
        assert f"'pvesm set ha --drbdocfs2-uuid {UUID}'" in decision.remedy

    def test_timeouts_that_the_kernel_did_not_take(self) -> None:
        old = replace(REGISTERED, timeouts=Timeouts(7, 30000, 2000, 2000))
        said = refused(replace(READY, registered={"pve": old}), Memory({Step.TIMEOUTS: 0.1}))
        assert "dead_threshold = 31 of /etc/default/o2cb and keeps 7" in said

    def test_a_mount_that_went_away(self) -> None:
        assert "is not there any more" in refused(READY, Memory({Step.MOUNT: 8.0}))

    def test_our_own_slot_left_by_a_crash_is_no_obstacle(self) -> None:
        assert step(replace(with_superblock(slots=1), slots_taken=frozenset({0}))) is Step.MOUNT

    def test_a_file_system_without_a_cluster_name_takes_the_only_one(self) -> None:
        now = replace(with_superblock(stack="", cluster=""), defaults=replace(DEFAULTS, boot_cluster=None))
        assert step(now) is Step.MOUNT

    def test_a_host_with_a_domain_is_known_by_its_short_name(self) -> None:
        assert step(replace(READY, host="NodeA.example.org")) is Step.MOUNT


@pytest.mark.parametrize("case", UNFIT)
def test_every_refusal_is_one_clear_sentence_and_an_instruction(case: str) -> None:
    said = refused(UNFIT[case][0])
    assert said.isprintable()
    assert "  " not in said and ".." not in said.replace("...", "")
    assert re.search(r"\. [A-Z].*\.$", said)


_DISKS = st.sampled_from(["UpToDate", "Outdated", "Consistent", "Inconsistent", "Diskless", "Negotiating", "Failed"])
_PEERS = st.builds(
    Peer,
    node_id=st.just(0),
    name=st.just("peer"),
    connection=st.sampled_from(["Connected", "Connecting", "StandAlone", "NetworkFailure", "Unconnected"]),
    role=st.sampled_from(["Primary", "Secondary", "Unknown"]),
    replication=st.sampled_from(["Established", "Off", "SyncTarget", "SyncSource", "WFBitMapT", "PausedSyncT"]),
    disk=st.sampled_from(["UpToDate", "Outdated", "Consistent", "Inconsistent", "Diskless", "DUnknown"]),
)
_STATES = st.builds(
    Drbd,
    role=st.sampled_from(["Primary", "Secondary"]),
    disk=_DISKS,
    suspended=st.sampled_from([frozenset(), frozenset({"fencing"}), frozenset({"?"})]),
    failing=st.booleans(),
    quorum=st.sampled_from([None, True, False]),
    client=st.just(False),
    peers=st.tuples(_PEERS),
)
_MEMORY = st.builds(
    Memory,
    since=st.dictionaries(st.sampled_from(Step), st.sampled_from([0.0, 5.0, 30.0])),
    said=st.just({}),
)
_OPTIONS = st.builds(Options, by_hand=st.booleans(), without_peer=st.booleans())


@given(_STATES, _MEMORY, _OPTIONS, st.sampled_from(["dont-care", "resource-only", STONITH]))
def test_nothing_is_mounted_without_good_data_or_beside_a_rival(
    drbd: Drbd, memory: Memory, options: Options, fencing: str
) -> None:
    decision = next_step(replace(READY, mirror=facts(drbd, fencing)), CONFIG, options, memory)
    peer = drbd.peers[0]
    if isinstance(decision, Action) and decision.step is Step.MOUNT:
        assert drbd.role == "Primary"
        assert drbd.data_reachable
        assert not drbd.stopped
        assert peer.connection != "StandAlone"
        if not peer.connected:
            assert drbd.disk == "UpToDate"
            assert peer.known_behind or fencing == STONITH or options.without_peer
    if isinstance(decision, Action) and decision.step is Step.PROMOTE:
        assert not drbd.stopped
        assert drbd.data_reachable or (drbd.disk == "Consistent" and fencing == STONITH)
