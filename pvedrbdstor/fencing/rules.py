"""The six rules: whether this node may go on alone, from all that was seen of the outage. Nothing in this file does I/O.

Why at most one of two nodes is ever told to go on, in one outage (docs/fencing.md has the whole argument): A goes on in a ring
without B only after qnetd gave A its vote, and qnetd gives it only after B's qdevice has answered a NACK or was disconnected
(qnetd-algo-ffsplit.c: NACKs before ACKs; qdevice-net-algo-ffsplit.c: disconnected means NACK). By either B has lost its vote: alone
it reports `not quorate`, still with A it sees that its QDevice casts none. If qnetd heard neither of B's, as B was in the old ring still,
B forms its own before A has been stable for STABLE_SECONDS, and qnetd then takes the vote from one of them. Whatever of this B's
corosync or guard may have slept through is a gap. All of it is remembered for the whole outage, and for LOOKBACK_SECONDS
before B's own freeze, since A may have frozen sooner.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from pvedrbdstor.fencing import constants as seconds

RING_STEP = 4
"""A ring's number is the highest of its members' plus this (totemsrp.c, memb_state_commit_token_create())."""

_CONNECTION_LOST = frozenset(
    [
        "StandAlone",
        "Disconnecting",
        "Unconnected",
        "Timeout",
        "BrokenPipe",
        "NetworkFailure",
        "ProtocolError",
        "TearDown",
        "WFConnection",
        "WFReportParams",
        "Connecting",
    ]
)


@dataclass(frozen=True, slots=True)
class Mirror:
    """One resource as this node's DRBD has it, in its own words. suspended: its I/O is frozen."""

    role: str
    connection: str
    disk: str
    peer_disk: str
    suspended: bool

    @property
    def connected(self) -> bool:
        return self.connection not in _CONNECTION_LOST

    @property
    def whole(self) -> bool:
        """What ends an outage: both copies are one again."""
        return self.connected and self.disk == "UpToDate" and self.peer_disk == "UpToDate"

    @property
    def frozen(self) -> bool:
        """What a fence-peer handler is for: a Primary without its peer, whose I/O waits."""
        return self.role == "Primary" and not self.connected and self.suspended


@dataclass(frozen=True, slots=True)
class Ring:
    """One notification of libquorum, at seconds of CLOCK_BOOTTIME; members: node ids."""

    at: float
    quorate: bool
    seq: int
    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which this node, its corosync or its guard may have missed something. at: its end."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Quorum:
    """All that was seen of corosync, oldest first; what is older than any outage and its lookback may be missing.

    confirmed_at: when the last question that corosync answered was asked. confirmed: its answer, whether it is quorate.
    unfit: why quorum is no judge here at all (arbiter.py), None when it is one. leave: seconds until a node that is gone has
    left the membership, token + consensus.
    """

    rings: tuple[Ring, ...] = ()
    gaps: tuple[Gap, ...] = ()
    confirmed_at: float | None = None
    confirmed: bool = False
    unfit: str | None = None
    leave: float = seconds.LEAVE_SECONDS

    @property
    def current(self) -> Ring | None:
        return self.rings[-1] if self.rings else None

    def fresh(self, now: float) -> bool:
        """Corosync has just answered, so that its last word about the membership still stands."""
        current = self.current
        if current is None or self.confirmed_at is None:
            return False
        return now - self.confirmed_at <= seconds.FRESH_SECONDS and self.confirmed_at >= current.at

    def quorate(self, now: float) -> bool:
        """Its last word is yes, and it has just confirmed that."""
        current = self.current
        return current is not None and current.quorate and self.confirmed and self.fresh(now)


@dataclass(frozen=True, slots=True)
class Outage:
    """From the freeze until both copies are one again. began: when the freeze was first seen. won: this node goes on.

    gave_way: it has decided to reset itself. standalone_since: the peer has refused the connection ever since.
    """

    began: float
    won: bool = False
    gave_way: bool = False
    standalone_since: float | None = None


