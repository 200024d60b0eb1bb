"""What DRBD's state means for the copies of the data: here, at the peer, and between them. Rules alone, no I/O."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.mirror.facts import Drbd, Facts, Peer
from pvedrbdstor.mirror.finding import Finding, Kind, Severity, blocking

_OLD = ("Outdated", "Consistent")
_NO_DISK = ("Diskless", "Failed", "Detaching", "Attaching", "Negotiating")
_VERIFY = ("VerifyS", "VerifyT")
_IN_STEP = ("Established", *_VERIFY)
_PAUSED = ("PausedSyncS", "PausedSyncT")
DEAD_SECONDS_DEFAULT = 60


def copies(facts: Facts, drbd: Drbd) -> Iterator[Finding]:
    """Everything that is not as in a healthy mirror, in no order."""
    yield from _frozen(facts, drbd)
    if not drbd.data_reachable:
        yield _no_good_copy(facts, drbd)
    elif drbd.disk != "UpToDate":
        yield from _own_copy_unfinished(facts, drbd)
    for peer in drbd.peers:
        if not peer.connected:
            yield _peer_away(facts, drbd, peer)
        elif not peer.client:
            yield from _beside(facts, drbd, peer)


def notes(drbd: Drbd) -> Iterator[str]:
    """What runs and is no failure."""
    for peer in drbd.peers:
        if peer.connected and peer.replication in _VERIFY:
            yield f"An online verify against {peer} is running{_progress(peer)}."


def _frozen(facts: Facts, drbd: Drbd) -> Iterator[Finding]:
    name = facts.resource
    reasons = drbd.suspended or frozenset()
    if drbd.failing:
        yield _suspended(
            "DRBD fails all I/O until everything that has the device open has closed it",
            f"Stop the guests here, then 'pvedrbdstor mirror down {facts.storage}' and 'pvedrbdstor mirror up {facts.storage}'",
        )
    if "fencing" in reasons:
        yield _suspended(
            "I/O is frozen until the lost peer is fenced",
            f"Restore the link between the nodes, look at 'drbdadm status {name}' and at the fence-peer handler's log; "
            f"'drbdadm resume-io {name}' makes a split brain unless the other node is switched off",
        )
    if "quorum" in reasons:
        remedy = f"Bring the other nodes back and look at 'drbdadm status {name}'"
        yield _suspended("I/O is frozen because this node has lost DRBD's quorum", remedy)
    elif drbd.quorum is False and not reasons:
        remedy = f"Bring the other nodes back, then set 'on-no-quorum suspend-io' and run 'drbdadm adjust {name}'"
        yield _suspended("This node has lost DRBD's quorum and its I/O fails", remedy)
    if "no-data" in reasons:
        remedy = f"Repair the disk and run 'drbdadm attach {name}', or bring the other node back"
        yield _suspended("I/O is frozen because no copy of the data can be reached", remedy)
    if "user" in reasons:
        yield _suspended("I/O was frozen by 'drbdadm suspend-io'", f"Run 'drbdadm resume-io {name}'")
    for reason in sorted(reasons - {"fencing", "quorum", "no-data", "user"}):
        cause = "I/O is frozen and DRBD's tools do not say why" if reason == "?" else f"I/O is frozen ({reason})"
        yield _suspended(cause, f"Look at 'drbdadm status {name}' and 'dmesg'")


def _suspended(cause: str, remedy: str) -> Finding:
    return blocking(Kind.SUSPENDED, f"{cause}.", f"{remedy}.", Severity.CRITICAL, what=cause)


def _no_good_copy(facts: Facts, drbd: Drbd) -> Finding:
    remedy = (
        f"Start the node with the good data, restore the link to it, and run 'pvedrbdstor mirror up {facts.storage}' on both nodes: the resync begins "
        "when they meet, and this copy is complete at its end."
    )
    if drbd.disk == "Outdated":
        cause = "This node's copy is out of date, and no up-to-date one can be reached."
        return blocking(Kind.STALE, cause, remedy)
    if drbd.disk == "Consistent":
        cause = "This node's copy may be out of date, which only the other node can tell, and that cannot be reached."
        return blocking(Kind.STALE, cause, remedy)
    if drbd.disk in _NO_DISK:
        cause = f"This node's disk is {drbd.disk}, and no up-to-date copy can be reached."
        remedy = f"Repair the disk and run 'drbdadm attach {facts.resource}', or bring the other node up."
    else:
        cause = f"This node's copy is incomplete (DRBD: {drbd.disk}), and no up-to-date one can be reached."
        if any(peer.connected and peer.disk == "Inconsistent" for peer in drbd.peers):
            remedy = (
                f"Look at 'drbdadm status {facts.resource}' on both nodes; only for two disks that never held data, "
                f"'drbdadm new-current-uuid --clear-bitmap {facts.resource}/{facts.volume}' on one of them starts the mirror."
            )
    return blocking(Kind.INCONSISTENT, cause, remedy)


def _own_copy_unfinished(facts: Facts, drbd: Drbd) -> Iterator[Finding]:
    """The peer has the data. A running resync is told by the rules about that peer."""
    if drbd.client:
        return
    if drbd.disk in _NO_DISK:
        yield _degraded(
            "own disk lost",
            f"This node's disk is {drbd.disk}: it reads and writes through the other node, the only copy",
            f"Repair or replace the disk, then run 'drbdadm attach {facts.resource}' (after 'drbdadm create-md "
            f"{facts.resource}' on a new one)",
        )
    elif not any(peer.replication not in ("Established", "Off") for peer in drbd.peers if peer.has_the_data):
        remedy = (
            f"If no resync begins, run 'pvedrbdstor mirror down {facts.storage} --stop' and 'pvedrbdstor mirror up "
            f"{facts.storage}' here, which connects anew"
        )
        yield _degraded("no resync", f"This node's copy ({drbd.disk}) waits for its resync", remedy)


def _peer_away(facts: Facts, drbd: Drbd, peer: Peer) -> Finding:
    """No connection: is the peer merely away, is our copy the old one, or are there two histories?"""
    if peer.client:
        return _degraded(
            "voter away", f"No contact to {peer}, which has no disk and only votes", _reconnect(facts, peer)
        )
    if peer.lost.split_brain is True:
        cause = f"Both nodes have changed their own copies: DRBD met {peer} again and found a split brain."
        return _split(facts, cause, what="found")
    if peer.known_behind or peer.lost.peer_off:
        told = "is known to be switched off" if peer.lost.peer_off else f"holds a copy known as {peer.disk}"
        cause = f"No contact to {peer}, which {told}{_since(peer)}: writes go to one copy only"
        return _degraded("peer away", cause, _reconnect(facts, peer))
    if drbd.disk != "UpToDate" or drbd.stopped:
        return _degraded("peer away", f"No contact to {peer}{_since(peer)}", _reconnect(facts, peer))
    if peer.lost.peer_role == "Secondary":
        cause = f"No contact to {peer}, which was not writing when it left{_since(peer)}: writes go to one copy only"
        return _degraded("peer away", cause, _reconnect(facts, peer))
    if drbd.role != "Primary":
        cause = f"No contact to {peer}{_since(peer)}, which may have gone on writing: this copy may be out of date."
        return blocking(
            Kind.STALE, cause, f"{_reconnect(facts, peer)}; then run 'pvedrbdstor mirror up {facts.storage}' here."
        )
    return _two_writers(facts, peer)


def _two_writers(facts: Facts, peer: Peer) -> Finding:
    """This node writes, and so did the peer, or nobody knows."""
    dead = facts.o2cb.dead_seconds if facts.o2cb is not None else None
    dead = DEAD_SECONDS_DEFAULT if dead is None else dead
    if peer.connection == "StandAlone":
        cause = f"DRBD has given up the connection to {peer}, which was or may have been writing: both nodes change their own copies."
        return _split(facts, cause)
    if peer.lost.refused:
        cause = (
            f"DRBD has reached {peer} again, which hung up before the two copies were compared: perhaps it has found a split "
            "brain, and both nodes have changed their own copies."
        )
        return _split(facts, cause, what="refused")
    if peer.lost.seconds is None:
        cause = f"No contact to {peer}, and nobody saw since when: if it runs, both nodes change their own copies."
        return _split(facts, cause)
    if peer.lost.seconds > dead:
        cause = (
            f"No contact to {peer} for {peer.lost.seconds:.0f} s, longer than OCFS2 waits ({dead} s), and no fencing: "
            "if it runs, both nodes change their own copies."
        )
        return _split(facts, cause)
    cause = f"No contact to {peer}{_since(peer)}, and it was not fenced: if it runs, both copies are drifting apart."
    remedy = (
        f"Restore the link at once and look at 'drbdadm status {facts.resource}': DRBD may refuse to reconnect. "
        f"Start no guest here that may run there; if the other node is switched off for certain, say so: 'pvedrbdstor mirror "
        f"peer-off {facts.storage}'."
    )
    return Finding(Kind.DEGRADED, cause, remedy, Severity.CRITICAL, admits=False, what="peer away")


def _split(facts: Facts, cause: str, *, what: str = "feared") -> Finding:
    """Guests that run here go on, on this node's copy; nothing else may come to it.

    what: "found" by DRBD, which has compared the copies; "refused" by the other node, which then perhaps has; else only "feared". Each
    is news after the one before.
    """
    storage = facts.storage
    feared = (
        f"If the other node is switched off for certain, say so: 'pvedrbdstor mirror peer-off {storage}'. If it runs: "
    )
    remedy = (
        f"{feared if what == 'feared' else ''}'pvedrbdstor split-brain show {storage}' says what each side has changed. Choose the copy to "
        f"keep, shut down the guests on the node whose copy will be lost, and resolve it there: 'pvedrbdstor split-brain resolve {storage} "
        "--keep NODE' (NODE keeps its copy; with '--preserve-to FOLDER' where DRBD's disk is no logical volume; docs/split-brain.md)."
    )
    return Finding(Kind.SPLIT_BRAIN, cause, remedy, Severity.CRITICAL, admits=False, what=what)


def _beside(facts: Facts, drbd: Drbd, peer: Peer) -> Iterator[Finding]:
    """A connected peer that should have a copy."""
    name = facts.resource
    if peer.replication in _PAUSED:
        remedy = f"Run 'drbdadm resume-sync {name}' on the node that paused it"
        yield _degraded("resync paused", f"The resync with {peer} is paused{_progress(peer)}{_left(peer)}", remedy)
    elif peer.replication not in _IN_STEP:
        direction = {"SyncSource": "to", "SyncTarget": "from"}.get(peer.replication or "")
        what = (
            f"A resync {direction} {peer}"
            if direction
            else f"The copies are not in step ({peer.replication}): a resync"
        )
        if peer.progress.stalled:
            cause = f"{what} has stalled{_progress(peer)}{_left(peer)}"
            yield _degraded("resync stalled", cause, "Look at the link, the disks and 'dmesg'")
        else:
            cause = f"{what} is running{_progress(peer)}{_left(peer)}"
            yield _degraded("resync", cause, f"Wait; 'drbdadm status {name}' shows it")
    elif peer.disk in _NO_DISK:
        remedy = f"Repair or replace the disk there, then run 'drbdadm attach {name}' there"
        cause = f"{peer} has lost its disk ({peer.disk}) and uses this node's copy, the only one"
        yield _degraded("peer's disk lost", cause, remedy)
    elif peer.disk != "UpToDate":
        remedy = (
            f"If no resync begins, run 'pvedrbdstor mirror down {facts.storage} --stop' and 'pvedrbdstor mirror up "
            f"{facts.storage}' there, which connects anew"
        )
        yield _degraded("no resync", f"The copy of {peer} is {peer.disk}", remedy)
    elif peer.out_of_sync and drbd.disk == "UpToDate":
        yield Finding(
            Kind.DEGRADED,
            f"The two copies differ in {peer.out_of_sync} KiB, as a verify found.",
            f"On the node with the bad copy, with the storage up on the other: 'pvedrbdstor mirror down {facts.storage} "
            f"--stop', then 'pvedrbdstor mirror up {facts.storage}': the resync on connecting overwrites those blocks there.",
            Severity.ERROR,
            what="copies differ",
        )


def _degraded(what: str, cause: str, remedy: str) -> Finding:
    return Finding(Kind.DEGRADED, f"{cause[:1].upper()}{cause[1:]}.", f"{remedy}.", Severity.WARNING, what=what)


def _reconnect(facts: Facts, peer: Peer) -> str:
    if peer.connection == "StandAlone":
        return f"Run 'drbdadm connect {facts.resource}' here, and on the other node if it is StandAlone there, too"
    return f"Start the other node, check the link, and run 'pvedrbdstor mirror up {facts.storage}' there"


def _since(peer: Peer) -> str:
    return f" for {peer.lost.seconds:.0f} s" if peer.lost.seconds is not None else ""


def _progress(peer: Peer) -> str:
    done, finish = peer.progress.done, peer.progress.finish
    if done is None:
        return ""
    if finish is None or peer.progress.stalled or peer.replication in _PAUSED:
        return f", {done:.1f} % done"
    return f", {done:.1f} % done, about {_duration(finish)} to go"


def _left(peer: Peer) -> str:
    return f", {peer.out_of_sync} KiB left" if peer.out_of_sync else ""


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
