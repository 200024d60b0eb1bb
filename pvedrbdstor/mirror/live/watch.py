"""One storage under watch: its mount is probed, its verdict computed, told and written down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror import gather
from pvedrbdstor.mirror.facts import Mount
from pvedrbdstor.mirror.gather import Probe, Settings
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.live import in_use, peer_off, view
from pvedrbdstor.mirror.live.announce import Announcer
from pvedrbdstor.mirror.live.knowledge import Knowledge
from pvedrbdstor.mirror.live.view import InUse, Record
from pvedrbdstor.mirror.verdict import Verdict, verdict_of

log = logging.getLogger(__name__)

PROBE_SECONDS = 1.0
"""Between two probes of a mount that answers."""
SILENT_SECONDS = 6.0
"""A mount that does not answer for so long counts as frozen. OCFS2's statfs waits for a lock that the other node may
hold until its journal is written, every 5 s: that alone must not take a storage away."""
NOTICED_SECONDS = 60.0
"""By now DRBD has missed a peer that is off: 2 x ping-int + ping-timeout, 20.5 s with its defaults."""

Ask = Callable[[Mapping[str, object]], object]


@dataclass(frozen=True, slots=True)
class DrbdSide:
    """What is known beside the mount, of all storages at once."""

    knowledge: Knowledge
    proc: str | None
    settings: Settings


class Watch:
    """now: seconds of the boot clock. folder: where the view goes. ask_mount: what probes, in a process of its own."""

    def __init__(self, config: StorageConfig, now: float, folder: str, ask_mount: Ask = gather.ask_mount) -> None:
        before = view.read_view(config.id, folder)
        self.config = config
        self._folder = folder
        self.prober = Helper(ask_mount, view.boot_clock)
        self._probe: Probe | None = None
        self._probe_at = now
        same = before.describes(config)
        self._announcer = Announcer(config.id, before.last if same else None)
        self._in_use = before.in_use if same else InUse()
        self._since = now
        self._written: tuple[object, ...] = ()
        self._written_at: float | None = None
        self._unwritable = False
        self._apart = False

    def probe(self, now: float, *, at_once: bool = False) -> None:
        """Ask the mount when it is time to, at once when it is free; its answer is taken by look()."""
        if at_once:
            self._probe_at = now
        if self.prober.busy is None and now >= self._probe_at:
            self.prober.ask(gather.as_wire(self.config))
            self._probe_at = now + PROBE_SECONDS

    def look(self) -> bool:
        """Take the prober's answer in; True when there was one."""
        answer = self.prober.answer()
        if answer is None:
            return False
        if "error" in answer:
            log.debug("Storage '%s': %s", self.config.id, answer["error"])
        self._probe = gather.probe_of(answer)
        return True

    def mount(self) -> Mount:
        """What is known of the mount now."""
        busy = self.prober.busy
        if busy is not None and busy > SILENT_SECONDS:
            return gather.silent_mount(self.config.path, busy, self._probe)
        return self._probe.mount if self._probe is not None else Mount(None)

    def update(self, drbd: DrbdSide, now: float) -> None:
        """Compute the verdict; tell of a new one; write it down when it is new, or when it is time to."""
        if self._probe is None and self.mount().mounted is None:
            return  # just begun: the first answer is on its way, or its time is soon over
        knowledge = drbd.knowledge
        facts = gather.facts_of(
            self.config,
            view=knowledge.view(now),
            state=knowledge.state,
            proc=drbd.proc,
            history=knowledge.history,
            now=now,
            settings=drbd.settings,
            mount=self.mount(),
            peer_off=self._peer_is_off(knowledge),
        )
        verdict = verdict_of(facts)
        if self._announcer.changed(verdict, now):
            self._since = now
        self._announcer.notify_settled(verdict, now)
        self._note_guests(verdict)
        self._write(verdict, drbd, now)

    def close(self) -> None:
        self.prober.close()
        self._announcer.close()

    def _peer_is_off(self, knowledge: Knowledge) -> bool:
        """Whether an administrator said so; a new connection takes it back, not one that DRBD has not yet missed."""
        said = peer_off.seconds_since(self.config.id, self._folder)
        if said is None:
            self._apart = False
            return False
        resource = self.config.resource
        if not any(found.resource == resource and found.state == "Connected" for found in knowledge.state.connections):
            self._apart = True
        elif self._apart or said > NOTICED_SECONDS:
            log.info("Storage '%s': the other node is connected, so it is not off", self.config.id)
            peer_off.take_back(self.config.id, self._folder)
            return False
        return True

    def _note_guests(self, verdict: Verdict) -> None:
        """While no new guests are admitted, those that ran when that began stay known: they may be restarted."""
        device = self._probe.device if self._probe is not None else None
        if device is None:
            return
        try:
            found = in_use.look(self.config, device)
        except OSError as error:
            log.warning("Which images are in use cannot be told: %s", error)
            return
        self._in_use = found if verdict.admits else self._in_use | found

    def _write(self, verdict: Verdict, drbd: DrbdSide, now: float) -> None:
        sizes = self._probe.sizes if self._probe is not None else None
        content = (verdict, sizes, self._in_use)
        due = self._written_at is None or now - self._written_at >= view.HEARTBEAT_SECONDS / 2
        if content == self._written and not due:
            return
        losses = drbd.knowledge.history.to_json()
        try:
            view.write_view(
                Record(self.config, verdict, now, self._since, sizes, self._in_use, losses), folder=self._folder
            )
        except OSError as error:
            if not self._unwritable:
                log.error("The view of storage '%s' cannot be written: %s", self.config.id, error)
            self._unwritable = True
            return
        self._unwritable = False
        self._written, self._written_at = content, now