class Answer(enum.Enum):
    """What is to be done. WIN: remember that it is won, then go on. GIVE_WAY: remember it, then reset the node."""

    WAIT = "wait"
    GO_ON = "go on"
    WIN = "win"
    REFUSE = "refuse"
    GIVE_WAY = "give way"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and its reason, one clause for the log."""

    answer: Answer
    why: str


def decide(now: float, me: int, peer: int | None, mirror: Mirror | None, outage: Outage, quorum: Quorum) -> Decision:
    """What to answer the fence-peer handler of one resource. me, peer: node ids of corosync; None: it knows no such node."""
    if mirror is None:
        return Decision(Answer.REFUSE, "the resource is not up")
    if mirror.role != "Primary":
        return Decision(Answer.REFUSE, "called for a promotion: quorum does not tell whose data are newer")
    if mirror.connected:
        return Decision(Answer.REFUSE, "the connection is back")
    if quorum.unfit is not None or peer is None:
        return Decision(Answer.WAIT, quorum.unfit or "corosync does not know the other node")
    if outage.won:
        if quorum.quorate(now):
            return Decision(Answer.GO_ON, "it has won this outage already")
        return Decision(Answer.WAIT, "it has won this outage, and is not known to be quorate now")
    cannot = unable(me, peer, mirror, outage, quorum)
    together = _together_since(peer, quorum)
    if cannot is not None:
        return _without_a_chance(now, cannot, together, outage, quorum)
    if together is not None:
        late = now - max(together, outage.began) >= seconds.TIE_BREAK_SECONDS
        if me > peer and late and quorum.fresh(now):
            return Decision(Answer.GIVE_WAY, "both nodes are in one membership, and the lower id goes on")
        return Decision(Answer.WAIT, "the other node is in the membership")
    return _alone(now, outage, quorum)


def unable(me: int, peer: int, mirror: Mirror, outage: Outage, quorum: Quorum) -> str | None:
    """Why this node will not win this outage whatever comes, None while it may."""
    if outage.gave_way:
        return "it has given way"
    if mirror.disk != "UpToDate":
        return f"its disk is {mirror.disk}"
    since = outage.began - seconds.LOOKBACK_SECONDS
    for gap in quorum.gaps:
        if gap.at > since:
            return gap.why
    return _vote_lost(since, quorum) or _left_out(since, me, peer, quorum)


def _vote_lost(since: float, quorum: Quorum) -> str | None:
    """Whether corosync was not quorate at any time from then on."""
    if not quorum.rings or quorum.rings[0].at > since:
        return "corosync was not followed before the freeze"
    for ring, following in zip(quorum.rings, (*quorum.rings[1:], None), strict=True):
        until = following.at if following is not None else float("inf")
        if not ring.quorate and until > since:
            return "corosync was not quorate"
    return None


def _left_out(since: float, me: int, peer: int, quorum: Quorum) -> str | None:
    """Whether the peer may have been in a ring without this node that nobody here heard of: between two rings with it a number
    was skipped, or a third node came over from wherever the peer was."""
    for before, ring in zip(quorum.rings, quorum.rings[1:], strict=False):
        if ring.at <= since or ring.seq == before.seq:
            continue
        if peer in before.members & ring.members and ring.seq - before.seq != RING_STEP:
            return f"ring {before.seq} was followed by {ring.seq}: the other node had one without this one"
        if peer not in ring.members and ring.members - before.members - {me}:
            return "a third node joined, which may have been with the other one"
    return None


def _together_since(peer: int, quorum: Quorum) -> float | None:
    """Since when the peer has been in the membership; None when it is not."""
    since = None
    for ring in reversed(quorum.rings):
        if peer not in ring.members:
            break
        since = ring.at
    return since


def _without_a_chance(now: float, cannot: str, together: float | None, outage: Outage, quorum: Quorum) -> Decision:
    """It waits for a connection; when the other node is certainly here and gives none, it may go on, once this one has left."""
    if together is None:
        return Decision(Answer.WAIT, f"{cannot}, and the other node is not here")
    refused = outage.standalone_since
    if refused is not None and now - max(together, outage.began, refused) >= seconds.STANDALONE_SECONDS:
        return Decision(Answer.GIVE_WAY, f"{cannot}, and the other node has refused the connection")
    if together > outage.began:
        due = together + seconds.GIVE_WAY_SECONDS
    else:
        due = outage.began + quorum.leave + seconds.STILL_HERE_SECONDS
    if now >= due and quorum.fresh(now):
        return Decision(Answer.GIVE_WAY, f"{cannot}, and the other node is here: it may go on")
    return Decision(Answer.WAIT, f"{cannot}; the other node is here, or was")


def _alone(now: float, outage: Outage, quorum: Quorum) -> Decision:
    current = quorum.current
    if current is None or not quorum.quorate(now):
        return Decision(Answer.WAIT, "corosync does not say")
    if now - outage.began < seconds.HOLD_SECONDS:
        return Decision(Answer.WAIT, "the other node may not have noticed yet")
    if now - current.at < seconds.STABLE_SECONDS:
        return Decision(Answer.WAIT, "the vote is fresh")
    return Decision(Answer.WIN, "quorate without the other node")


def pruned(quorum: Quorum, oldest: float) -> tuple[tuple[Ring, ...], tuple[Gap, ...]]:
    """What still matters for outages that began at ``oldest`` or later: with the ring that was in force before."""
    since = oldest - seconds.LOOKBACK_SECONDS
    rings: Sequence[Ring] = quorum.rings
    while len(rings) > 1 and rings[1].at <= since:
        rings = rings[1:]
    return tuple(rings), tuple(gap for gap in quorum.gaps if gap.at > since)
