"""What to do next to resolve a split brain, from the journal and this node's state alone. No I/O here.

Every step is a fact about the node, not a place in a script: after a crash, a reboot or somebody else's doing the same question is
asked again. Nothing that discards is answered before the journal has it that what is lost was preserved, and it still is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve, Step

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Situation:
    """The side to lose at one moment.

    role, disk, connection, replication, peer_disk: DRBD's words, None while the resource is down. out_of_sync: KiB.
    users: what uses the storage here, in words. preserved: what the journal says was preserved is there. boot: this boot's id.
    tries: how often this run has told DRBD to discard.
    """

    boot: str
    mounted: bool = False
    read_only: bool = False
    role: str | None = None
    disk: str | None = None
    connection: str | None = None
    replication: str | None = None
    peer_disk: str | None = None
    out_of_sync: int | None = None
    users: tuple[str, ...] = ()
    preserved: bool = True
    tries: int = 0

    @property
    def connected(self) -> bool:
        """And past the handshake, which 8.4 already calls Connected."""
        return self.connection == "Connected" and self.replication not in (None, "Off")

    @property
    def in_step(self) -> bool:
        return (
            self.connected
            and self.replication == "Established"
            and self.disk == "UpToDate"
            and self.peer_disk == "UpToDate"
        )


@dataclass(frozen=True, slots=True)
class Action:
    step: Step


@dataclass(frozen=True, slots=True)
class Done:
    """One copy of the data, on both nodes, and mounted here."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """cause: what is the matter, remedy: what to do, without a full stop."""

    cause: str
    remedy: str


Next = Action | Done | Refusal


def next_step(journal: Journal, now: Situation) -> Next:
    """The first thing that is not yet so."""
    if not journal.preserved:
        return _preserve(journal, now)
    if Step.COMPARE in journal.done:
        return Done() if now.mounted else Action(Step.UP)
    if now.in_step:
        return Action(Step.COMPARE)
    if not now.preserved:
        return Refusal(
            f"what was preserved of this side is not there any more ({journal.target}), so nothing is discarded",
            f"Bring it back, or begin anew: 'pvedrbdstor split-brain resolve {journal.storage} --keep {journal.keep} --start-over'",
        )
    if now.connected:
        return _while_connected(journal, now)
    return _discard(journal, now)


def _preserve(journal: Journal, now: Situation) -> Next:
    if now.connected:
        return Refusal(
            "DRBD has connected the two nodes meanwhile, by somebody else's doing; nothing was discarded by this command",
            f"Look at 'pvedrbdstor mirror status {journal.storage}'; this resolution is given up with '--start-over'",
        )
    if now.users:
        return _in_use(journal, now)
    if now.disk is None:
        return Action(Step.DRBD_UP)
    if now.connection not in ("StandAlone", None):
        return Action(Step.DISCONNECT)
    how = journal.preserve
    if how is Preserve.FILES and Step.COPY not in journal.done:
        if now.mounted:
            return Action(Step.COPY if now.read_only else Step.QUIESCE)
        how = Preserve.DEVICE  # the node was restarted: its files cannot be reached without writing to this copy
    if now.mounted or now.role != "Secondary":
        return Action(Step.DOWN)
    if how is Preserve.SNAPSHOT and Step.SNAPSHOT not in journal.done:
        return Action(Step.SNAPSHOT)
    if how is Preserve.DEVICE and Step.IMAGE not in journal.done:
        return Action(Step.IMAGE)
    return Action(Step.CHECK)


def _while_connected(journal: Journal, now: Situation) -> Next:
    if now.replication in ("SyncSource", "PausedSyncS", "WFBitMapS", "StartingSyncS", "VerifyS", "VerifyT"):
        if now.replication in ("VerifyS", "VerifyT"):
            return Action(Step.RESYNC)
        return Refusal(
            "DRBD copies this node's data to the other one, not the other way",
            f"If that is what you wanted, wait for it; else 'drbdadm disconnect' here at once. What this side had is at {journal.target}",
        )
    return Action(Step.RESYNC)


def _discard(journal: Journal, now: Situation) -> Next:
    if now.disk is None:
        return Action(Step.DRBD_UP)
    waiting = now.connection not in ("StandAlone", None)
    if now.disk == "Inconsistent":  # the resync has begun: there is nothing left here that could be kept
        return Action(Step.KEEPER if waiting else Step.CONNECT)
    if now.users:
        return _in_use(journal, now)
    told = Step.DISCARD in journal.done and journal.discarded_boot == now.boot and journal.doing is not Step.DISCARD
    if waiting and told and not now.mounted and now.role == "Secondary":
        return Action(Step.KEEPER)
    if waiting:
        return Action(Step.DISCONNECT)
    if now.mounted or now.role != "Secondary":
        return Action(Step.DOWN)
    if now.tries >= _TRIES:
        return Refusal(
            f"DRBD was told {now.tries} times to take over {journal.keep}'s data, and has given the connection up each time",
            "Look at 'dmesg | grep -i drbd' on both nodes",
        )
    return Action(Step.DISCARD)


def _in_use(journal: Journal, now: Situation) -> Refusal:
    shown = ", ".join(now.users[:5]) + (f" and {len(now.users) - 5} more" if len(now.users) > 5 else "")
    return Refusal(
        f"storage '{journal.storage}' is in use on {journal.discard}, the side to lose, by {shown}",
        "Shut those guests down here first ('qm shutdown', 'pct shutdown'), so that they stop writing what will be discarded",
    )
