"""Is it a split brain, and if not, what is it? And who was last, where one node is alone. From facts alone, no I/O here."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pvedrbdstor.drbd.generation_ids import Identifiers, Relation, relation
from pvedrbdstor.fencing.split.side import Side


class Case(enum.Enum):
    """SPLIT: certain, by DRBD's own handshake or by both copies' identifiers. PERHAPS: only asking the other node can tell.

    BEHIND, AHEAD: one copy continues the other: no split. SAME: equal histories. ALONE: this node waits for the other, and its
    copy may be old.
    """

    SPLIT = "split-brain"
    PERHAPS = "perhaps"
    BEHIND = "behind"
    AHEAD = "ahead"
    SAME = "same"
    UNRELATED = "unrelated"
    ALONE = "alone"
    CONNECTED = "connected"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Judgement:
    """sentences: what is so and how that is known, for a person."""

    case: Case
    sentences: tuple[str, ...]


_BY_RELATION = {
    Relation.SPLIT: Case.SPLIT,
    Relation.OLDER: Case.BEHIND,
    Relation.NEWER: Case.AHEAD,
    Relation.SAME: Case.SAME,
    Relation.UNRELATED: Case.UNRELATED,
}


def judge(own: Side, other: Side | None) -> Judgement:
    """The other side's identifiers decide where they are known; without them what DRBD found when the two last met."""
    if own.connected:
        return Judgement(Case.CONNECTED, ("The nodes are connected: this is no split brain.",))
    theirs = other.ids if other is not None else None
    if own.ids is not None and theirs is not None and other is not None:
        case = _BY_RELATION[relation(own.ids, theirs)]
        return Judgement(case, _by_relation(case, own, other))
    if own.met:
        met = f"DRBD met the other node again and found that both had changed their own copies since they parted ({own.node}'s word)."
        return Judgement(Case.SPLIT, (met,))
    if own.disk is None:
        return Judgement(Case.DOWN, ("DRBD is down on this node.",))
    if own.refused:
        text = (
            "The other node was reached again and hung up before the copies were compared here: perhaps it has found a split brain, "
            f"perhaps the link broke just then. Its own word makes it certain: 'pvedrbdstor split-brain show {own.storage} --local "
            "--json' there, and its output here as --other FILE."
        )
        return Judgement(Case.PERHAPS, (text,))
    if own.connection == "StandAlone":
        text = (
            "DRBD has given up the connection (StandAlone), after a split brain or by 'drbdadm disconnect': this node alone "
            f"cannot tell which. Ask the other one, or let DRBD compare the copies again: 'drbdadm connect {own.resource}' on both."
        )
        return Judgement(Case.PERHAPS, (text,))
    if own.role == "Primary" and own.disk == "UpToDate":
        text = "The other node cannot be reached. If it runs and was not fenced, both change their own copies now."
        return Judgement(Case.PERHAPS, (text,))
    return Judgement(Case.ALONE, ("This node is alone: DRBD waits for the other one.",))


def _by_relation(case: Case, own: Side, other: Side) -> tuple[str, ...]:
    match case:
        case Case.SPLIT:
            return (
                "The two copies have a common past, and each has a history of its own since: DRBD's identifiers of both say so.",
            )
        case Case.BEHIND:
            text = f"This is no split brain: {other.node}'s copy continues this one. A reconnect will bring {own.node} up to date"
        case Case.AHEAD:
            text = f"This is no split brain: this copy continues {other.node}'s. A reconnect will bring {other.node} up to date"
        case Case.SAME:
            text = "This is no split brain: both copies have the same history"
        case _:
            return (
                "The two copies have no common past that DRBD remembers, as after a forced promotion: nothing can tell which "
                "blocks differ. Save what you need from the copy to lose, stop its guests, and have all of it copied anew. On that "
                f"node: 'pvedrbdstor mirror down {own.storage}', 'drbdadm disconnect {own.resource}' unless it is StandAlone, "
                f"'drbdadm invalidate {own.resource}', 'drbdadm connect {own.resource}'. On the other: 'drbdadm connect "
                f"{own.resource}' if it is StandAlone.",
            )
    return (f"{text}: 'drbdadm connect {own.resource}' on both nodes.",)


def who_was_last(own: Side, other: Side | None) -> tuple[str, ...]:
    """Of a node that is alone with its copy: what DRBD's records say of who wrote last, and what forcing it would mean."""
    ids, theirs = own.ids, other.ids if other is not None else None
    if ids is None:
        return ("DRBD's records of this copy cannot be read.",)
    if theirs is not None and other is not None:
        return (*_compared(ids, theirs, own, other), *_forcing(own))
    return (*_own_record(ids, own), *_forcing(own))


def _compared(ids: Identifiers, theirs: Identifiers, own: Side, other: Side) -> tuple[str, ...]:
    match relation(ids, theirs):
        case Relation.OLDER:
            return (
                f"{other.node} was last: it went on without this node, whose copy is the old one. Never force this one.",
            )
        case Relation.NEWER:
            return (f"This node ({own.node}) was last: it went on without {other.node}. Its copy is the newest.",)
        case Relation.SAME:
            return ("Both nodes stopped with the same history: neither went on without the other.",)
        case Relation.SPLIT:
            return ("Both went on without the other: a split brain.",)
    return ("The two copies have no common past.",)


def _own_record(ids: Identifiers, own: Side) -> tuple[str, ...]:
    if not ids.consistent:
        return ("This copy is incomplete: a resync to it was interrupted. It cannot be used without the other node.",)
    if not ids.up_to_date:
        return ("This copy is on record as out of date: the other node went on without it, and was last.",)
    if ids.peer_outdated:
        return ("This node had it on record that the other copy was out of date: this node was last.",)
    if ids.connected:
        return (
            "When this node was last heard of it was connected: both copies were equal then. Whether the other node went on "
            "alone after that is recorded there only: nobody can tell from here who was last.",
        )
    if ids.crashed_primary or ids.primary:
        return (
            "This node was writing when it stopped, and had lost the other node before, which was not known to be out of date: "
            "both may have gone on. Which was last can only be told when the other copy is seen.",
        )
    return ("This node was not writing when it stopped: the other one may have gone on, and then has the newer data.",)


def _forcing(own: Side) -> tuple[str, ...]:
    if own.disk in ("Inconsistent", "Diskless", None):
        return ("Forcing it cannot help: bring the other node up.",)
    return (
        "Forcing means to declare this copy the good one, unseen. Every write that only the other node has is then lost, or, if "
        "the other node comes up and is used, becomes a split brain. Do it only if the other node's disk is lost, or if you know "
        "that it stopped before this one. When it comes back, its copy is made anew from this one: 'split-brain show' says how.",
    )
