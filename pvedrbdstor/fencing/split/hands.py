"""The hands of a resolution: this node's DRBD, mounts and LVM, and the node to keep. Everything that the plan decides is done here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, devices, metadata
from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.drbd.generation_ids import parse
from pvedrbdstor.errors import CommandFailed, Error, SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import (
    copies,
    evidence,
    investigate,
    journal,
    look,
    preserve,
    remote,
    seal,
    snapshot,
    verify,
)
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Situation
from pvedrbdstor.fencing.split.side import Side
from pvedrbdstor.fencing.split.steps import PRESERVING, Preserve, Step
from pvedrbdstor.mirror.bringup import down, holders
from pvedrbdstor.mirror.bringup import execute as bringup
from pvedrbdstor.mirror.facts import drbd_facts
from pvedrbdstor.mirror.gather import mounted_at

_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 5.0
_LOOKS, _LOOK_PAUSE = 3, 0.4
"""A call that Proxmox makes just now, and the monitor's probe, have the mount open for a moment."""


class NodeHands:
    """say: tells people a sentence. progress: is told of bytes copied and of KiB left of a resync."""

    def __init__(
        self,
        config: StorageConfig,
        say: Callable[[str], None] = lambda _: None,
        copied: copies.Progress = lambda _: None,
        left: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._say, self._copied, self._left = say, copied, left
        self._asked_at, self._looked_at = -_ASK_AGAIN_SECONDS, 0.0
        self._told = self._lost = False

    def look(self, journal: Journal) -> Situation:
        config = self._config
        state = look.drbd_state(config.resource)
        drbd = drbd_facts(state, config.resource, config.volume)
        minor = state.minor_of(config.resource, config.volume)
        entry = mounted_at(config.path)
        mounted = entry is not None and minor is not None and entry.device == (devices.MAJOR, minor)
        peer = drbd.peers[0] if drbd is not None else None
        apart = peer is None or not peer.connected
        line = look.identifiers(config)
        ids = parse(line) if line is not None else None
        return Situation(
            mounted=mounted,
            mount=entry.mnt_id if mounted and entry is not None else None,
            read_only=mounted and entry is not None and "ro" in entry.options,
            role=drbd.role if drbd is not None else None,
            disk=drbd.disk if drbd is not None else None,
            connection=peer.connection if peer is not None else None,
            replication=peer.replication if peer is not None else None,
            peer_disk=peer.disk if peer is not None else None,
            out_of_sync=peer.out_of_sync if peer is not None else None,
            current=ids.current if ids is not None else None,
            bitmap=ids.bitmap if ids is not None else None,
            known=frozenset((ids.current, ids.bitmap, *ids.history)) if ids is not None else frozenset(),
            users=users(config.path) if mounted and apart else (),
            preserved=not journal.preserved or not apart or preserve.is_there(journal),
            sealed=self._sealed(journal, state),
        )

    def _sealed(self, journal: Journal, state: State) -> bool:
        return journal.seal is not None and seal.holds(journal.seal, seal.take(self._config, state))

    def act(self, step: Step, journal: Journal) -> Journal:
        changed = _ACTIONS[step](self, journal)
        return journal if changed is None else changed

    def wait(self, step: Step, journal: Journal, now: Situation) -> None:
        if step is Step.RESYNC:
            self._left(now.out_of_sync or 0)
            if self.clock() - self._looked_at >= _LOOK_AGAIN_SECONDS:
                self._looked_at = self.clock()
                self._guard_what_is_preserved(journal)
        elif self.clock() - self._asked_at >= _ASK_AGAIN_SECONDS:
            self._asked_at = self.clock()
            self._ask_keeper(journal)

    def _guard_what_is_preserved(self, journal: Journal) -> None:
        """A snapshot grows with each block that the resync overwrites; it is stopped before that is too much. Once the snapshot is
        lost there is nothing to stop it for: the other node's copy is the only whole one."""
        if journal.preserve is not Preserve.SNAPSHOT or self._lost:
            return
        if snapshot.is_lost(journal.target):
            self._lost = True
            self._say(
                f"snapshot {journal.target} IS LOST: it has overflowed, or is not there any more. What was overwritten on "
                f"{journal.discard} until then cannot be had back; the resync goes on, as only its end is a whole copy."
            )
            return
        device = lower_device(self._config)
        if (danger := snapshot.danger(journal, device, preserve.device_size(device))) is not None:
            command.run(commands.pause_sync(self._config.resource), timeout=_SECONDS, check=False)
            remedy = (
                f"The resync is paused: give it room ('lvextend'), then 'drbdadm resume-sync {self._config.resource}'"
            )
            raise SplitStepFailed(storage=journal.storage, step=Step.RESYNC.value, detail=f"{danger}. {remedy}")

    def save(self, journal_: Journal) -> None:
        journal.write(journal_)

    def clock(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _ask_keeper(self, journal: Journal) -> None:
        try:
            remote.connect(journal.keep, journal.storage, journal.keep)
        except Error as error:
            if not self._told:
                self._told = True
                self._say(
                    f"{journal.keep} could not be asked to connect ({nodes.why_not(error)}). Run there: 'pvedrbdstor split-brain "
                    f"resolve {journal.storage} --keep {journal.keep}'. Waiting for it ..."
                )

    # --- the steps ---

    def _drbd_up(self, journal: Journal) -> None:
        """Which connects it as well."""
        self._may_connect()
        bringup.drbd_up(self._config.resource)

    def _disconnect(self, journal: Journal) -> None:
        command.run(commands.disconnect(self._config.resource), timeout=_SECONDS)

    def _may_connect(self) -> None:
        """Raises SplitRefused where DRBD would choose by itself whose copy to lose, or lose more than this volume, which may have
        been set meanwhile."""
        if (cause := investigate.not_to_connect(self._config)) is not None:
            raise SplitRefused(storage=self._config.id, cause=cause.cause, remedy=cause.remedy)

    def _quiesce(self, journal: Journal) -> None:
        """From here on nothing on this side can write what would not be preserved."""
        down.hold(self._config.id)
        command.run(["sync", "-f", self._config.path], timeout=_SECONDS)
        command.run(["mount", "-o", "remount,ro", self._config.path], timeout=_SECONDS)

    def _copy(self, journal: Journal) -> Journal:
        copied = preserve.copy_files(journal, self._config, self._copied)
        if gone := sorted({*journal.files} - {*copied.files}):
            self._say(f"removed here since the plan was made, and so not copied: {', '.join(gone)}.")
        return copied

    def _down(self, journal: Journal) -> Journal:
        """What was copied from the mount is sealed with the same breath: the unmount itself is the last that may write."""
        copied = journal.seal is None and Step.COPY in journal.done
        entry = mounted_at(self._config.path)
        if copied and (entry is None or "ro" not in entry.options):
            detail = f"{self._config.path} has become writable since its files were copied. Find out who did that"
            raise SplitStepFailed(storage=journal.storage, step=Step.DOWN.value, detail=detail)
        down.take_down(self._config, stop=False)
        return self._seal(journal) if copied else journal

    def _seal(self, journal: Journal) -> Journal:
        now = seal.take(self._config, self._state())
        if not seal.holds(now, now):
            detail = "DRBD does not tell how much it writes ('drbdsetup events2 --now --statistics'), so nobody could notice it"
            raise SplitStepFailed(storage=journal.storage, step=Step.SEAL.value, detail=detail)
        return replace(journal, seal=now)

    def _snapshot(self, journal: Journal) -> None:
        snapshot.make(journal, lower_device(self._config))

    def _image(self, journal: Journal) -> Journal:
        return preserve.copy_device(journal, lower_device(self._config), self._copied, size=self._size())

    def _check(self, journal: Journal) -> Journal:
        """And note, now that DRBD has written its bitmap, which blocks are to be compared at the end, and what is in those that
        this side has changed.

        What was found wrong is not used again: the next run preserves anew.
        """
        try:
            preserve.check(journal, self._copied)
        except SplitStepFailed:
            image = journal.preserve is Preserve.DEVICE
            self.save(replace(journal, done=journal.done - PRESERVING) if image else journal.anew())
            raise
        sure, perhaps = look.blocks(self._config)
        ranges = metadata.merged([*sure, *(perhaps or ())])
        found = None if perhaps is None else evidence.take(lower_device(self._config), ranges, self._copied)
        unwritten = self._sealed(journal, self._state())  # else it is evidence of what was not preserved
        return replace(
            journal, ranges=metadata.merged([*journal.ranges, *ranges]), evidence=found if unwritten else None
        )

    def _recheck(self, journal: Journal) -> Journal:
        """Sealed again if this copy is what was preserved; else it is preserved anew."""
        now = seal.take(self._config, self._state())
        if self._is_as_it_was(journal):
            return replace(journal, seal=now)
        self._say(
            f"this node's copy may have been written since: it is preserved anew; {journal.target} stays where it is."
        )
        return self._anew(journal)

    def _is_as_it_was(self, journal: Journal) -> bool:
        device = lower_device(self._config)
        sure, perhaps = look.blocks(self._config)
        if journal.evidence is not None and perhaps is not None:
            ranges = metadata.merged([*sure, *perhaps])
            if evidence.holds(journal.evidence, device, ranges, self._copied):
                return True
        if journal.preserve is Preserve.FILES:
            return False
        return preserve.differs_from_device(journal, device, self._size(), self._copied) is None

    def _anew(self, journal: Journal) -> Journal:
        """Until that is preserved DRBD must have no order to discard it."""
        if journal.told:
            take_back(self._config)
        return journal.anew()

    def _discard(self, journal: Journal) -> Journal:
        self._may_connect()
        down.hold(self._config.id)
        other = self._keeper(journal)
        if (
            other is not None and other.ids is not None
        ):  # the copy to keep as it is by now: its node may have been restarted
            journal = replace(journal, keeper=other.ids.current)
        self._has_room(journal, other)
        if not self._sealed(journal, self._state()):
            raise SplitStepFailed(
                storage=journal.storage, step=Step.DISCARD.value, detail="this node has just written to its copy"
            )
        command.run(commands.connect_discarding(self._config.resource), timeout=_SECONDS)
        return journal

    def _keeper(self, journal: Journal) -> Side | None:
        """What the node to keep says now; None where it cannot be asked. Raises SplitRefused."""
        try:
            other = remote.side(journal.keep, journal.storage)
        except Error:
            return None
        if other.resolving is not None:
            cause, remedy = investigate.decided_otherwise(journal.storage, journal.keep, other.resolving)
            raise SplitRefused(storage=journal.storage, cause=cause, remedy=remedy)
        return other

    def _has_room(self, journal: Journal, other: Side | None) -> None:
        """A snapshot that was made hours ago may not hold any more what the other node has written until now. Raises SplitRefused."""
        if journal.preserve is not Preserve.SNAPSHOT:
            return
        device = lower_device(self._config)
        sure, perhaps = look.blocks(self._config)
        marked = metadata.merged([*sure, *(perhaps or ()), *(other.blocks if other is not None else ())])
        hints = perhaps is not None and (other is None or other.hint)
        cause = snapshot.too_small(journal, device, preserve.device_size(device), marked, hints=hints)
        if cause is not None:
            remedy = (
                f"Give it room ('lvextend') and run this again, or begin anew: 'pvedrbdstor split-brain resolve {journal.storage} "
                "--start-over', with '--preserve-to DIR' where the volume group has no more"
            )
            raise SplitRefused(storage=journal.storage, cause=cause, remedy=remedy)

    def _connect(self, journal: Journal) -> None:
        self._may_connect()
        command.run(commands.connect(self._config.resource), timeout=_SECONDS)

    def _compare(self, journal: Journal) -> Journal:
        return replace(journal, compared=verify.compare(self._config, journal, self._say))

    def _state(self) -> State:
        return look.drbd_state(self._config.resource)

    def _size(self) -> int:
        """Of DRBD's data in bytes, without its metadata. Raises CommandFailed where nobody can tell."""
        if (size := look.data_size(self._config)) is None:
            raise CommandFailed(
                command="drbdmeta dump-md", status="no exit status", output="it tells no size of the data"
            )
        return size


_ACTIONS: dict[Step, Callable[[NodeHands, Journal], Journal | None]] = {
    Step.DRBD_UP: NodeHands._drbd_up,
    Step.DISCONNECT: NodeHands._disconnect,
    Step.QUIESCE: NodeHands._quiesce,
    Step.COPY: NodeHands._copy,
    Step.DOWN: NodeHands._down,
    Step.SEAL: NodeHands._seal,
    Step.SNAPSHOT: NodeHands._snapshot,
    Step.IMAGE: NodeHands._image,
    Step.CHECK: NodeHands._check,
    Step.RECHECK: NodeHands._recheck,
    Step.ANEW: NodeHands._anew,
    Step.DISCARD: NodeHands._discard,
    Step.CONNECT: NodeHands._connect,
    Step.COMPARE: NodeHands._compare,
}


def take_back(config: StorageConfig) -> None:
    """DRBD would discard this copy as soon as the other node comes, and 9 does not forget that by a disconnect: only by being
    taken down. Where the two have met already there is nothing to take back. Raises CommandFailed, CommandTimeout."""
    drbd = drbd_facts(look.drbd_state(config.resource), config.resource, config.volume)
    waits = drbd is not None and any(not peer.connected for peer in drbd.peers)
    if waits and drbd is not None and drbd.role == "Secondary":
        command.run(commands.down(config.resource), timeout=_SECONDS)


def users(path: str) -> tuple[str, ...]:
    """Who uses the mount, and still does after a moment."""
    found: set[str] | None = None
    for attempt in range(_LOOKS):
        if attempt:
            time.sleep(_LOOK_PAUSE)
        now = set(holders.holders(path))
        found = now if found is None else found & now
        if not found:
            return ()
    return tuple(sorted(found or ()))


def lower_device(config: StorageConfig) -> str:
    """What DRBD lies on. Raises CommandFailed, CommandTimeout."""
    line = ["drbdadm", "sh-ll-dev", f"{config.resource}/{config.volume}"]
    words = command.run(line, timeout=_SECONDS).stdout.split()
    if not words:
        raise CommandFailed(command=" ".join(line), status="exit status 0", output="it names no device")
    return words[0]
