"""DRBD's part of the plan: resource up, peer connected or known to be harmless, good data in reach, Primary. No I/O here."""

from __future__ import annotations

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.config import FENCED
from pvedrbdstor.mirror.bringup.decision import Action, Refusal
from pvedrbdstor.mirror.bringup.facts import Memory, Options, Situation, Step
from pvedrbdstor.mirror.copies import copies
from pvedrbdstor.mirror.facts import Drbd, Peer
from pvedrbdstor.mirror.finding import Finding, Kind

COMPARE_SECONDS = 15.0
"""After the handshake, until a resync has begun or is found not to be needed."""
MEET_SECONDS = 10.0
"""For one try of DRBD's to connect (connect-int 10 s; the first one is made at once)."""
PROMOTE_SECONDS = 20.0
"""Two nodes that become Primary in the same moment may refuse one another."""
_NO_DATA = (Kind.INCONSISTENT, Kind.STALE)


def next_step(now: Situation, config: StorageConfig, options: Options, memory: Memory) -> Action | Refusal | None:
    """None when this node is Primary on good data."""
    drbd = now.mirror.drbd
    if drbd is None:
        return _up(now, config)
    if (missing := drbd.missing) is not None:
        return _wait_for_copies(memory) or Refusal(
            f"DRBD does not tell {missing}", f"Look at 'drbdsetup events2 --now {config.resource}' and 'dmesg'"
        )
    frozen = _found(now, drbd, Kind.SUSPENDED)
    if frozen is not None:
        return _refusal(frozen)
    return (
        _connection(now, drbd, config, options, memory) or _data(now, drbd, memory) or _promotion(drbd, config, memory)
    )


def _up(now: Situation, config: StorageConfig) -> Action | Refusal:
    if now.defined is False:
        said = f" (drbdadm: {now.undefined})" if now.undefined else ""
        return Refusal(
            f"DRBD resource '{config.resource}' volume {config.volume} is not configured on this node{said}",
            f"Write it to /etc/drbd.d/{config.resource}.res, the same on both nodes, with an 'on' section named "
            f"'{now.host}' (the output of 'uname -n') for this one; or correct drbdocfs2-resource and drbdocfs2-volume in storage.cfg",
        )
    return Action(Step.UP)


# --- the peer ----------------------------------------------------------------------------------------------------


def _connection(
    now: Situation, drbd: Drbd, config: StorageConfig, options: Options, memory: Memory
) -> Action | Refusal | None:
    away = [peer for peer in drbd.peers if not peer.connected and not peer.client]
    if any(peer.connection == "StandAlone" for peer in away):
        if Step.UP not in memory.since and Step.CONNECT not in memory.since:
            return Action(Step.CONNECT) if options.by_hand else _disconnected(config)
        return _given_up(config)
    rivals = [peer for peer in away if not _harmless(peer, drbd)]
    waited = memory.since.get(Step.WAIT_PEER, 0.0)
    if not rivals:
        # What is on record may be old: an administrator may have forced that copy. If it runs, DRBD meets it in a moment.
        met_soon = bool(away) and Step.UP in memory.since and waited < MEET_SECONDS
        return Action(Step.WAIT_PEER) if met_soon else None
    if waited < options.wait_peer:
        return Action(Step.WAIT_PEER)
    if drbd.disk not in ("UpToDate", "Consistent"):
        return _no_data(now, drbd)
    if _fenced(now) or (options.without_peer and drbd.disk == "UpToDate"):
        return None
    return _alone(rivals[0], drbd, config) if drbd.disk == "UpToDate" else _no_data(now, drbd)


def _harmless(peer: Peer, drbd: Drbd) -> bool:
    """DRBD has it on record that our copy is the newer one."""
    return peer.known_behind and drbd.disk == "UpToDate"


def _fenced(now: Situation) -> bool:
    """With this policy DRBD itself calls the fence-peer handler before it promotes, and refuses if that fails."""
    settings = now.mirror.config
    return settings is not None and settings.fencing(now.mirror.volume) == FENCED


