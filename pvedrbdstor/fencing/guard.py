"""The guard: one loop that follows corosync and DRBD, answers the fence-peer handlers, and resets the node that must go.

It waits for nothing: corosync is followed in a thread, whose silence is no news; DRBD's state is read from memory.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pvedrbdstor import __version__, files
from pvedrbdstor.fencing import arbiter, corosync_conf, journal, libquorum, paths, residence
from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.calls import Call, Calls, Request
from pvedrbdstor.fencing.constants import DEADLINE_SECONDS, LEAVE_SECONDS
from pvedrbdstor.fencing.core import Asked, Core
from pvedrbdstor.fencing.corosync_conf import Timing
from pvedrbdstor.fencing.journal import Log, Notifier
from pvedrbdstor.fencing.libquorum import Confirmed, Connected, Lost, Word, boot_clock
from pvedrbdstor.fencing.mirrors import Mirrors
from pvedrbdstor.fencing.rules import Answer, Decision, Mirror, Ring

GO_ON, FROZEN = 7, 1
"""Exit statuses of the handler. 7: DRBD takes the peer for outdated and goes on. Never 5, with which both sides would."""
_TICK = 0.1
_ACTIVITY_SECONDS = 0.5
_STATUS_SECONDS = 2.0
_MEMORY_SECONDS = 1.0
_HOUSE_SECONDS = 5.0
_VOTES_SECONDS = 45.0
"""Votes that corosync has not told anew for so long, longer than any change of the membership, are not known."""


@dataclass
class World:
    """What the guard reads and does; replaced in tests."""

    follow: Callable[[Callable[[Word], None]], None] = libquorum.follow
    mirrors: Mirrors = field(default_factory=Mirrors)
    reset: Callable[[], None] = field(default_factory=residence.Reset)
    clock: Callable[[], float] = boot_clock
    keep_files: Callable[[], object] = lambda: None
    folder: str = paths.FOLDER
    corosync_conf: str = paths.COROSYNC_CONF


class Guard:
    def __init__(self, log: Log, world: World | None = None) -> None:
        self._world = world or World()
        self._log = log
        self._notifier = Notifier()
        now = self._world.clock()
        folder = self._world.folder
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self._lock = files.lock(f"{folder}/lock")
        self._memory, self._status = f"{folder}/outages.json", f"{folder}/status.json"
        outages, looked = journal.remembered(now, self._memory)
        self._core = Core(now, remembered=outages, looked=looked)
        self._calls = Calls(f"{folder}/guard.sock")
        self._words: queue.SimpleQueue[Word | corosync_conf.CorosyncConf | None] = queue.SimpleQueue()
        self._activity = residence.Activity()
        self._conf: corosync_conf.CorosyncConf | None = None
        self._votes: Votes | None = None
        self._timing: Timing | None = None
        self._heard_at = now
        self._corosync_ran = False
        self._written: object = None
        self._problems: tuple[arbiter.Problem, ...] = ()
        self._mirrors: Mapping[str, Mirror] = {}
        self._said: dict[str, str] = {}
        self._due = dict.fromkeys(("activity", "status", "memory"), now)
        self._stopping = False

    def run(self) -> None:
        """Until SIGTERM. Handlers that wait then find another guard, or none and wait on."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        threading.stack_size(residence.THREAD_STACK)
        for work in (self._follow, self._keep_house):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        self._notifier.tell("READY=1")
        try:
            while not self._stopping:
                self.step(_TICK)
        finally:
            self.close()
            self._world.mirrors.close(self._world.clock())
            for number, handler in previous.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Let go of the socket and the lock."""
        self._calls.close()
        os.close(self._lock)

    def step(self, timeout: float) -> None:
        """Wait so many seconds for a handler at most, then look at everything and do what follows."""
        poll = select.poll()
        poll.register(self._calls.fileno(), select.POLLIN)
        poll.poll(timeout * 1000)
        now = self._world.clock()
        self._hear_corosync()
        self._judge(now)
        mirrors = self._world.mirrors.look(now)
        if mirrors is not None:
            self._mirrors = mirrors
            self._note_outages(now)
        if self._is_due("activity", now, _ACTIVITY_SECONDS):
            self._corosync_ran = self._activity.ran()
            if self._corosync_ran:
                self._core.corosync_ran(now)
        self._calls.read(now)
        for call, request in self._calls.waiting():
            self._decide(now, call, request)
        if self._is_due("status", now, _STATUS_SECONDS):
            self._tell_status(now)

    def _is_due(self, what: str, now: float, every: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + every
        return True

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _follow(self) -> None:
        """Whatever goes wrong in there is a gap, and it is begun anew: a thread that ended would be silence."""
        while not self._stopping:
            try:
                self._world.follow(self._words.put)
            except Exception as error:
                self._words.put(Lost(self._world.clock(), f"following it failed: {type(error).__name__}: {error}"))
            time.sleep(1)

    # --- corosync ---

    def _hear_corosync(self) -> None:
        while True:
            try:
                word = self._words.get_nowait()
            except queue.Empty:
                return
            match word:
                case Ring():
                    self._core.ring(word)
                    members = ", ".join(map(str, sorted(word.members)))
                    self._log.say(
                        f"corosync: {'' if word.quorate else 'not '}quorate, ring {word.seq}, members {members}"
                    )
                case Confirmed():
                    self._votes, self._heard_at = word.votes, word.asked_at
                    self._core.confirmed(word.asked_at, word.quorate, self._is_cast(word.votes))
                case Lost():
                    self._core.gap(word.at, word.why)
                    self._votes = self._timing = None
                    self._log.say(f"corosync: {word.why}", journal.WARNING)
                case Connected():
                    self._core.me = word.me
                    self._activity.of(word.pid)
                case Timing():
                    self._timing = word
                case corosync_conf.CorosyncConf() | None:
                    self._conf = word

    def _is_cast(self, votes: Votes) -> bool:
        """Whether the QDevice, if there is one, casts its vote for this node."""
        return self._conf is None or self._conf.quorum.device is None or Flag.QDEVICE_CAST_VOTE in votes.flags

    def _judge(self, now: float) -> None:
        if now - self._heard_at > _VOTES_SECONDS:
            self._votes = None
        problems = arbiter.problems(self._conf, self._votes)
        if problems != self._problems:
            self._problems = problems
            for problem in problems:
                self._log.say(f"{problem.cause}. {problem.remedy}.", journal.ERROR)
            if not problems:
                self._log.say("corosync's quorum is fit to decide")
        fatal = arbiter.fatal(problems)
        timing = self._timing or (self._conf.timing if self._conf is not None else None)
        leave = LEAVE_SECONDS if timing is None else timing.leave
        self._core.judged(now, fatal.cause if fatal is not None else None, leave)

    def _keep_house(self) -> None:
        """What may wait for the node's own disk, beside the loop and at ordinary priority: corosync.conf (/etc/corosync lies on that
        disk), and the files that are kept in memory, which upgrades replace."""
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        said: object = None
        while not self._stopping:
            conf = corosync_conf.read(self._world.corosync_conf)
            if conf != said or said is None:
                self._words.put(conf)
                said = conf
            self._world.keep_files()
            time.sleep(_HOUSE_SECONDS)

    # --- DRBD ---

    def _note_outages(self, now: float) -> None:
        before = dict(self._core.outages)
        self._core.look(now, self._mirrors)
        for minor in self._core.outages.keys() - before.keys():
            self._log.say(
                f"minor {minor}: I/O is frozen, the other node is lost: {self._mirrors[minor]}", journal.WARNING
            )
        for minor in before.keys() - self._core.outages.keys():
            self._log.say(f"minor {minor}: the outage is over")
            self._said.pop(minor, None)
        if self._core.outages != self._written or (self._core.outages and self._is_due("memory", now, _MEMORY_SECONDS)):
            self._remember(now)

    def _decide(self, now: float, call: Call, request: Request) -> None:
        if request.name == "unfence-peer":
            self._log.say(f"resource {request.resource}: DRBD has taken the other node in again")
            call.answer(0)
            return
        peer = self._peer(request)
        if now - call.since > DEADLINE_SECONDS:
            call.answer(FROZEN)
            return
        decisions = []
        for minor in map(str, request.minors):
            decision = self._core.decide(now, Asked(minor, peer), self._mirrors.get(minor))
            decisions.append(decision)
            if decision.why != self._said.get(minor):
                self._said[minor] = decision.why
                self._log.say(f"resource {request.resource}, minor {minor}: {decision.answer.value}: {decision.why}")
        self._act(now, call, request, decisions)

    def _act(self, now: float, call: Call, request: Request, decisions: list[Decision]) -> None:
        answers = {decision.answer for decision in decisions}
        if Answer.GIVE_WAY in answers:
            self._remember(now)
            self._log.say(f"RESET of this node, for resource {request.resource}", journal.ERROR)
            try:
                self._world.reset()
            except OSError as error:
                self._log.say(f"the reset failed: {error.strerror}", journal.ERROR)
        elif answers <= {Answer.WIN, Answer.GO_ON}:
            fresh = [str(minor) for minor in request.minors if not self._core.outages[str(minor)].won]
            self._core.win(fresh)
            if not self._remember(now):
                self._core.win(fresh, won=False)  # what is not remembered is not done: it is tried again
                return
            self._log.say(f"WIN: resource {request.resource} goes on on this node", journal.WARNING)
            call.answer(GO_ON)
        elif Answer.REFUSE in answers:
            call.answer(FROZEN)

    def _peer(self, request: Request) -> int | None:
        """The other node's id in corosync."""
        return arbiter.peer_of(self._conf, self._core.me, request.peers) if self._conf is not None else None

    # --- what others read ---

    def _remember(self, now: float) -> bool:
        try:
            journal.remember(now, self._core.outages, self._memory)
        except OSError as error:
            self._log.say(f"what was decided cannot be written down: {error.strerror}", journal.ERROR)
            return False
        self._written = dict(self._core.outages)
        return True

    def _tell_status(self, now: float) -> None:
        if not self._deaf(now):
            self._notifier.tell("WATCHDOG=1")
        try:
            journal.write(self._status, self._as_json(now))
        except OSError as error:
            self._log.say(f"the status cannot be written: {error.strerror}", journal.ERROR)

    def _deaf(self, now: float) -> bool:
        """Corosync's process runs and yet has not answered for longer than it may: the thread that asks it hangs. With an outage
        open, starting anew would cost this node its chance."""
        return self._corosync_ran and not self._core.outages and now - self._heard_at > 2 * _VOTES_SECONDS

    def _as_json(self, now: float) -> dict[str, Any]:
        ring, votes = self._core.quorum.current, self._votes
        return {
            "at": now,
            "version": __version__,
            "pid": os.getpid(),
            "quorum": ring and {"quorate": ring.quorate, "ring": ring.seq, "members": sorted(ring.members)},
            "votes": votes
            and {
                "node_id": votes.node_id,
                "expected": votes.expected,
                "highest_expected": votes.highest_expected,
                "total": votes.total,
                "quorum": votes.quorum,
                "flags": int(votes.flags),
            },
            "timing": self._timing and {"token": self._timing.token, "consensus": self._timing.consensus},
            "problems": [problem.code for problem in self._problems],
            "handicap": self._core.handicap(now),
            "outages": {
                minor: {"began": outage.began, "won": outage.won, "said": self._said.get(minor)}
                for minor, outage in self._core.outages.items()
            },
        }
