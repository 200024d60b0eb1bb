"""Whether corosync's quorum can judge which node may go on, and what to change where it cannot. Nothing in this file does I/O.

Sources: votequorum.h, votequorum(5), corosync-qdevice(8), and qnetd's algorithms (qnetd-algo-{ffsplit,lms}.c).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.fencing.corosync_conf import PROVIDER, CorosyncConf, Device, Timing

_CONF = "/etc/pve/corosync.conf"
_APPLY = "raise its config_version, and restart corosync on one node after the other ('systemctl restart corosync')"
_ALONE = (
    "Two nodes have neither a QDevice nor a third node, so that no safe automatic decision exists: after a cut link both "
    "nodes freeze and reset themselves, and nothing is guessed"
)


class Flag(enum.IntFlag):
    """VOTEQUORUM_INFO_* of votequorum.h."""

    TWONODE = 1
    QUORATE = 2
    WAIT_FOR_ALL = 4
    LAST_MAN_STANDING = 8
    AUTO_TIE_BREAKER = 16
    ALLOW_DOWNSCALE = 32
    QDEVICE_REGISTERED = 64
    QDEVICE_ALIVE = 128
    QDEVICE_CAST_VOTE = 256
    QDEVICE_MASTER_WINS = 512


@dataclass(frozen=True, slots=True)
class Votes:
    """What votequorum_getinfo(3) tells of this node. expected: votes that this node expects; highest_expected: the most that
    any member does; total: votes present; quorum: votes needed."""

    node_id: int
    expected: int
    highest_expected: int
    total: int
    quorum: int
    flags: Flag


@dataclass(frozen=True, slots=True)
class Problem:
    """code: a short name that stays the same. cause, remedy: one sentence each, without the full stop.

    fatal: the guard never lets DRBD go on; else quorum is a judge, but may be of no help at the next failure.
    """

    code: str
    cause: str
    remedy: str
    fatal: bool = True


def problems(conf: CorosyncConf | None, votes: Votes | None) -> tuple[Problem, ...]:
    """What keeps quorum from being the judge. conf: None where there is no corosync.conf; votes: None where corosync does
    not answer."""
    if conf is None:
        cause = "This node has no /etc/corosync/corosync.conf: it belongs to no cluster, and nobody decides which node may go on"
        return (Problem("no-cluster", cause, "Make both nodes members of one Proxmox cluster ('pvecm status' tells)"),)
    return (*_broken(conf), *_of_conf(conf), *_of_device(conf), *_of_runtime(conf, votes))


def fatal(found: Iterable[Problem]) -> Problem | None:
    """The first with which the guard never lets DRBD go on."""
    return next((problem for problem in found if problem.fatal), None)


def node_id_of(conf: CorosyncConf, hostname: str) -> int | None:
    """The node id of a host: by its name in the nodelist, whole or up to the first dot, else by an address that is its name.

    None also where the match is not one node alone.
    """
    short = hostname.partition(".")[0]
    tests = (
        [node for node in conf.nodes if node.name == hostname],
        [node for node in conf.nodes if node.name is not None and node.name.partition(".")[0] == short],
        [node for node in conf.nodes if hostname in node.addresses],
        [node for node in conf.nodes if short in node.addresses],
    )
    found = next((nodes for nodes in tests if nodes), [])
    return found[0].node_id if hostname and len(found) == 1 else None


def peer_of(conf: CorosyncConf, me: int | None, hosts: Sequence[str]) -> int | None:
    """The other node's id, None where it cannot be told: by the one host name that DRBD gives it, else as there is only one other."""
    others = [node.node_id for node in conf.nodes if node.node_id != me]
    named = node_id_of(conf, hosts[0]) if len(hosts) == 1 else None
    if named is not None and named in others:
        return named
    return others[0] if len(others) == 1 else None