def _alone(peer: Peer, drbd: Drbd, config: StorageConfig) -> Refusal:
    return Refusal(
        f"{peer} cannot be reached (DRBD: {peer.connection}) and no fencing is configured, so nothing says that it is not "
        "writing to its own copy; two nodes that write apart make two histories, of which one must be thrown away",
        f"Start the other node, or restore the link ('drbdadm status {config.resource}'). Only if it is switched off, and "
        f"was not running guests after this node: 'pvedrbdstor mirror up {config.id} --without-peer'",
    )


def _disconnected(config: StorageConfig) -> Refusal:
    """By itself nothing is connected that may have been disconnected on purpose, or would call the split-brain handler anew."""
    return Refusal(
        "DRBD has given up the connection to the other node (StandAlone), after a split brain or by 'drbdadm disconnect'",
        f"Run 'pvedrbdstor mirror up {config.id}', which connects once and tells what comes of it",
    )


def _given_up(config: StorageConfig) -> Refusal:
    return Refusal(
        "DRBD has met the other node and will not connect (StandAlone): each holds writes that the other lacks (a split "
        "brain), or their settings differ",
        f"Run 'pvedrbdstor split-brain show {config.id}', which says which of the two, what each side would lose, and how the two "
        "become one again",
    )


# --- the data ----------------------------------------------------------------------------------------------------


def _data(now: Situation, drbd: Drbd, memory: Memory) -> Action | Refusal | None:
    if drbd.data_reachable or (drbd.disk == "Consistent" and _fenced(now) and not _connected(drbd)):
        return None
    waiting = _wait_for_copies(memory) if _connected(drbd) or drbd.disk in ("Attaching", "Negotiating") else None
    return waiting or _no_data(now, drbd)


def _connected(drbd: Drbd) -> bool:
    return any(peer.connected for peer in drbd.peers)


def _wait_for_copies(memory: Memory) -> Action | None:
    return Action(Step.WAIT_COPIES) if memory.since.get(Step.WAIT_COPIES, 0.0) < COMPARE_SECONDS else None


def _no_data(now: Situation, drbd: Drbd) -> Refusal:
    found = _found(now, drbd, *_NO_DATA)
    if found is None:
        return Refusal(
            f"this node's copy is {drbd.disk}, and whether it is the newest cannot be told without the other node",
            f"Start the other node and run 'pvedrbdstor mirror up {now.mirror.storage}' on both",
        )
    return _refusal(found)


def _found(now: Situation, drbd: Drbd, *kinds: Kind) -> Finding | None:
    return next((found for found in copies(now.mirror, drbd) if found.kind in kinds), None)


def _refusal(found: Finding) -> Refusal:
    """A finding's sentences, to stand within ours."""
    cause = found.cause.rstrip(".")
    keep = cause.startswith(("DRBD", "OCFS2", "I/O"))
    return Refusal(cause if keep else cause[:1].lower() + cause[1:], found.remedy.rstrip("."))


# --- the role ----------------------------------------------------------------------------------------------------


def _promotion(drbd: Drbd, config: StorageConfig, memory: Memory) -> Action | Refusal | None:
    if drbd.role == "Primary":
        return None
    said = memory.said.get(Step.PROMOTE)
    alone = not _connected(drbd)
    if said is None or (not alone and memory.since.get(Step.PROMOTE, 0.0) < PROMOTE_SECONDS):
        return Action(Step.PROMOTE)
    if alone:
        return Refusal(
            f"DRBD could not make sure that the other node does not write, and does not let this one become Primary: {said}",
            "Start the other node or restore the link; look at the fence-peer handler's log and 'dmesg'",
        )
    remedy = f"Look at 'drbdadm status {config.resource}' and 'dmesg' on both nodes"
    if "ultiple primaries" in said:
        remedy = f"Set 'allow-two-primaries yes' in net {{ }} of the resource on both nodes, then run 'drbdadm adjust {config.resource}' on both"
    return Refusal(f"DRBD does not let this node become Primary: {said}", remedy)
