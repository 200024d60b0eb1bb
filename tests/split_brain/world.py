"""The side to lose in a split brain, as DRBD and the kernel behave, with crashes, reboots and an intruder who writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pvedrbdstor.errors import SplitStepFailed
from pvedrbdstor.fencing.split import seal
from pvedrbdstor.fencing.split.execute import resolve
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Situation
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.steps import Preserve, Step

MINE, THEIRS, BASE = 0x10, 0x20, 0x30
JOURNAL = Journal("ha", "pve1", "pve2", 0.0, MINE, BASE, THEIRS, Preserve.FILES, "/aside/ha-split")
APART = Situation(mounted=True, mount=1, role="Primary", disk="UpToDate", connection="StandAlone", replication="Off")


class Crash(BaseException):
    """The process dies here."""


@dataclass
class World:
    """data: what this side's copy is: "mine" until the resync has begun, "mixed" during it, "theirs" after it. written: how often
    this side has written, which makes another content each time. preserved: content by target. lost: what the resync overwrote.

    events: drawn at each step, before or after its effect: a crash of this command or of the node, a step that fails, and a hand of
    somebody's: an intruder, who brings the storage up and writes, while this command is dead or ("meddle") while it runs; and one
    who has DRBD connect on both nodes ("connect"). nine: DRBD 9, which forgets no order to discard by a disconnect.
    """

    events: Iterator[str | None]
    auto_reconnect: bool
    nine: bool = False
    now: Situation = APART
    data: str = "mine"
    stored: Journal = JOURNAL
    written: int = 0
    preserved: dict[str, str] = field(default_factory=dict)
    lost: str | None = None
    evidence: bool = True
    checked: str | None = None
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
        boot = f"boot-{self.boots}"
        return Seal(boot) if self.now.disk is None else Seal(boot, self.device, self.counted, self.counted)

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
                self.now = replace(now, connection="StandAlone")
                self.discarding = self.discarding and self.nine
            case Step.QUIESCE:
                self.now = replace(now, read_only=True)
            case Step.COPY:
                self._only_if(now.mounted and now.read_only)
                self.preserved[journal.target] = self.content
            case Step.DOWN:
                copied = journal.seal is None and Step.COPY in journal.done
                self._only_if(not copied or now.read_only)
                if now.mounted:
                    self.counted += 1  # the unmount itself writes
                self.now = replace(now, mounted=False, mount=None, read_only=False, role="Secondary")
                if copied:
                    return replace(journal, seal=self._seal())
            case Step.SEAL:
                return replace(journal, seal=self._seal())
            case Step.SNAPSHOT | Step.IMAGE:
                assert not now.mounted and now.role == "Secondary"
                self.preserved[journal.target] = self.content
                return replace(journal, preserve=Preserve.SNAPSHOT if step is Step.SNAPSHOT else Preserve.DEVICE)
            case Step.CHECK:
                sealed = journal.seal is not None and seal.holds(journal.seal, self._seal())
                self.checked = self.content if sealed else None
            case Step.RECHECK:
                assert not now.mounted and now.role == "Secondary"
                if journal.preserve is Preserve.FILES:
                    same = self.evidence and self.checked == self.content
                else:
                    same = self.preserved[journal.target] == self.content
                return replace(journal, seal=self._seal()) if same else self._anew(journal)
            case Step.ANEW:
                return self._anew(journal)
            case Step.DISCARD:
                assert now.connection == "StandAlone" and now.role == "Secondary" and not now.mounted
                self._only_if(journal.seal is not None and seal.holds(journal.seal, self._seal()))
                assert self.preserved[journal.target] == self.content
                self.discarding = True
                self.now = replace(now, connection="Connecting")
                self._meet()
            case Step.CONNECT:
                self.now = replace(now, connection="Connecting")
                self._meet()
            case _:
                assert step is Step.COMPARE and self.data == "theirs"
        return journal

    def _anew(self, journal: Journal) -> Journal:
        """An order to discard is taken back, which only taking DRBD down does on every version."""
        if journal.told and self.now.role == "Secondary" and not self.now.connected:
            self.now, self.discarding = Situation(), False
        return journal.anew()

    def _only_if(self, so: bool) -> None:
        """What a step itself looks at once more, as somebody may have had a hand in it since the plan was made."""
        if not so:
            raise SplitStepFailed(storage="ha", step="this one", detail="somebody meddles")

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
        match next(self.events, None):
            case "kill":
                raise Crash
            case "reboot":
                self.reboot()
                raise Crash
            case "intrude":
                self.intrude()
                raise Crash
            case "fail":
                raise SplitStepFailed(storage="ha", step="this one", detail="it failed")
            case "meddle":
                self.intrude()
            case "connect" if self.now.connection == "StandAlone":
                self.keeper_waits = True
                self.now = replace(self.now, connection="Connecting")
                self._meet()
            case "unplug" if self.now.connected:  # the link breaks, for as long as the keeper needs to come again
                self.now = replace(self.now, connection="Connecting", replication="Off", peer_disk="DUnknown")

    def reboot(self) -> None:
        self.boots += 1
        self.discarding = False
        self.now = Situation()
        if self.auto_reconnect:  # the node's own boot brings DRBD up, which meets the keeper if that waits
            self._attach()

    def intrude(self) -> None:
        """By hand: `drbdadm primary`, a mount, a write, an unmount, `drbdadm secondary`; of what is mounted a remount, a write, and a
        remount again. The promotion makes DRBD forget that it was to discard."""
        if self.data != "mine":
            return
        if self.now.disk is None:
            self._attach()
        if self.now.connected:
            return
        self.written += 1
        self.counted += 4
        self.discarding = False
        if self.now.mounted:
            self.now = replace(self.now, read_only=False)
        elif self.keeper_waits:
            self._meet()

    def run(self) -> None:
        """As an administrator does: the same command again after each crash."""
        for _ in range(60):
            try:
                resolve(self.stored, self)
                return
            except (Crash, SplitStepFailed):
                continue
        raise AssertionError(f"never done: {self.taken}")
