"""The side to lose in a split brain, as DRBD and the kernel behave, with crashes, reboots and an intruder who writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pvedrbdstor.fencing.split import seal
from pvedrbdstor.fencing.split.execute import resolve
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Situation
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.steps import Preserve, Step

MINE, THEIRS, BASE = 0x10, 0x20, 0x30
JOURNAL = Journal("ha", "pve1", "pve2", 0.0, MINE, BASE, THEIRS, Preserve.FILES, "/aside/ha-split")
APART = Situation(
    boot="boot-1", mounted=True, role="Primary", disk="UpToDate", connection="StandAlone", replication="Off"
)


class Crash(BaseException):
    """The process dies here."""


@dataclass
class World:
    """data: what this side's copy is: "mine" until the resync has begun, "mixed" during it, "theirs" after it. written: how often
    this side has written, which makes another content each time. preserved: content by target. lost: what the resync overwrote.

    crashes: drawn at each step, before or after its effect. A hand of somebody's, an intruder, brings the storage up and writes.
    """

    crashes: Iterator[str | None]
    auto_reconnect: bool
    now: Situation = APART
    data: str = "mine"
    stored: Journal = JOURNAL
    written: int = 0
    preserved: dict[str, str] = field(default_factory=dict)
    lost: str | None = None
    discarding: bool = False
    keeper_waits: bool = False
    keeper_comes: bool = True
    boots: int = 1
    device: int = 1
    counted: int = 0
    taken: list[Step] = field(default_factory=list)
    time: float = 0.0

    @property
    def content(self) -> str:
        return f"mine {self.written}"

    def look(self, journal: Journal) -> Situation:
        there = journal.target in self.preserved
        sealed = journal.seal is not None and seal.holds(journal.seal, self._seal())
        ids = {"mine": (MINE, BASE), "mixed": (1, 0), "theirs": (THEIRS, 0)}[self.data]
        known = frozenset({*ids, BASE})
        return replace(self.now, preserved=there, sealed=sealed, current=ids[0], bitmap=ids[1], known=known)

    def _seal(self) -> Seal:
        return Seal(self.now.boot) if self.now.disk is None else Seal(self.now.boot, self.device, self.counted)

    def save(self, journal: Journal) -> None:
        self.stored = journal
        self._maybe()

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def wait(self, step: Step, journal: Journal, now: Situation) -> None:
        self._maybe()
        if step is Step.KEEPER:
            self.keeper_waits = self.keeper_comes
            self._meet()
        else:
            self.data = "theirs"
            self.now = replace(self.now, replication="Established", disk="UpToDate", peer_disk="UpToDate")

    def act(self, step: Step, journal: Journal) -> Journal:
        self._maybe()
        self.taken.append(step)
        changed = self._effect(step, journal)
        self._maybe()
        return changed

    def _effect(self, step: Step, journal: Journal) -> Journal:
        now = self.now
        match step:
            case Step.DRBD_UP:
                self._attach()
            case Step.DISCONNECT:
                self.now, self.discarding = replace(now, connection="StandAlone"), False
            case Step.QUIESCE:
                self.now = replace(now, read_only=True)
            case Step.COPY:
                assert now.mounted and now.read_only
                self.preserved[journal.target] = self.content
            case Step.DOWN:
                if now.mounted:
                    self.counted += 1  # the unmount itself writes
                self.now = replace(now, mounted=False, read_only=False, role="Secondary")
            case Step.SEAL:
                return replace(journal, seal=self._seal())
            case Step.SNAPSHOT | Step.IMAGE:
                assert not now.mounted and now.role == "Secondary"
                self.preserved[journal.target] = self.content
                return replace(journal, preserve=Preserve.SNAPSHOT if step is Step.SNAPSHOT else Preserve.DEVICE)
            case Step.RECHECK:
                assert journal.preserve is not Preserve.FILES and not now.mounted
                if self.preserved[journal.target] != self.content:
                    return journal.anew()
                return replace(journal, seal=self._seal())
            case Step.ANEW:
                return journal.anew()
            case Step.DISCARD:
                assert now.connection == "StandAlone" and now.role == "Secondary" and not now.mounted
                assert self.preserved[journal.target] == self.content
                self.discarding = True
                self.now = replace(now, connection="Connecting")
                self._meet()
                return replace(journal, discarded_boot=now.boot)
            case Step.CONNECT:
                self.now = replace(now, connection="Connecting")
                self._meet()
            case _:
                assert step in (Step.CHECK, Step.COMPARE)
        return journal

    def _attach(self) -> None:
        self.device += 1
        self.counted = 0
        disk = "Inconsistent" if self.data == "mixed" else "UpToDate"
        self.now = replace(self.now, disk=disk, role="Secondary", connection="Connecting", replication="Off")
        self._meet()

    def _meet(self) -> None:
        """Both connect: without anybody's word a split brain is found, and this side gives up."""
        if not self.keeper_waits:
            return
        if self.data != "mine" or (self.discarding and self.now.role == "Secondary"):
            if self.data == "mine":
                self.lost = self.content
                assert self.preserved.get(self.stored.target) == self.lost, "discarded what was not preserved"
                self.data = "mixed"
            disk = "UpToDate" if self.data == "theirs" else "Inconsistent"
            replication = "Established" if self.data == "theirs" else "SyncTarget"
            self.now = replace(
                self.now, connection="Connected", replication=replication, disk=disk, peer_disk="UpToDate"
            )
            self.discarding = False
        else:
            self.now = replace(self.now, connection="StandAlone", replication="Off")
            self.keeper_waits = False  # it has given up as well

    def _maybe(self) -> None:
        match next(self.crashes, None):
            case "kill":
                raise Crash
            case "reboot":
                self.reboot()
                raise Crash
            case "intrude":
                self.intrude()
                raise Crash

    def reboot(self) -> None:
        self.boots += 1
        self.discarding = False
        self.now = Situation(boot=f"boot-{self.boots}")
        if self.auto_reconnect:  # the node's own boot brings DRBD up, which meets the keeper if that waits
            self._attach()

    def intrude(self, *, force: bool = False) -> None:
        """By hand: `drbdadm primary`, a mount, a write, an unmount, `drbdadm secondary`; also by a remount of what was read-only.

        Not while DRBD itself waits to discard this copy: nothing of ours runs then that could keep the two from meeting.
        """
        if self.data != "mine" or (self.discarding and not force):
            return
        if self.now.disk is None:
            self._attach()
        if self.now.connected:
            return
        self.written += 1
        self.counted += 4
        if self.now.mounted:
            self.now = replace(self.now, read_only=False)

    def run(self) -> None:
        """As an administrator does: the same command again after each crash."""
        for _ in range(60):
            try:
                resolve(self.stored, self)
                return
            except Crash:
                continue
        raise AssertionError(f"never done: {self.taken}")
