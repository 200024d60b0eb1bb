"""The monitor: one process, one loop over everything that tells something, none of which it ever waits for."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from pvedrbdstor import files
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.history import History
from pvedrbdstor.drbd.stream import Stream
from pvedrbdstor.errors import SystemCallFailed
from pvedrbdstor.mirror import gather, helper, vendor
from pvedrbdstor.mirror.gather import Settings
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.live import storages, view
from pvedrbdstor.mirror.live.devices import Devices
from pvedrbdstor.mirror.live.knowledge import Knowledge
from pvedrbdstor.mirror.live.watch import DrbdSide, Watch
from pvedrbdstor.pve.storage_cfg import storage_ids_on

log = logging.getLogger(__name__)

STORAGE_CFG = "/etc/pve/storage.cfg"
CONFIG_SECONDS, STATE_SECONDS, SETTINGS_SECONDS = 2.0, 1.5, 10.0
"""From one reading of storage.cfg, one look at DRBD's state and at its settings to the next."""
SETTINGS_STALE_SECONDS = 60.0
"""Settings that DRBD's tools have not confirmed for so long are not known."""
_TICK = 0.5
_PATIENCE = 10.0  # seconds for first answers, before it is said that nothing is known
_LOCK = ".lock"


@dataclass
class Question:
    """Something asked again and again. every: seconds from one question to the next."""

    helper: Helper
    every: float
    due: float = 0.0
    asked_at: float = 0.0

    def ask(self, now: float) -> None:
        if now >= self.due and self.helper.ask():
            self.asked_at, self.due = now, now + self.every

    def soon(self, now: float) -> None:
        """Ask again as soon as it is free: something has changed."""
        self.due = min(self.due, now)


@dataclass
class Questions:
    """Everything that is asked of other processes, whatever it hangs in. Replaced in tests."""

    config: Callable[[object], object] = field(default_factory=lambda: storages.read_text(STORAGE_CFG))
    state: Callable[[object], object] = gather.ask_state
    settings: Callable[[object], object] = gather.ask_settings
    mount: Callable[[Mapping[str, object]], object] = gather.ask_mount
    vendor_units: Callable[[object], object] = vendor.ask_to_follow


