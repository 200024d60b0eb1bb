"""What to do next to resolve a split brain, from the journal and this node's state alone. No I/O here.

Every step is a fact about the node, not a place in a script: after a crash, a reboot or somebody else's doing the same question is
asked again. Nothing that discards is answered before the journal has it that what is lost was preserved, that it still is there,
that this is the copy it was preserved of, and that nothing was written to it since.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvedrbdstor.fencing.split import replication
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve, Step

_TRIES = 3
_NO_DISK = ("Diskless", "Failed", "Detaching")


@dataclass(frozen=True, slots=True)
class Situation:
    """The side to lose at one moment.

    role, disk, connection, replication, peer_disk: DRBD's words, None while the resource is down. out_of_sync: KiB.
    current, bitmap: DRBD's identifiers of this copy, None where they cannot be read; known: all of them. users: what uses the
    storage here, in words. preserved: what the journal says was preserved is there. sealed: nothing was written here since the
    journal's seal. mount: the mount's number.

    Of this run of the command alone: copied: it has copied the files from this very mount. tries:
    how often it has had DRBD connect. anew: how often it has begun to preserve anew, or compared what was preserved.
    """

    mounted: bool = False
    mount: int | None = None
    read_only: bool = False
    role: str | None = None
    disk: str | None = None
    connection: str | None = None
    replication: str | None = None
    peer_disk: str | None = None
    out_of_sync: int | None = None
    current: int | None = None
    bitmap: int | None = None
    known: frozenset[int] = frozenset()
    users: tuple[str, ...] = ()
    preserved: bool = True
    sealed: bool = False
    copied: bool = False
    tries: int = 0
    anew: int = 0

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
    """Both nodes have the copy of the node to keep, and the disks were compared."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """cause: what is the matter, remedy: what to do, without a full stop."""

    cause: str
    remedy: str


Next = Action | Done | Refusal


def next_step(journal: Journal, now: Situation) -> Next:
    """The first thing that is not yet so."""
    if Step.COMPARE in journal.done:
        return _ended(journal, now)
    if now.in_step:
        return _in_step(journal, now)
    if not journal.preserved:
        return _not_this_copy(journal, now) or _preserve(journal, now)
    if now.connected:
        return _while_connected(journal, now)
    if now.disk == "Inconsistent" or (journal.told and now.current not in (None, journal.current)):
        return _overwritten(journal, now)
    return _not_this_copy(journal, now) or _discard(journal, now)


def _ended(journal: Journal, now: Situation) -> Next:
    """Whatever has become of the two since: a record that was not put away says nothing of a later split brain."""
    if now.in_step and now.current not in (None, journal.current):
        return Done()
    return Refusal(
        f"this resolution had come to its end, with {journal.keep}'s copy on both nodes, and they are not in sync now",
        f"{_close(journal)}, and look at 'pvedrbdstor mirror status {journal.storage}'",
    )


def _in_step(journal: Journal, now: Situation) -> Next:
    """Equal copies: of whom? A resync that was seen to come from the other node says it, and so do its identifiers."""
    if now.current is None:
        return _unreadable(journal)
    if now.current == journal.current:
        return Refusal(
            f"both nodes are in sync, with {journal.discard}'s data, not with {journal.keep}'s: DRBD copied it the other way, by "
            "somebody else's doing",
            f"What {journal.keep} had written since the copies parted is lost, unless somebody has preserved it. {_close(journal)}",
        )
    if not journal.preserved:
        return Refusal(
            f"the split brain was resolved meanwhile by somebody else: both nodes have {journal.keep}'s data, and nothing of "
            f"{journal.discard}'s was preserved by this command",
            _close(journal),
        )
    if Step.RESYNC in journal.done or (journal.told and journal.keeper is None) or journal.keeper in now.known:
        return Action(Step.COMPARE)
    return Refusal(
        f"both nodes are in sync, but nothing says that it is with {journal.keep}'s data: no resync from there was seen, and "
        "DRBD's identifiers do not have that copy's",
        f"Look at the guests' disks. What {journal.discard} had is preserved: {_where(journal)}. {_close(journal)}",
    )


def _not_this_copy(journal: Journal, now: Situation) -> Refusal | None:
    """A journal left over from an earlier split brain says nothing of this one."""
    if now.current is None or now.bitmap is None:
        return _unreadable(journal)
    if (now.current, now.bitmap) == (journal.current, journal.bitmap):
        return None
    return _another_copy(journal)


def _another_copy(journal: Journal) -> Refusal:
    return Refusal(
        "this node's copy is not the one that this resolution began with: the nodes have met since, or somebody made it Primary "
        "and wrote to it, or it was made anew",
        f"{_close(journal)}. Then look anew: 'pvedrbdstor split-brain show {journal.storage}'",
    )


def _preserve(journal: Journal, now: Situation) -> Next:
    if now.connected:
        return Refusal(
            "DRBD has connected the two nodes meanwhile, by somebody else's doing; nothing was discarded by this command",
            f"Look at 'pvedrbdstor mirror status {journal.storage}'. {_close(journal)}",
        )
    if (stop := _no_disk(journal, now)) is not None:
        return stop
    if now.users:
        return _in_use(journal, now)
    if now.disk is None:
        return Action(Step.DRBD_UP)
    if now.connection not in ("StandAlone", None):
        return Action(Step.DISCONNECT)
    how = journal.preserve
    if how is Preserve.FILES and not _files_are_copied(journal, now):
        if now.mounted:
            return Action(Step.COPY if now.read_only else Step.QUIESCE)
        if Step.COPY in journal.done:
            return _anew(journal, now)
        how = Preserve.DEVICE  # unmounted before they were safe: they cannot be reached without writing to this copy
    if now.mounted or now.role != "Secondary":
        return Action(Step.DOWN)
    if journal.seal is None:
        return Action(Step.SEAL)
    if not now.sealed:
        return _anew(journal, now)
    if how is Preserve.SNAPSHOT and Step.SNAPSHOT not in journal.done:
        return Action(Step.SNAPSHOT)
    if how is Preserve.DEVICE and Step.IMAGE not in journal.done:
        return Action(Step.IMAGE)
    return Action(Step.CHECK)


def takes_all(journal: Journal, now: Situation) -> bool:
    """Whether the whole device will be copied where the plan was to copy files, which cannot be reached any more."""
    copied = Step.COPY in journal.done and journal.seal is not None
    return journal.preserve is Preserve.FILES and not journal.preserved and not copied and not now.mounted


def _files_are_copied(journal: Journal, now: Situation) -> bool:
    """And nothing can have changed them since: this run has copied them, from the mount that is still there and read-only; or they
    were unmounted and sealed in one step."""
    if Step.COPY not in journal.done:
        return False
    return (now.copied and now.read_only) if now.mounted else journal.seal is not None


def _anew(journal: Journal, now: Situation) -> Next:
    if now.anew < _TRIES:
        return Action(Step.ANEW)
    return Refusal(
        f"{journal.discard}'s copy was written to again and again while it was preserved ({now.anew} times)",
        "Find out by whom: 'lsblk', 'fuser -v /dev/drbd*', 'dmesg'; then run this again",
    )


def _while_connected(journal: Journal, now: Situation) -> Next:
    if now.replication in replication.AWAY:
        return Refusal(
            "DRBD copies this node's data to the other one, not the other way",
            f"If that is what you wanted, wait for it; else 'drbdadm disconnect' here at once. What this side had is at {_where(journal)}",
        )
    if now.peer_disk in _NO_DISK:
        return Refusal(
            f"{journal.keep}, the node to keep, has no disk any more ({now.peer_disk}): there is nothing to copy from",
            f"Look at 'dmesg' there, and bring the disk back ('drbdadm attach'). What {journal.discard} had is preserved: {_where(journal)}",
        )
    return Action(Step.RESYNC)


def _overwritten(journal: Journal, now: Situation) -> Next:
    """The resync has begun: there is nothing left here that could be kept. DRBD is not told again to discard anything: it goes
    on where it was, and finds a split brain anew where this is the record of an earlier one."""
    if now.mounted or now.role == "Primary":
        return _another_copy(journal)
    if now.disk is None:
        return Action(Step.DRBD_UP)
    if (stop := _no_disk(journal, now)) is not None:
        return stop
    if now.connection not in ("StandAlone", None):
        return Action(Step.KEEPER)
    if now.tries >= _TRIES:
        return Refusal(
            f"DRBD has met {journal.keep} {now.tries} times and given the connection up each time, so this is perhaps another split "
            "brain than the one that this resolution was begun for",
            f"Look at 'dmesg | grep -i drbd' on both nodes. {_close(journal)}",
        )
    return Action(Step.CONNECT)


def _discard(journal: Journal, now: Situation) -> Next:
    if not now.preserved:
        return Refusal(
            f"what was preserved of this side is not there any more ({journal.target}), so nothing is discarded",
            f"Bring it back, or begin anew with '--start-over': 'pvedrbdstor split-brain resolve {journal.storage} --start-over'",
        )
    if (stop := _no_disk(journal, now)) is not None:
        return stop
    if now.users:
        return _in_use(journal, now)
    if now.disk is None:
        return Action(Step.DRBD_UP)
    waiting = now.connection not in ("StandAlone", None)
    if waiting and journal.told and not now.mounted and now.role == "Secondary" and now.sealed:
        return Action(Step.KEEPER)
    if waiting:
        return Action(Step.DISCONNECT)
    if now.mounted or now.role != "Secondary":
        return Action(Step.DOWN)
    if not now.sealed:
        return Action(Step.RECHECK) if now.anew < _TRIES else _anew(journal, now)
    if now.tries >= _TRIES:
        return Refusal(
            f"DRBD was told {now.tries} times to take over {journal.keep}'s data, and has given the connection up each time",
            f"Look at 'dmesg | grep -i drbd' on both nodes. Is a resolution open on {journal.keep}, too? {_close(journal)}",
        )
    return Action(Step.DISCARD)


def _no_disk(journal: Journal, now: Situation) -> Refusal | None:
    if now.disk not in _NO_DISK:
        return None
    return Refusal(
        f"DRBD has no disk on {journal.discard} any more ({now.disk}), so what is on it can be neither preserved nor overwritten",
        "Look at 'dmesg' for its errors, and at 'drbdadm attach'",
    )


def _in_use(journal: Journal, now: Situation) -> Refusal:
    return in_use(journal.storage, journal.discard, now.users)


def in_use(storage: str, discard: str, users: tuple[str, ...]) -> Refusal:
    """By guests, or whatever else has it open on the node to lose."""
    shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
    return Refusal(
        f"storage '{storage}' is in use on {discard}, the side to lose, by {shown}",
        "Shut those guests down here first ('qm shutdown', 'pct shutdown'), so that they stop writing what will be discarded",
    )


def _unreadable(journal: Journal) -> Refusal:
    return Refusal(
        f"DRBD's identifiers of {journal.discard}'s copy cannot be read, so nobody can tell which copy it is",
        "Look at 'drbdadm get-gi' and 'dmesg'",
    )


def _close(journal: Journal) -> str:
    return f"Close this record with 'pvedrbdstor split-brain resolve {journal.storage} --abandon'"


def _where(journal: Journal) -> str:
    return " and ".join((*journal.given_up, journal.target))