def misnamed(conf: CorosyncConf | None, me: int | None, hosts: Iterable[str]) -> Iterator[Problem]:
    """Hosts of DRBD, beside this one, that corosync does not know by that name: only of its nodes does it say that they are gone."""
    if conf is None or not conf.nodes:
        return
    for host in hosts:
        if (found := node_id_of(conf, host)) is not None and found != me:
            continue
        names = ", ".join(f"'{node.name or node.node_id}'" for node in conf.nodes if node.node_id != me)
        known = peer_of(conf, me, (host,)) is not None
        if known:
            why = f"the only other node there, {names}, is taken for it"
        else:
            why = f"nobody knows whether it has left the cluster, and after a cut link no node goes on (the others there: {names})"
        cause = f"DRBD's host '{host}' is no other node of corosync's nodelist: {why}"
        remedy = f"Make 'on {host}' in the DRBD resource and the node's 'name' in {_CONF} one name; the former has to be what 'uname -n' says"
        yield Problem("host-unknown", cause, remedy, fatal=not known)


def pending(conf: CorosyncConf | None, in_force: Timing | None) -> Problem | None:
    """That corosync waits other times than its file has: the next restart or reload puts those into force."""
    if conf is None or conf.problems or in_force is None or in_force.like(conf.timing):
        return None
    cause = f"corosync has {in_force} in force where corosync.conf comes to {conf.timing}"
    remedy = "Run 'corosync-cfgtool -R' on one node: all nodes then read their corosync.conf anew"
    return Problem("times-not-in-force", cause, remedy, fatal=False)


def _broken(conf: CorosyncConf) -> Iterator[Problem]:
    if conf.problems:
        cause = f"corosync.conf is not understood: {conf.problems[0]}"
        yield Problem("conf-broken", cause, f"Repair {_CONF} ('corosync -t' checks the local copy)")


def _of_conf(conf: CorosyncConf) -> Iterator[Problem]:
    quorum = conf.quorum
    if quorum.provider != PROVIDER:
        found = f"'{quorum.provider}'" if quorum.provider is not None else "not set"
        cause = f"corosync's quorum provider is {found}: every node counts itself as quorate"
        yield Problem("no-votequorum", cause, f"Set 'provider: {PROVIDER}' in quorum {{ }} of {_CONF}, {_APPLY}")
    voters = [node for node in conf.nodes if node.votes > 0]
    if len(voters) < 3 and conf.device_votes < 1:
        remedy = "Add a third vote on another machine: 'pvecm qdevice setup ADDRESS', or a third node"
        yield Problem("no-arbiter", _ALONE, remedy)
    if quorum.expected_votes is not None and quorum.expected_votes < conf.all_votes:
        cause = f"corosync.conf expects {quorum.expected_votes} votes where nodes and QDevice have {conf.all_votes}"
        remedy = f"Remove 'expected_votes' from quorum {{ }} of {_CONF}, {_APPLY}"
        yield Problem("expected-written", f"{cause}: two sides can be quorate at once", remedy)


_SWITCHES = (
    ("two_node", Flag.TWONODE, "each of two nodes is quorate alone"),
    ("auto_tie_breaker", Flag.AUTO_TIE_BREAKER, "half of the votes are taken for a majority, and the QDevice is off"),
    (
        "last_man_standing",
        Flag.LAST_MAN_STANDING,
        "the votes that make a majority sink as nodes leave, and the QDevice is off",
    ),
    ("allow_downscale", Flag.ALLOW_DOWNSCALE, "the votes that make a majority sink as nodes leave"),
)


