"""Whether a storage with our own fencing is protected: the guard, the arbiter, the times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.configured import inputs_of, is_ours
from pvedrbdstor.fencing.corosync_conf import CorosyncConf, Node, Quorum, Timing, parse
from pvedrbdstor.fencing.status import Ring, Status
from pvedrbdstor.mirror.facts import Facts, Mount
from pvedrbdstor.mirror.finding import Kind, Severity
from pvedrbdstor.mirror.verdict import verdict_of
from pvedrbdstor.ocfs2.o2cb import Timeouts
from tests.fencing.test_corosync_conf import PROXMOX
from tests.mirror.capture_facts import facts_of

CONF = parse(PROXMOX)
VOTES = Votes(1, 3, 3, 3, 2, Flag.QUORATE | Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE | Flag.QDEVICE_CAST_VOTE)
GUARD = Status(0.5, 7, Ring(True, 12, frozenset({1, 2})), VOTES)
OTHERS = facts_of("9/23-fencing-healed-while-handler-blocks.a.txt")


def with_net(facts: Facts, **options: object) -> Facts:
    assert facts.config is not None
    nets = tuple(replace(net, **options) for net in facts.config.nets)  # type: ignore[arg-type]
    return replace(facts, config=replace(facts.config, nets=nets))


OWN = with_net(replace(OTHERS, own_handler=True, corosync=CONF, guard=GUARD), ping_interval=3.0, connect_interval=3.0)


def test_a_guard_an_arbiter_and_times_that_fit_are_protection() -> None:
    assert verdict_of(OWN).kind is Kind.HEALTHY


def test_without_its_guard_it_is_unprotected() -> None:
    """And only that: nobody has asked corosync."""
    verdict = verdict_of(replace(OWN, guard=None))
    assert verdict.kind is Kind.UNPROTECTED
    assert verdict.also == ()
    assert "guard is not running" in verdict.cause
    assert "systemctl start pvedrbdstor-fence" in verdict.remedy


UNPROTECTED = [
    ("no cluster", replace(OWN, corosync=None), "no /etc/corosync/corosync.conf"),
    (
        "two nodes alone",
        replace(OWN, corosync=replace(CONF, quorum=Quorum("corosync_votequorum"))),
        "no safe automatic",
    ),
    ("corosync silent", replace(OWN, guard=replace(GUARD, votes=None)), "corosync does not run"),
    ("expected 1", replace(OWN, guard=replace(GUARD, votes=replace(VOTES, expected=1))), "expects 1 votes"),
    (
        "host unknown to three nodes",
        replace(
            OWN,
            corosync=replace(CONF, nodes=(*CONF.nodes, Node(3, "pve3", ())), quorum=Quorum("corosync_votequorum")),
            other_hosts=("pve-2",),
        ),
        "DRBD's host 'pve-2' is no other node of corosync's nodelist",
    ),
    (
        "a token in force that is too short",
        replace(OWN, guard=replace(GUARD, timing=Timing(1.0, 1.2))),
        "(pause): the longest pause that is not counted as one (4.0 s) must be less than",
    ),
    ("ping-int 5", with_net(OWN, ping_interval=5.0), "(detection)"),
    ("dead time", replace(OWN, o2cb=Timeouts(7, 30000)), "(ordinary-win)"),
    (
        "ping-int unknown",
        with_net(OWN, ping_interval=None),
        "DRBD's ping-int, ping-timeout and connect-int could not be read",
    ),
    ("o2net unknown", replace(OWN, o2cb=Timeouts(31)), "o2net's idle time could not be read"),
    ("o2cb unknown", replace(OWN, o2cb=None), "OCFS2's dead time and o2net's idle time could not be read"),
]


@pytest.mark.parametrize(("facts", "cause"), [line[1:] for line in UNPROTECTED], ids=[line[0] for line in UNPROTECTED])
def test_what_leaves_it_unprotected(facts: Facts, cause: str) -> None:
    verdict = verdict_of(facts)
    assert verdict.kind is Kind.UNPROTECTED
    assert verdict.severity is Severity.ERROR
    assert cause in verdict.cause
    assert verdict.usable_here


def test_each_race_that_does_not_fit_is_named_with_its_remedy() -> None:
    verdict = verdict_of(with_net(OWN, ping_interval=10.0))
    assert verdict.what == "fencing timeline detection"
    assert "the other node's latest freeze (21.0 s) must be less than" in verdict.cause
    assert "'ping-int 3;'" in verdict.remedy
    assert [found.what for found in verdict.also] == [f"fencing timeline {code}" for code in ("lookback", "tie-break")]


def test_a_silent_qdevice_is_a_warning_and_no_split() -> None:
    verdict = verdict_of(replace(OWN, guard=replace(GUARD, votes=replace(VOTES, flags=Flag.QUORATE))))
    assert (verdict.kind, verdict.severity) == (Kind.DEGRADED, Severity.WARNING)
    assert "no vote to win" in verdict.cause
    assert verdict.admits


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (replace(OWN, other_hosts=("pve-2",)), "host-unknown"),
        (replace(OWN, guard=replace(GUARD, timing=Timing(3.1, 3.6))), "times-not-in-force"),
    ],
)
def test_what_may_go_wrong_at_the_next_change_is_a_warning(facts: Facts, what: str) -> None:
    verdict = verdict_of(facts)
    assert (verdict.kind, verdict.severity) == (Kind.DEGRADED, Severity.WARNING)
    assert verdict.what == f"fencing {what}"
    assert verdict.admits


def test_the_times_in_force_count_and_not_those_of_the_file() -> None:
    in_force = replace(OWN, corosync=parse(PROXMOX.replace("version: 2", "token: 1000")), guard=GUARD)
    assert verdict_of(in_force).kind is Kind.UNPROTECTED
    in_force = replace(in_force, guard=replace(GUARD, timing=Timing(3.0, 3.6)))
    assert verdict_of(in_force).what == "fencing times-not-in-force"


def test_a_host_by_its_name_in_corosync_is_well() -> None:
    known = replace(OWN, other_hosts=("pve2",), guard=replace(GUARD, timing=CONF.timing))
    assert verdict_of(known).kind is Kind.HEALTHY


def test_a_handler_of_others_is_not_judged_by_our_guard() -> None:
    assert verdict_of(replace(OTHERS, corosync=None, guard=None)).kind is Kind.HEALTHY
    assert verdict_of(replace(OTHERS, corosync=CorosyncConf())).kind is Kind.HEALTHY


def test_nothing_is_judged_where_one_node_alone_may_write() -> None:
    assert verdict_of(with_net(replace(OWN, guard=None), allow_two_primaries=False)).kind is Kind.HEALTHY


def test_a_storage_that_is_not_up_is_not_told_that_its_dead_time_is_unknown() -> None:
    verdict = verdict_of(replace(OWN, o2cb=None, mount=Mount(False)))
    assert verdict.kinds == (Kind.NOT_UP,)


def test_8_4_in_standalone_forgets_its_times() -> None:
    forgotten = facts_of("8.4/F2-splitbrain-standalone.a.txt").config
    inputs = inputs_of(forgotten, CONF, None)
    assert (inputs.ping_int, inputs.ping_timeout, inputs.token, inputs.dead) == (None, None, 3.0, None)


@pytest.mark.parametrize(
    ("handler", "ours"),
    [
        ("/usr/lib/pvedrbdstor/fence-peer", True),
        ("/usr/lib/pvedrbdstor/fence-peer --verbose", True),
        ("/usr/lib/drbd/crm-fence-peer.sh", False),
        ("sh -c /usr/lib/pvedrbdstor/fence-peer", False),
        ("", False),
        (None, False),
    ],
)
def test_whose_handler_it_is(handler: str | None, ours: bool) -> None:
    assert is_ours(handler) is ours
