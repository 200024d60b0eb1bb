"""The hands of a resolution: this node's DRBD, mounts and LVM, and the node to keep. Everything that the plan decides is done here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, devices, metadata
from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.drbd.generation_ids import parse
from pvedrbdstor.errors import CommandFailed, Error, SplitStepFailed
from pvedrbdstor.fencing.split import copies, journal, look, preserve, remote, seal, verify
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Situation
from pvedrbdstor.fencing.split.steps import Step
from pvedrbdstor.mirror.bringup import down, holders
from pvedrbdstor.mirror.facts import drbd_facts
from pvedrbdstor.mirror.gather import mounted_at

_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 10.0
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
        self._asked_at = -_ASK_AGAIN_SECONDS
        self._told = False

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
            boot=seal.boot_id(),
            mounted=mounted,
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
        elif self.clock() - self._asked_at >= _ASK_AGAIN_SECONDS:
            self._asked_at = self.clock()
            self._ask_keeper(journal)

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
                    f"{journal.keep} could not be asked to connect ({remote.why_not(error)}). Run there: 'pvedrbdstor split-brain "
                    f"resolve {journal.storage} --keep {journal.keep}'. Waiting for it ..."
                )

    # --- the steps ---

    def _drbd_up(self, journal: Journal) -> None:
        command.run(commands.up(self._config.resource), timeout=_SECONDS)

    def _disconnect(self, journal: Journal) -> None:
        command.run(commands.disconnect(self._config.resource), timeout=_SECONDS)

    def _quiesce(self, journal: Journal) -> None:
        """From here on nothing on this side can write what would not be preserved."""
        down.hold(self._config.id)
        command.run(["sync", "-f", self._config.path], timeout=_SECONDS)
        command.run(["mount", "-o", "remount,ro", self._config.path], timeout=_SECONDS)

    def _copy(self, journal: Journal) -> Journal:
        return preserve.copy_files(journal, self._config, self._copied)

    def _down(self, journal: Journal) -> None:
        down.take_down(self._config, stop=False)

    def _seal(self, journal: Journal) -> Journal:
        return replace(journal, seal=seal.take(self._config, self._state()))

    def _snapshot(self, journal: Journal) -> None:
        preserve.snapshot(journal, lower_device(self._config))

    def _image(self, journal: Journal) -> Journal:
        return preserve.copy_device(journal, lower_device(self._config), self._copied, size=self._size())

    def _check(self, journal: Journal) -> Journal:
        """And note, now that DRBD has written its bitmap, which blocks are to be compared at the end.

        What was found wrong is not used again: the next run preserves anew.
        """
        try:
            preserve.check(journal, self._copied)
        except SplitStepFailed:
            self.save(journal.anew())
            raise
        sure, perhaps = look.blocks(self._config)
        return replace(journal, ranges=metadata.merged([*journal.ranges, *sure, *(perhaps or ())]))

    def _recheck(self, journal: Journal) -> Journal:
        """Sealed again if what was preserved is what is to be discarded; else it is preserved anew."""
        now = seal.take(self._config, self._state())
        differs = preserve.differs_from_device(journal, lower_device(self._config), self._size(), self._copied)
        if differs is None:
            return replace(journal, seal=now)
        self._say(f"{differs}. It is preserved once more; {journal.target} stays where it is.")
        return journal.anew()

    def _anew(self, journal: Journal) -> Journal:
        return journal.anew()

    def _discard(self, journal: Journal) -> Journal:
        down.hold(self._config.id)
        if not self._sealed(journal, self._state()):
            raise SplitStepFailed(
                storage=journal.storage, step=Step.DISCARD.value, detail="this node has just written to its copy"
            )
        command.run(commands.connect_discarding(self._config.resource), timeout=_SECONDS)
        return replace(journal, discarded_boot=seal.boot_id())

    def _connect(self, journal: Journal) -> None:
        command.run(commands.connect(self._config.resource), timeout=_SECONDS)

    def _compare(self, journal: Journal) -> None:
        verify.compare(self._config, journal, self._say)

    def _state(self) -> State:
        return look.drbd_state(self._config.resource)

    def _size(self) -> int:
        """Of DRBD's data in bytes, without its metadata."""
        minor = self._state().minor_of(self._config.resource, self._config.volume)
        with open(f"/sys/block/drbd{minor}/size", encoding="ascii") as file:
            return int(file.read()) * 512


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