def _of_runtime(conf: CorosyncConf, votes: Votes | None) -> Iterator[Problem]:
    for name, flag, why in _SWITCHES:
        written, in_force = bool(getattr(conf.quorum, name)), votes is not None and flag in votes.flags
        if written:
            remedy = f"Remove '{name}' from quorum {{ }} of {_CONF}, {_APPLY}"
        else:
            remedy = f"'{name}' is no longer in corosync.conf: restart corosync on one node after the other"
        if written or in_force:
            yield Problem(name.replace("_", "-"), f"corosync has {name} set: {why}", remedy)
    if votes is None:
        remedy = "Run 'systemctl start corosync', and look at 'pvecm status'"
        yield Problem("no-corosync", "corosync does not run, or does not answer, on this node", remedy)
        return
    needed, expected = conf.all_votes, min(votes.expected, votes.highest_expected)
    if expected < needed:
        cause = f"corosync expects {expected} votes where nodes and QDevice have {needed}, as after 'pvecm expected'"
        yield Problem(
            "expected-lowered", f"{cause}: two sides can be quorate at once", f"Run 'pvecm expected {needed}'"
        )
    elif votes.quorum * 2 <= needed and Flag.TWONODE not in votes.flags:
        cause = f"corosync calls {votes.quorum} of {needed} votes a majority: two sides can be quorate at once"
        yield Problem("no-majority", cause, "Look at 'corosync-quorumtool -s', and restart corosync on all nodes")
    yield from _silent(conf, votes)


def _silent(conf: CorosyncConf, votes: Votes) -> Iterator[Problem]:
    """A QDevice that is of no use now. To votequorum corosync-qdevice itself is the QDevice: that qnetd has gone only shows in that no
    vote is cast, as it also does on a node that is not quorate, which has lost rightly."""
    device, flags = conf.quorum.device, votes.flags
    if device is None or conf.device_votes < 1:
        return
    of_program = "Run 'systemctl restart corosync-qdevice' on this node; where that fails, 'journalctl -u corosync-qdevice' tells why"
    if Flag.QDEVICE_REGISTERED not in flags:
        state, remedy = "is not registered", of_program
    elif Flag.QDEVICE_ALIVE not in flags:
        state, remedy = "does not answer", of_program
    elif Flag.QDEVICE_CAST_VOTE not in flags and Flag.QUORATE in flags:
        state = "casts no vote for this node, as when its host does not answer"
        remedy = (
            f"Run 'systemctl restart corosync-qnetd' on its host, {device.host or 'which corosync.conf does not name'}, which this node "
            "has to reach there on TCP port 5403"
        )
    else:
        return
    cause = f"The QDevice is configured and {state}: there is no vote to win, and after a cut link both nodes reset themselves"
    yield Problem("qdevice-silent", cause, remedy, fatal=False)


def _of_device(conf: CorosyncConf) -> Iterator[Problem]:
    device = conf.quorum.device
    if device is None:
        return
    setup = "Run 'pvecm qdevice remove', then 'pvecm qdevice setup ADDRESS'"
    if device.model != "net":
        yield Problem("qdevice-model", f"The QDevice's model is '{device.model}', of which nothing is known", setup)
    elif device.algorithm != "ffsplit":
        yield _algorithm(conf, device, setup)
    elif conf.device_votes != 1 or any(node.votes != 1 for node in conf.nodes):
        cause = "The QDevice's algorithm ffsplit needs one vote for it and one for every node"
        yield Problem("qdevice-votes", cause, f"Set 'votes: 1' and every 'quorum_votes: 1' in {_CONF}, {_APPLY}")


def _algorithm(conf: CorosyncConf, device: Device, setup: str) -> Problem:
    """lms answers each qdevice from its own view (do_lms_algorithm()); only ffsplit sends its NACKs first and waits."""
    if len(conf.nodes) > 2:
        # pvecm chooses by the number of nodes: more than two of an odd number get lms, and as many votes as all but one.
        setup = "Run 'pvecm qdevice remove': three nodes or more are a majority by themselves; an even number may set it up anew"
    cause = (
        f"The QDevice's algorithm is '{device.algorithm}': it gives a node that it sees its vote by what it hears from that node, "
        "and takes none from the other first as ffsplit does, so that a single node goes on by its own counting"
    )
    return Problem("qdevice-algorithm", cause, setup)
