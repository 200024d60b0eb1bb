"""What makes quorum no judge, one by one, and that nothing of it is ever overlooked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.fencing.arbiter import Flag, Votes, fatal, misnamed, node_id_of, peer_of, pending, problems
from pvedrbdstor.fencing.corosync_conf import CorosyncConf, Device, Node, Quorum, Timing, parse
from tests.fencing.test_corosync_conf import PROXMOX

CONF = parse(PROXMOX)
DEVICE = CONF.quorum.device
assert DEVICE is not None
ALIVE = Flag.QUORATE | Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE | Flag.QDEVICE_CAST_VOTE
VOTES = Votes(1, 3, 3, 3, 2, ALIVE)
THREE = CorosyncConf(
    nodes=tuple(Node(number, f"pve{number}", ()) for number in (1, 2, 3)), quorum=Quorum("corosync_votequorum")
)
THREE_VOTES = Votes(1, 3, 3, 3, 2, Flag.QUORATE)


def with_quorum(**changes: object) -> CorosyncConf:
    return replace(CONF, quorum=replace(CONF.quorum, **changes))  # type: ignore[arg-type]


def with_device(**changes: object) -> CorosyncConf:
    assert DEVICE is not None
    return with_quorum(device=replace(DEVICE, **changes))  # type: ignore[arg-type]


def test_the_flags_are_those_of_votequorum_h() -> None:
    assert [flag.value for flag in Flag] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_two_nodes_with_a_qdevice_have_a_judge() -> None:
    assert problems(CONF, VOTES) == ()
    assert problems(with_quorum(wait_for_all=True), replace(VOTES, flags=ALIVE | Flag.WAIT_FOR_ALL)) == ()


def test_three_nodes_are_a_judge_by_themselves() -> None:
    assert problems(THREE, THREE_VOTES) == ()


NO_JUDGE: list[tuple[str, CorosyncConf | None, Votes | None, str, str]] = [
    ("no-cluster", None, VOTES, "belongs to no cluster", "pvecm status"),
    ("conf-broken", replace(CONF, problems=("line 3 is odd",)), VOTES, "line 3 is odd", "corosync -t"),
    ("no-votequorum", with_quorum(provider=None), VOTES, "not set", "provider: corosync_votequorum"),
    ("no-votequorum", with_quorum(provider="x"), VOTES, "'x'", "provider: corosync_votequorum"),
    ("two-node", with_quorum(two_node=True), VOTES, "each of two nodes", "Remove 'two_node'"),
    ("two-node", CONF, replace(VOTES, flags=ALIVE | Flag.TWONODE), "each of two nodes", "restart corosync"),
    ("auto-tie-breaker", with_quorum(auto_tie_breaker=True), VOTES, "half of the votes", "Remove 'auto_tie_breaker'"),
    ("auto-tie-breaker", CONF, replace(VOTES, flags=ALIVE | Flag.AUTO_TIE_BREAKER), "half of", "restart corosync"),
    ("last-man-standing", with_quorum(last_man_standing=True), VOTES, "sink", "Remove 'last_man_standing'"),
    ("last-man-standing", CONF, replace(VOTES, flags=ALIVE | Flag.LAST_MAN_STANDING), "sink", "restart corosync"),
    ("allow-downscale", with_quorum(allow_downscale=True), VOTES, "sink", "Remove 'allow_downscale'"),
    ("expected-written", with_quorum(expected_votes=2), VOTES, "expects 2 votes", "Remove 'expected_votes'"),
    ("expected-lowered", CONF, replace(VOTES, expected=1, quorum=1), "expects 1 votes", "pvecm expected 3"),
    ("expected-lowered", CONF, replace(VOTES, highest_expected=2), "expects 2 votes", "pvecm expected 3"),
    ("no-majority", CONF, replace(VOTES, quorum=1), "calls 1 of 3", "restart corosync"),
    ("qdevice-algorithm", with_device(algorithm="lms"), VOTES, "takes none from the other first", "qdevice setup"),
    ("qdevice-algorithm", with_device(algorithm="test"), VOTES, "'test'", "qdevice setup"),
    ("qdevice-model", with_device(model="disk"), VOTES, "'disk'", "qdevice setup"),
    ("no-corosync", CONF, None, "does not run", "systemctl start corosync"),
]


@pytest.mark.parametrize(
    ("code", "conf", "votes", "cause", "remedy"), NO_JUDGE, ids=[f"{line[0]} {line[3]}" for line in NO_JUDGE]
)
def test_what_makes_quorum_no_judge(
    code: str, conf: CorosyncConf | None, votes: Votes | None, cause: str, remedy: str
) -> None:
    (problem,) = problems(conf, votes)
    assert problem.code == code
    assert cause in problem.cause
    assert remedy in problem.remedy
    assert problem.fatal
    assert fatal([problem]) is problem


def test_two_nodes_alone_are_told_plainly_that_nothing_can_decide() -> None:
    alone = replace(CONF, quorum=Quorum("corosync_votequorum"))
    (problem,) = problems(alone, Votes(1, 2, 2, 2, 2, Flag.QUORATE))
    assert problem.fatal
    assert problem.code == "no-arbiter"
    assert "no safe automatic decision exists" in problem.cause
    assert "both nodes freeze and reset themselves, and nothing is guessed" in problem.cause
    assert "pvecm qdevice setup" in problem.remedy


def test_a_third_node_without_a_vote_is_no_arbiter() -> None:
    third = replace(CONF, nodes=(*CONF.nodes, Node(3, "pve3", (), 0)), quorum=Quorum("corosync_votequorum"))
    assert "no-arbiter" in [problem.code for problem in problems(third, Votes(1, 2, 2, 2, 2, Flag.QUORATE))]


def test_a_qdevice_without_a_vote_is_no_arbiter() -> None:
    found = [problem.code for problem in problems(with_device(votes=0), Votes(1, 2, 2, 2, 2, ALIVE))]
    assert found == ["no-arbiter", "qdevice-votes"]


@pytest.mark.parametrize(
    ("flags", "told", "remedy"),
    [
        (Flag.QUORATE, "not registered", "corosync-qdevice"),
        (Flag.QUORATE | Flag.QDEVICE_REGISTERED, "does not answer", "corosync-qdevice"),
        (
            ALIVE & ~Flag.QDEVICE_CAST_VOTE,
            "casts no vote",
            "'systemctl restart corosync-qnetd' on its host, 192.0.2.9,",
        ),
    ],
)
def test_a_silent_qdevice_is_a_warning(flags: Flag, told: str, remedy: str) -> None:
    """Quorum still judges, but nobody can win."""
    found = problems(with_device(host="192.0.2.9"), replace(VOTES, flags=flags, total=2))
    assert [problem.code for problem in found] == ["qdevice-silent"]
    assert told in found[0].cause and remedy in found[0].remedy
    assert fatal(found) is None


def test_a_node_that_has_lost_the_vote_to_the_other_one_has_no_silent_qdevice() -> None:
    lost = Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE
    assert problems(CONF, replace(VOTES, flags=lost, total=1)) == ()


def test_a_node_is_found_by_its_name_or_address() -> None:
    conf = CorosyncConf(
        nodes=(Node(1, "a.example", ("10.0.0.1",)), Node(2, None, ("b", "10.0.0.2")), Node(None, "c", ()))
    )
    assert node_id_of(conf, "a.example") == 1
    assert node_id_of(conf, "a") == 1
    assert node_id_of(conf, "a.other") == 1
    assert node_id_of(conf, "b.example") == 2
    assert node_id_of(conf, "10.0.0.2") == 2
    assert node_id_of(conf, "c") is None
    assert node_id_of(conf, "d") is None
    assert node_id_of(conf, "") is None


def test_a_name_that_two_nodes_could_have_is_nobodys() -> None:
    conf = CorosyncConf(nodes=(Node(1, "a.x", ()), Node(2, "a.y", ())))
    assert node_id_of(conf, "a") is None
    assert node_id_of(conf, "a.y") == 2


NAMED = CorosyncConf(nodes=tuple(Node(number, name, ()) for number, name in ((1, "a"), (2, "b"), (3, "c"))))
PAIR = CorosyncConf(nodes=NAMED.nodes[:2])


@pytest.mark.parametrize(
    ("conf", "me", "hosts", "peer"),
    [
        (NAMED, 1, ("b",), 2),
        (NAMED, 1, ("b.example",), 2),
        (NAMED, 1, ("B",), None),
        (NAMED, 1, ("a",), None),  # the own name
        (NAMED, 1, ("b", "c"), None),
        (NAMED, 1, (), None),
        (PAIR, 1, ("other",), 2),
        (PAIR, 1, ("a",), 2),
        (PAIR, 2, (), 1),
        (PAIR, None, ("b",), 2),
        (PAIR, None, ("other",), None),
    ],
)
def test_who_the_other_node_is(conf: CorosyncConf, me: int | None, hosts: tuple[str, ...], peer: int | None) -> None:
    assert peer_of(conf, me, hosts) == peer


def test_a_host_that_corosync_knows_is_no_problem() -> None:
    assert list(misnamed(NAMED, 1, ("b", "c.example"))) == []
    assert list(misnamed(None, 1, ("b",))) == []


@pytest.mark.parametrize("host", ["B", "a"])
def test_a_host_that_corosync_does_not_know_among_three_nodes_lets_nobody_go_on(host: str) -> None:
    (problem,) = misnamed(NAMED, 1, (host,))
    assert (problem.code, problem.fatal) == ("host-unknown", True)
    assert f"DRBD's host '{host}' is no other node of corosync's nodelist" in problem.cause
    assert "no node goes on (the others there: 'b', 'c')" in problem.cause
    assert f"'on {host}'" in problem.remedy


def test_a_host_that_corosync_does_not_know_where_there_is_one_other_node_is_a_warning() -> None:
    (problem,) = misnamed(PAIR, 1, ("drbd-b",))
    assert (problem.code, problem.fatal) == ("host-unknown", False)
    assert "the only other node there, 'b', is taken for it" in problem.cause


def test_times_that_are_in_force_are_told_where_the_file_has_others() -> None:
    written = CONF.timing
    assert pending(CONF, written) is None
    assert pending(CONF, Timing(written.token, written.consensus + 0.001)) is None  # whole milliseconds
    assert pending(CONF, None) is None
    assert pending(None, written) is None
    problem = pending(CONF, Timing(10.0, 12.0))
    assert problem is not None
    assert not problem.fatal
    assert "token 10 s and consensus 12 s in force where corosync.conf comes to token 3 s" in problem.cause
    assert "corosync-cfgtool -R" in problem.remedy


CONFS = st.builds(
    CorosyncConf,
    nodes=st.lists(st.builds(Node, st.integers(1, 9), st.just("n"), st.just(()), st.integers(0, 3)), max_size=4).map(
        tuple
    ),
    quorum=st.builds(
        Quorum,
        provider=st.sampled_from([None, "corosync_votequorum"]),
        expected_votes=st.none() | st.integers(0, 5),
        two_node=st.booleans(),
        auto_tie_breaker=st.booleans(),
        last_man_standing=st.booleans(),
        allow_downscale=st.booleans(),
        device=st.none()
        | st.builds(
            Device,
            st.sampled_from(["net", "x"]),
            st.none() | st.integers(0, 3),
            algorithm=st.sampled_from(["ffsplit", "lms"]),
        ),
    ),
)
VOTES_OF_ANY = st.builds(Votes, st.just(1), *(st.integers(0, 5) for _ in range(4)), st.integers(0, 1023).map(Flag))


@given(CONFS, VOTES_OF_ANY)
def test_without_a_fatal_problem_two_sides_cannot_both_have_a_majority(conf: CorosyncConf, votes: Votes) -> None:
    found = problems(conf, votes)
    if fatal(found) is None:
        assert votes.quorum * 2 > conf.all_votes >= 3
        assert not votes.flags & (Flag.TWONODE | Flag.AUTO_TIE_BREAKER | Flag.LAST_MAN_STANDING | Flag.ALLOW_DOWNSCALE)
    assert len({problem.code for problem in found}) == len(found)
