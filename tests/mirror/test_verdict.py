"""The rules of the verdict, one by one, and what holds for any facts at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.config import FENCED
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.drbd.history import Loss
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.fencing.status import Status
from pvedrbdstor.fencing.status import parse as parse_status
from pvedrbdstor.mirror.facts import Drbd, Facts, Mount, Peer, Progress, View
from pvedrbdstor.mirror.finding import Kind, Severity
from pvedrbdstor.mirror.verdict import Verdict, verdict_of
from pvedrbdstor.ocfs2.o2cb import KERNEL_DEFAULTS, Timeouts
from tests.fencing.test_corosync_conf import PROXMOX
from tests.fencing.test_status import TEXT
from tests.mirror.capture_facts import facts_of

HEALTHY = facts_of("9/23-fencing-healed-while-handler-blocks.a.txt")
assert HEALTHY.drbd is not None
assert HEALTHY.config is not None
DRBD = HEALTHY.drbd
PEER = DRBD.peers[0]
AWAY = replace(PEER, connection="Connecting", role="Unknown", replication="Off", disk="DUnknown")
WRITER = Loss(10.0, "Primary", False)


def with_peer(peer: Peer, **own: object) -> Facts:
    return replace(HEALTHY, drbd=replace(DRBD, peers=(peer,), **own))  # type: ignore[arg-type]


def with_own(**own: object) -> Facts:
    return replace(HEALTHY, drbd=replace(DRBD, **own))  # type: ignore[arg-type]


def test_all_is_well() -> None:
    verdict = verdict_of(HEALTHY)
    assert (verdict.kind, verdict.severity, verdict.also) == (Kind.HEALTHY, Severity.OK, ())
    assert verdict.usable_here
    assert verdict.active
    assert verdict.admits


ONE_THING_WRONG: list[tuple[str, Facts, Kind, str]] = [
    ("not read yet", replace(HEALTHY, view=View(False)), Kind.UNKNOWN, "not been read yet"),
    ("never current", replace(HEALTHY, view=View(True, None)), Kind.UNKNOWN, "not been read yet"),
    ("stale view", replace(HEALTHY, view=View(True, 31.0, True)), Kind.UNKNOWN, "31 s ago"),
    ("no role", with_own(role=None), Kind.UNKNOWN, "did not tell its own role"),
    ("I/O state not told", with_own(suspended=None), Kind.UNKNOWN, "did not tell"),
    ("peer's disk not told", with_peer(replace(PEER, disk=None)), Kind.UNKNOWN, "the state of 'nodeb'"),
    ("mounted as Secondary", with_own(role="Secondary"), Kind.UNKNOWN, "not Primary"),
    ("mount not seen", replace(HEALTHY, mount=Mount(None)), Kind.UNKNOWN, "not known whether"),
    ("not mounted", replace(HEALTHY, mount=Mount(False)), Kind.NOT_UP, "not mounted"),
    ("wrong mount", replace(HEALTHY, mount=Mount(True, wrong="It is ext4.")), Kind.NOT_UP, "It is ext4."),
    ("read-only", replace(HEALTHY, mount=Mount(True, read_only=True)), Kind.READ_ONLY, "read-only"),
    ("hung", replace(HEALTHY, mount=Mount(True, silent=12.0)), Kind.SUSPENDED, "not answered for 12 s"),
    ("down", replace(HEALTHY, drbd=None), Kind.NOT_UP, "down on this node"),
    ("no module", replace(HEALTHY, drbd=None, generation=None), Kind.NOT_UP, "module"),
    ("outdated, alone", with_peer(AWAY, disk="Outdated"), Kind.STALE, "out of date"),
    ("consistent, alone", with_peer(AWAY, disk="Consistent"), Kind.STALE, "may be out of date"),
    ("inconsistent, alone", with_peer(AWAY, disk="Inconsistent"), Kind.INCONSISTENT, "incomplete"),
    ("diskless, alone", with_peer(AWAY, disk="Diskless"), Kind.INCONSISTENT, "Diskless"),
    ("diskless, served", with_own(disk="Diskless"), Kind.DEGRADED, "through the other node"),
    ("frozen by a user", with_own(suspended=frozenset({"user"})), Kind.SUSPENDED, "suspend-io"),
    ("frozen without data", with_own(suspended=frozenset({"no-data"})), Kind.SUSPENDED, "no copy"),
    ("frozen, reason not told", with_own(suspended=frozenset({"?"})), Kind.SUSPENDED, "do not say why"),
    ("frozen, reason unheard of", with_own(suspended=frozenset({"magic"})), Kind.SUSPENDED, "(magic)"),
    ("failing", with_own(failing=True), Kind.SUSPENDED, "fails all I/O"),
    ("fenced peer", with_peer(replace(AWAY, disk="Outdated", lost=WRITER)), Kind.DEGRADED, "known as Outdated"),
    ("peer off", with_peer(replace(AWAY, lost=Loss(900.0, "Primary", False, True))), Kind.DEGRADED, "switched off"),
    ("peer cut", with_peer(replace(AWAY, lost=WRITER)), Kind.DEGRADED, "drifting apart"),
    ("peer cut for long", with_peer(replace(AWAY, lost=Loss(61.0, "Primary", False))), Kind.SPLIT_BRAIN, "for 61 s"),
    ("nobody saw it go", with_peer(AWAY), Kind.SPLIT_BRAIN, "nobody saw since when"),
    ("split brain met", with_peer(replace(AWAY, lost=Loss(5.0, "Secondary", True))), Kind.SPLIT_BRAIN, "met 'nodeb'"),
    ("StandAlone", with_peer(replace(AWAY, connection="StandAlone", lost=WRITER)), Kind.SPLIT_BRAIN, "given up"),
    ("resync paused", with_peer(replace(PEER, replication="PausedSyncS")), Kind.DEGRADED, "paused"),
    ("out of sync", with_peer(replace(PEER, out_of_sync=12)), Kind.DEGRADED, "12 KiB"),
    ("not in step", with_peer(replace(PEER, replication="Ahead")), Kind.DEGRADED, "(Ahead)"),
    ("settings unknown", replace(HEALTHY, config=None), Kind.UNPROTECTED, "not known whether"),
    ("no handler", replace(HEALTHY, fence_handler=False), Kind.UNPROTECTED, "has no fence-peer handler"),
    ("handler unknown", replace(HEALTHY, fence_handler=None), Kind.UNPROTECTED, "no fence-peer handler is known"),
    ("dead time too short", replace(HEALTHY, o2cb=Timeouts(7)), Kind.UNPROTECTED, "12 s is too short"),
    ("dead time unknown", replace(HEALTHY, o2cb=None), Kind.UNPROTECTED, "not known"),
]


@pytest.mark.parametrize(
    ("facts", "kind", "cause"), [line[1:] for line in ONE_THING_WRONG], ids=[line[0] for line in ONE_THING_WRONG]
)
def test_one_thing_wrong(facts: Facts, kind: Kind, cause: str) -> None:
    verdict = verdict_of(facts)
    assert verdict.kind is kind
    assert cause in verdict.cause
    assert verdict.remedy
    assert verdict.severity >= Severity.WARNING


def test_the_gravest_comes_first_and_the_others_are_listed() -> None:
    peer = replace(AWAY, connection="StandAlone", lost=WRITER)
    facts = replace(with_peer(peer), mount=Mount(True, read_only=True), fence_handler=False)
    verdict = verdict_of(facts)
    assert verdict.kinds == (Kind.SPLIT_BRAIN, Kind.READ_ONLY, Kind.UNPROTECTED)
    assert not verdict.usable_here


def test_a_watcher_that_lost_its_pipe_takes_no_storage_away() -> None:
    verdict = verdict_of(replace(HEALTHY, view=View(True, 30.0, True)))
    assert verdict.active
    assert not verdict.usable_here
    assert not verdict.admits


def test_what_was_bad_before_the_view_went_stale_still_counts() -> None:
    verdict = verdict_of(replace(with_peer(AWAY, disk="Outdated"), view=View(True, 30.0, True)))
    assert verdict.kinds[:2] == (Kind.UNKNOWN, Kind.STALE)
    assert not verdict.active


@pytest.mark.parametrize("stop", [{"suspended": frozenset({"fencing"})}, {"failing": True}, {"quorum": False}])
def test_a_node_whose_writes_are_stopped_makes_no_second_history(stop: dict[str, object]) -> None:
    verdict = verdict_of(with_peer(replace(AWAY, lost=Loss(600.0, "Primary", False)), **stop))
    assert verdict.kinds == (Kind.SUSPENDED, Kind.DEGRADED)


def test_io_errors_for_a_lost_quorum_are_no_protection() -> None:
    assert HEALTHY.config is not None
    config = replace(HEALTHY.config, quorum="majority", on_no_quorum="io-error")
    verdict = verdict_of(replace(HEALTHY, config=config))
    assert verdict.kind is Kind.UNPROTECTED
    assert "aborts its journal" in verdict.cause


def test_guests_of_a_split_mirror_go_on_and_no_others_come() -> None:
    verdict = verdict_of(with_peer(replace(AWAY, lost=Loss(5.0, "Primary", True))))
    assert (verdict.usable_here, verdict.active, verdict.admits) == (True, True, False)
    assert verdict.severity is Severity.CRITICAL
    assert "split-brain show" in verdict.remedy and "peer-off" not in verdict.remedy


def test_a_peer_that_hung_up_before_the_copies_were_compared_has_perhaps_found_a_split() -> None:
    refused = with_peer(replace(AWAY, lost=Loss(5.0, "Primary", False, refused=True)))
    verdict = verdict_of(refused)
    assert verdict.kind is Kind.SPLIT_BRAIN and verdict.what == "refused" and "hung up" in verdict.cause
    assert "perhaps it has found a split brain" in verdict.cause
    left_in_order = verdict_of(with_peer(replace(AWAY, lost=Loss(5.0, "Secondary", False, refused=True))))
    assert left_in_order.kind is not Kind.SPLIT_BRAIN


def test_a_stalled_resync_is_told_from_a_running_one() -> None:
    running = replace(PEER, replication="SyncSource", disk="Inconsistent", out_of_sync=60, progress=Progress(6.7, 150))
    assert "6.7 % done, about 0:02:30 to go, 60 KiB left" in verdict_of(with_peer(running)).cause
    stalled = replace(running, progress=Progress(6.7, 150, True))
    assert "has stalled, 6.7 % done, 60 KiB left" in verdict_of(with_peer(stalled)).cause


def test_a_running_verify_is_a_note_and_no_failure() -> None:
    verdict = verdict_of(with_peer(replace(PEER, replication="VerifyS", progress=Progress(5.1, 7))))
    assert verdict.kind is Kind.HEALTHY
    assert "An online verify against 'nodeb' is running, 5.1 % done, about 0:00:07 to go." in verdict.notes


def test_a_mirror_of_one_primary_needs_no_fencing() -> None:
    assert HEALTHY.config is not None
    nets = tuple(replace(net, allow_two_primaries=False, fencing="dont-care") for net in HEALTHY.config.nets)
    facts = replace(HEALTHY, config=replace(HEALTHY.config, nets=nets), fence_handler=False)
    assert verdict_of(facts).kind is Kind.HEALTHY


def test_the_dead_time_must_cover_a_slow_detection_too() -> None:
    assert HEALTHY.config is not None
    nets = tuple(replace(net, ping_interval=30.0) for net in HEALTHY.config.nets)
    verdict = verdict_of(replace(HEALTHY, config=replace(HEALTHY.config, nets=nets)))
    assert verdict.kind is Kind.UNPROTECTED
    assert "takes up to 88 s" in verdict.cause
    assert "O2CB_HEARTBEAT_THRESHOLD=45" in verdict.remedy


@pytest.mark.parametrize(
    ("option", "policy", "told"),
    [
        ("after_sb_0pri", "discard-zero-changes", "discard one side's writes unasked"),
        ("after_sb_1pri", "discard-secondary", "discard one side's writes unasked"),
        ("after_sb_2pri", "call-pri-lost-after-sb", "discard one side's writes unasked"),
        ("rr_conflict", "retry-connect", "tries again and again"),
    ],
)
def test_a_split_brain_that_drbd_settles_by_itself_is_an_error(option: str, policy: str, told: str) -> None:
    name = option.replace("_", "-")
    assert HEALTHY.config is not None
    nets = tuple(replace(net, **{option: policy}) for net in HEALTHY.config.nets)  # type: ignore[arg-type]
    verdict = verdict_of(replace(HEALTHY, config=replace(HEALTHY.config, nets=nets)))
    assert (verdict.kind, verdict.severity) == (Kind.UNPROTECTED, Severity.ERROR)
    assert told in verdict.cause
    assert f"{name} is '{policy}'" in verdict.cause
    assert f"`{name} disconnect;` in net" in verdict.remedy
    assert "drbdadm adjust r0" in verdict.remedy


DISKS = st.sampled_from(
    ["UpToDate", "Outdated", "Consistent", "Inconsistent", "Diskless", "Failed", "DUnknown", "X", None]
)
LOSSES = st.builds(
    Loss,
    st.none() | st.floats(0, 1e6),
    st.sampled_from([None, "Primary", "Secondary"]),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
PEERS = st.builds(
    Peer,
    node_id=st.integers(0, 3),
    name=st.sampled_from([None, "peer", "nodeb"]),
    connection=st.sampled_from(["Connected", "Connecting", "StandAlone", "NetworkFailure", "X", None]),
    role=st.sampled_from(["Primary", "Secondary", "Unknown", None]),
    replication=st.sampled_from(
        ["Established", "Off", "SyncSource", "SyncTarget", "PausedSyncT", "VerifyS", "X", None]
    ),
    disk=DISKS,
    client=st.booleans(),
    out_of_sync=st.none() | st.integers(0, 99),
    progress=st.builds(Progress, st.none() | st.floats(0, 100), st.none() | st.integers(0, 10**6), st.booleans()),
    lost=LOSSES,
)
DRBDS = st.builds(
    Drbd,
    role=st.sampled_from(["Primary", "Secondary", "Unknown", None]),
    disk=DISKS,
    suspended=st.none() | st.frozensets(st.sampled_from(["fencing", "quorum", "user", "no-data", "?"]), max_size=2),
    failing=st.booleans(),
    quorum=st.sampled_from([None, True, False]),
    client=st.booleans(),
    peers=st.lists(PEERS, max_size=2).map(tuple),
)
SETTINGS = st.sampled_from(
    [
        None,
        HEALTHY.config,
        facts_of("8.4/04-mounted-both.a.txt").config,
        facts_of("8.4/F2-splitbrain-standalone.a.txt").config,
        facts_of("9/20-quorum-lost-io-error.a.txt").config,
    ]
)
FACTS = st.builds(
    Facts,
    storage=st.just("ha"),
    resource=st.just("r0"),
    volume=st.just(0),
    generation=st.sampled_from([None, *Generation]),
    view=st.builds(View, st.booleans(), st.none() | st.floats(0, 1e6), st.booleans()),
    drbd=st.none() | st.just(DRBD) | DRBDS,
    config=SETTINGS,
    fence_handler=st.sampled_from([None, True, False]),
    mount=st.just(Mount(True))
    | st.builds(
        Mount,
        st.sampled_from([None, True, False]),
        st.sampled_from([None, "It is another."]),
        st.booleans(),
        st.none() | st.floats(0, 1e6),
    ),
    o2cb=st.sampled_from([None, KERNEL_DEFAULTS, Timeouts(7)]),
    own_handler=st.booleans(),
    corosync=st.sampled_from([None, corosync_conf.parse(PROXMOX), corosync_conf.parse("}")]),
    guard=st.sampled_from([None, Status(0.0, 7, None, None), parse_status(TEXT, 100.0)]),
)


def sound(facts: Facts, verdict: Verdict) -> None:
    """What no verdict may contradict."""
    drbd, mount = facts.drbd, facts.mount
    if verdict.usable_here:
        assert facts.view.good
        assert drbd is not None
        assert drbd.data_reachable
        assert drbd.role == "Primary"
        assert not drbd.suspended
        assert not drbd.failing
        assert drbd.quorum is not False
        assert mount.good
        assert verdict.active
    if verdict.active:
        assert mount.good
        assert verdict.usable_here or verdict.kind is Kind.UNKNOWN
    if verdict.admits:
        assert verdict.usable_here
    if verdict.kind is Kind.HEALTHY:
        assert drbd is not None
        assert verdict.usable_here
        assert drbd.disk == "UpToDate" or drbd.client
        assert all(peer.connected and (peer.client or peer.disk == "UpToDate") for peer in drbd.peers)
        assert facts.config is not None
        assert facts.fence_handler is True or facts.config.allow_two_primaries is False
        assert facts.config.fencing(0) == FENCED or facts.config.allow_two_primaries is False
        assert facts.guard is not None or not facts.own_handler or facts.config.allow_two_primaries is False
    else:
        assert verdict.severity > Severity.OK


@given(FACTS)
def test_any_facts_give_one_sound_verdict(facts: Facts) -> None:
    verdict = verdict_of(facts)
    sound(facts, verdict)
    assert verdict.cause.endswith(".")
    assert verdict.remedy.endswith(".")
    assert list(verdict.kinds) == sorted(set(verdict.kinds), key=lambda kind: kind.gravity)
    assert not (verdict.kind is Kind.UNKNOWN and verdict.severity < Severity.ERROR)


@given(FACTS)
def test_a_view_that_is_not_good_never_makes_anything_better(facts: Facts) -> None:
    now = verdict_of(facts)
    stale = verdict_of(replace(facts, view=View(True, 60.0, True)))
    assert stale.kind is Kind.UNKNOWN
    assert not stale.usable_here
    if facts.view.good and facts.drbd is not None and facts.drbd.role == "Primary":
        assert stale.active <= now.active


@given(DRBDS, LOSSES)
def test_two_writers_without_contact_never_admit_new_guests(drbd: Drbd, lost: Loss) -> None:
    peer = replace(AWAY, lost=replace(lost, peer_role="Primary", peer_off=False))
    verdict = verdict_of(replace(HEALTHY, drbd=replace(drbd, role="Primary", peers=(peer,))))
    assert not verdict.admits


def test_the_fenced_mirror_of_these_tests_is_fenced() -> None:
    assert HEALTHY.config is not None
    assert HEALTHY.config.fencing(0) == FENCED