class Monitor:
    """folder: where the views go. node: this node's name, as `nodes` in storage.cfg has it."""

    def __init__(self, folder: str = view.FOLDER, node: str | None = None, questions: Questions | None = None) -> None:
        self._folder = folder
        self._node = node or os.uname().nodename.partition(".")[0]
        questions = questions or Questions()
        clock = view.boot_clock
        self._config = Question(Helper(questions.config, clock), every=CONFIG_SECONDS)
        self._state = Question(Helper(questions.state, clock), every=STATE_SECONDS)
        self._settings = Question(Helper(questions.settings, clock), every=SETTINGS_SECONDS)
        self._vendor_units = Helper(questions.vendor_units, clock)
        self._any_storage: bool | None = None
        self._followed: bool | None = None
        self._ask_mount = questions.mount
        self._stream = Stream()
        self._devices = Devices()
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._watches: dict[str, Watch] = {}
        self._text: str | None = None
        self._knowledge: Knowledge | None = None
        self._proc: str | None = None
        self._known_settings: Settings | None = None
        self._settings_at = 0.0
        self._began = view.boot_clock()
        self._stopping = False

    def run(self, orphaned: Callable[[], bool] = lambda: False) -> None:
        """Until SIGTERM or SIGINT, or until ``orphaned`` says so. Raises SystemCallFailed where a monitor runs."""
        with _only_one(self._folder):
            previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                while not self._stopping and not orphaned():
                    self.step(_TICK)
            finally:
                self.close()
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def step(self, timeout: float) -> None:
        """Wait at most so many seconds for word from anywhere, then bring every view up to date."""
        now = view.boot_clock()
        self._ask(now)
        ready = self._wait(timeout)
        now = view.boot_clock()
        self._hear_configuration(now)
        self._follow()
        self._hear_drbd(now)
        if self._devices.fileno() in ready and self._devices.changed():
            self._something_changed(now)
        if self._mounts in ready:
            self._something_changed(now)
        for watch in self._watches.values():
            watch.look()
        if self._knowledge is not None and self._ready(self._knowledge, now):
            side = DrbdSide(self._knowledge, self._proc, self._known_settings or Settings())
            for watch in self._watches.values():
                watch.update(side, now)
        helper.reap()

    def close(self) -> None:
        """End all that this process started; what hangs is left behind. The views stay, and grow old."""
        self._stream.stop(view.boot_clock())
        for used in (
            self._vendor_units,
            *(question.helper for question in (self._config, self._state, self._settings)),
        ):
            used.close()
        for watch in self._watches.values():
            watch.close()
        os.close(self._mounts)

    def _ready(self, knowledge: Knowledge, now: float) -> bool:
        """A monitor that has just begun does not say `unknown` of what it has only just asked."""
        return (knowledge.begun and self._known_settings is not None) or now - self._began > _PATIENCE

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _ask(self, now: float) -> None:
        self._config.ask(now)
        self._state.ask(now)
        self._settings.ask(now)
        for watch in self._watches.values():
            watch.probe(now)
        if self._knowledge is not None and self._proc is not None and self._stream.start(now):
            self._knowledge.stream_started(now)

    def _wait(self, timeout: float) -> set[int]:
        """The descriptors that have something."""
        poll = select.poll()
        for fd in (
            self._stream.fileno(),
            self._devices.fileno(),
            *(question.helper.fileno() for question in (self._config, self._state, self._settings)),
            *(watch.prober.fileno() for watch in self._watches.values()),
        ):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        poll.register(self._mounts, select.POLLPRI)  # a change of the table (proc_pid_mountinfo(5))
        return {fd for fd, _ in poll.poll(timeout * 1000)}

    def _something_changed(self, now: float) -> None:
        self._state.soon(now)
        for watch in self._watches.values():
            watch.probe(now, at_once=True)

    # --- storage.cfg ---

    def _hear_configuration(self, now: float) -> None:
        """A file that cannot be read changes nothing: pmxcfs may be restarting."""
        answer = self._config.helper.answer()
        text = answer.get("text") if isinstance(answer, dict) else None
        if text is None or text == self._text:
            return
        self._text = text
        self._any_storage = bool(storage_ids_on(text, self._node))
        wanted = storages.watched(text, self._node)
        for storage_id, watch in list(self._watches.items()):
            if wanted.get(storage_id) != watch.config:
                watch.close()
                del self._watches[storage_id]
                if storage_id not in wanted:
                    view.remove_view(storage_id, self._folder)
        if self._knowledge is None:
            self._knowledge = Knowledge(_history_from(wanted, now, self._folder))
        for storage_id, config in wanted.items():
            if storage_id not in self._watches:
                self._watches[storage_id] = Watch(config, now, self._folder, self._ask_mount)

    def _follow(self) -> None:
        """The first storage of this node came, or its last one went, perhaps by another node's doing."""
        self._vendor_units.answer()
        if self._any_storage != self._followed and self._vendor_units.ask():
            self._followed = self._any_storage

    # --- DRBD ---

    def _hear_drbd(self, now: float) -> None:
        settings = self._settings.helper.answer()
        if settings is not None:
            self._known_settings, self._settings_at = gather.settings_of(settings), now
        elif self._known_settings is not None and now - self._settings_at > SETTINGS_STALE_SECONDS:
            self._known_settings = Settings()
        state = self._state.helper.answer()
        if self._knowledge is None:
            return
        if self._stream.running:
            self._hear_stream(self._knowledge, now)
        if state is not None:
            self._hear_state(self._knowledge, state, now)

    def _hear_stream(self, knowledge: Knowledge, now: float) -> None:
        lines = self._stream.lines(now)
        if lines is None:
            log.warning("DRBD's stream of events has ended; it is started anew")
            knowledge.stream_ended(now)
        elif knowledge.stream_said(lines, now):
            self._state.soon(now)
            self._settings.soon(now)

    def _hear_state(self, knowledge: Knowledge, state: dict[str, Any], now: float) -> None:
        if "error" in state:
            return
        self._proc = state.get("proc")
        if self._proc is None:
            self._stream.stop(now)
            knowledge.module_missing(now)
        elif not knowledge.looked(state.get("now"), self._state.asked_at, now):
            log.warning("DRBD's stream of events has stalled; it is started anew")
            self._stream.stop(now)


def _history_from(wanted: Mapping[str, StorageConfig], now: float, folder: str) -> History:
    """What the last monitor knew of lost peers: the newest of the views."""
    records = [view.read_record(storage_id, folder) for storage_id in wanted]
    dated = [record for record in records if isinstance(record.get("at"), int | float) and record["at"] <= now]
    newest = max(dated, key=lambda record: float(record["at"]), default=None)
    if newest is None:
        return History()
    return History.from_json(newest.get("losses"), now - float(newest["at"]))


@contextmanager
def _only_one(folder: str) -> Iterator[None]:
    """Hold the monitor's lock in its folder, which is made. Raises SystemCallFailed where another has it."""
    path = f"{folder}/{_LOCK}"
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        fd = files.lock(path)
    except files.Held as error:
        remedy = "It is the service's: 'systemctl status pvedrbdstor'"
        raise _failed(path, "another monitor runs", remedy) from error
    except OSError as error:
        raise _failed(path, error.strerror or "", "Look at the folder") from error
    try:
        yield
    finally:
        os.close(fd)


def _failed(path: str, reason: str, remedy: str) -> SystemCallFailed:
    return SystemCallFailed(operation="Locking", path=path, reason=reason, remedy=remedy)
