"""One comparison from beginning to end on the leading node: who the peer is, what is compared, what is kept where it is interrupted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from pvedrbdstor import command, files, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import CommandFailed, CommandTimeout, VerifyRefused, VerifyStopped
from pvedrbdstor.verify import hello, kernel, priority, rejoined, resume
from pvedrbdstor.verify.allocation import Places
from pvedrbdstor.verify.asked import in_use, one_byte_of_each
from pvedrbdstor.verify.copy import LocalCopy
from pvedrbdstor.verify.hello import Hello
from pvedrbdstor.verify.lead import UNIT, Findings, Leader
from pvedrbdstor.verify.link import ALIVE_SECONDS, Link
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.pair import Interrupted, Pair
from pvedrbdstor.verify.plan import Mode, Plan, found_surely, ranges_of, sample, whole_blocks
from pvedrbdstor.verify.report import Outcome
from pvedrbdstor.verify.resume import Saved
from pvedrbdstor.verify.settle import Settling
from pvedrbdstor.verify.state import VERIFY_STATES

_TOOL_SECONDS = 10.0
_KEEP_SECONDS = 60.0
"""After which it is kept how far it is, for whatever ends it without asking."""
_GOES_ON = (
    "it was interrupted. DRBD's verify goes on by itself: 'pvedrbdstor verify {} --mode kernel' follows it again. With DRBD 8.4 nothing but its "
    "end, or a disconnect, stops it; do not disconnect while both nodes are Primary: that is a split brain."
)


@dataclass(frozen=True)
class Asked:
    """What the command line wants. granularity: bytes."""

    mode: Mode = Mode.SAMPLE
    granularity: int = 65536
    fraction: float = 0.01
    pace: Pace = field(default_factory=Pace)
    resume: bool = False


@dataclass(frozen=True)
class Watcher:
    """Who looks on. progress: bytes compared, of how many. say: what is done next. stop: whether it is to end."""

    progress: Callable[[int, int], None] = lambda done, total: None
    say: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False


def run(config: StorageConfig, asked: Asked, watcher: Watcher) -> tuple[Outcome, bool]:
    """The outcome, and whether it was interrupted. Raises VerifyRefused, CommandFailed, CommandTimeout, OSError."""
    verifying = asked.mode is Mode.KERNEL and not asked.resume
    with _only_one(config.id), LocalCopy(config, verifying=verifying) as here:
        marked = here.check().out_of_sync or 0
        other = other_node(config, here.node)
        line = nodes.line(other, ["verify", "--serve", config.id], alive=ALIVE_SECONDS)
        saved = _saved(config, asked, here.hello, watcher.say)
        listed = rejoined.lists(config, here.node, other) if saved.mode == Mode.REJOIN.value else None
        if listed is not None:
            saved = replace(saved, remarks=listed.short, much=saved.much or bool(listed.short))
        job = _Job(here, other, line, saved, watcher, marked, listed.ranges if listed is not None else ())
        if verifying:
            outcome, interrupted = job.run_with_the_kernel(asked.pace)
        else:
            outcome, interrupted = job.run(asked.pace)
        if listed is not None:
            outcome = replace(outcome, parted=listed.parted, met=listed.met, to_compare=job.to_compare)
            if outcome.stopped is None or outcome.diverged:
                rejoined.compared(config, other, listed, here.node, outcome.verdict, whole=outcome.stopped is None)
        return replace(outcome, verify_alg=here.hello.verify_alg is not None, minor=here.minor), interrupted


def told(outcome: Outcome) -> None:
    """Its report is out: what came to its end is not gone on with. Raises OSError."""
    if outcome.stopped is None:
        resume.remove(outcome.storage, outcome.began)


class _Job:
    """line: what runs the other side. saved: where to begin. marked: KiB that DRBD calls out of sync before. listed: what is compared, where
    that is a list."""

    def __init__(
        self,
        here: LocalCopy,
        other: str,
        line: Sequence[str],
        saved: Saved,
        watcher: Watcher,
        marked: int,
        listed: Sequence[Range] = (),
    ) -> None:
        self._listed = listed
        self._resumed = saved.seconds > 0
        self._here, self._other, self._line, self._watcher, self._marked = here, other, line, watcher, marked
        self._own, self._config = here.hello, here.storage
        self._began = self._kept = time.monotonic()
        self._plan = Plan(saved.size, saved.granularity, ())
        self._begin_at(saved)

    def _begin_at(self, saved: Saved) -> None:
        """What had a verdict then is looked at again with the rest: it may have been mended since."""
        self._saved = saved
        suspects = [*saved.pending, *saved.diverged, *saved.unreadable_here, *saved.unreadable_there]
        self._findings = Findings(
            saved.at, saved.compared, list(merged(suspects)), Settling(self._own.patience), saved.much
        )

    @property
    def to_compare(self) -> int:
        """Bytes, of whole blocks."""
        return self._plan.total

    def run_with_the_kernel(self, pace: Pace) -> tuple[Outcome, bool]:
        """DRBD's verify first, then our own looks at what that has found."""
        size, watcher = self._own.size, self._watcher
        if self._here.state().replication not in VERIFY_STATES:
            with Link(self._line, self._saved.storage, self._other) as there:
                there.greet(self._own)  # better now than after the hours that a verify takes
        try:
            found = kernel.follow(self._here, watcher.progress, watcher.say, watcher.stop)
        except VerifyStopped as error:
            return self._outcome(_why(error), resumable=False), False
        except Interrupted:
            return self._outcome(_GOES_ON.format(self._saved.storage), resumable=False), True
        self._begin_at(
            replace(self._saved, at=size, compared=size, pending=found.ranges, much=found.cut, remarks=found.remarks)
        )
        return self.run(pace)

    def run(self, pace: Pace) -> tuple[Outcome, bool]:
        watcher, stopped, interrupted = self._watcher, None, False
        self._plan = _plan(self._config, self._here, self._saved, self._listed)
        with Link(self._line, self._saved.storage, self._other) as there:
            self._findings.settling.patience = hello.longest_patience(self._own, there.greet(self._own))
            there.prioritise(priority.own())
            try:
                with Pair(self._here, there, self._own, self._saved.storage, watcher.stop) as pair:
                    Leader(pair, self._plan, self._findings, pace, self._advance, watcher.say).run()
            except VerifyStopped as error:
                stopped = _why(error)
            except (CommandFailed, CommandTimeout) as error:
                stopped = error.message
            except OSError as error:
                stopped = f"{self._here.path} cannot be read ({error.strerror or error}). Look at 'dmesg'."
            except Interrupted:
                stopped, interrupted = "it was interrupted.", True
        if stopped is not None:
            return self._outcome(stopped, resumable=self._keep()), interrupted
        self._keep()  # until told()
        return self._outcome(None, resumable=False), interrupted

    def _advance(self, done: int, total: int) -> None:
        """Between two slices: nothing is half known then."""
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self._keep()
        self._watcher.progress(done, total)

    def _keep(self) -> bool:
        """Where it is, for --resume; whether that could be written. What was found is worth more than that."""
        self._kept = time.monotonic()
        try:
            resume.write(self._now())
        except OSError as error:
            path = resume.path(self._saved.storage)
            self._watcher.say(f"--resume will not work: {path} cannot be written ({error.strerror}).")
            return False
        return True

    @property
    def _seconds(self) -> float:
        return self._saved.seconds + time.monotonic() - self._began

    def _now(self) -> Saved:
        found = self._findings
        return replace(
            self._saved,
            seconds=self._seconds,
            at=found.at,
            compared=found.compared,
            much=found.much,
            pending=merged([*found.pending(self._saved.size), *self._ranges(found.settling.unsettled)]),
            diverged=self._ranges(found.settling.diverged),
            unreadable_here=self._ranges(found.settling.unreadable_here),
            unreadable_there=self._ranges(found.settling.unreadable_there),
        )

    def _outcome(self, stopped: str | None, *, resumable: bool) -> Outcome:
        saved, found = self._saved, self._findings
        return Outcome(
            storage=saved.storage,
            mode=saved.mode,
            here=self._own.node,
            there=self._other,
            size=saved.size,
            granularity=saved.granularity,
            compared=found.compared,
            began=saved.began,
            seconds=self._seconds,
            diverged=self._ranges(found.settling.diverged),
            unsettled=self._ranges(found.settling.unsettled),
            unreadable_here=self._ranges(found.settling.unreadable_here),
            unreadable_there=self._ranges(found.settling.unreadable_there),
            stopped=stopped,
            much=found.much,
            surely=found_surely(self._plan.picked) if self._plan.picked is not None else None,
            seed=self._plan.picked.seed if self._plan.picked is not None else None,
            marked=self._marked,
            resumable=resumable,
            remarks=saved.remarks,
            resumed=self._resumed,
        )

    def _ranges(self, blocks: set[int]) -> tuple[tuple[int, int], ...]:
        return ranges_of(blocks, UNIT, self._saved.size)


def _why(error: VerifyStopped) -> str:
    return f"{error.fields['cause']}. {error.fields['remedy']}."


def other_node(config: StorageConfig, own: str) -> str:
    """The one other node of the mirror, by DRBD's configuration. Raises VerifyRefused, CommandFailed, CommandTimeout."""
    dump = command.run(commands.dump(config.resource), timeout=_TOOL_SECONDS).stdout
    found = nodes.other_nodes(dump, config.resource, config.volume, own)
    if len(found) != 1:
        told = f"it names {', '.join(found)}" if found else f"it names no host beside {own}"
        raise VerifyRefused(
            storage=config.id,
            cause=f"DRBD's configuration of {config.resource} does not tell which node to compare with: {told}",
            remedy=f"Look at 'drbdadm dump {config.resource}'",
        )
    return found[0]


def _saved(config: StorageConfig, asked: Asked, own: Hello, say: Callable[[str], None]) -> Saved:
    """Where to begin: where the last one was, with --resume, else at the start."""
    if not asked.resume:
        seed = random.SystemRandom().randrange(1 << 32)
        beside = one_byte_of_each(config, random.Random(seed)) if asked.mode is Mode.SAMPLE else Places(())  # noqa: S311
        if beside.failed:
            say(f"{beside.failed} files or folders could not be looked into: of them only chance compares anything")
        return Saved(
            storage=config.id,
            size=own.size,
            uuid=own.uuid,
            mode=asked.mode.value,
            granularity=asked.granularity,
            fraction=asked.fraction,
            seed=seed,
            began=time.time(),
            seconds=0.0,
            at=0,
            compared=0,
            generation=own.generation,
            beside=tuple(sorted({byte // asked.granularity * asked.granularity for byte in beside.at})),
        )
    found = resume.read(config.id)
    if found is None:
        cause: str | None = "no comparison of it was interrupted"
    else:
        cause = resume.misfit(found, own.size, own.uuid, own.generation, time.time())
    if found is None or cause is not None:
        raise VerifyRefused(storage=config.id, cause=cause, remedy="Run it without --resume")
    return found


def _plan(config: StorageConfig, here: LocalCopy, saved: Saved, listed: Sequence[Range]) -> Plan:
    size, granularity = saved.size, saved.granularity
    match Mode(saved.mode):
        case Mode.SAMPLE:
            return Plan(size, granularity, picked=sample(size, granularity, saved.fraction, saved.seed, saved.beside))
        case Mode.ALLOCATED:
            return Plan(size, granularity, whole_blocks(in_use(config, here.path), granularity, size))
        case Mode.REJOIN:
            return Plan(size, granularity, whole_blocks(listed, granularity, size))
        case Mode.KERNEL:  # what DRBD has found is looked at, no more
            return Plan(size, granularity, ())
    return Plan(size, granularity)


@contextmanager
def _only_one(storage: str) -> Iterator[None]:
    """One comparison of a storage at a time on this node. Raises VerifyRefused, OSError."""
    with ExitStack() as held:
        try:
            held.enter_context(files.only_one(f"{resume.FOLDER}/{storage}.lock"))
        except files.Held as error:
            raise VerifyRefused(
                storage=storage,
                cause=f"another 'pvedrbdstor verify {storage}' runs on this node (process {error.pid})",
                remedy=f"Wait for it, or look for its terminal: 'ps -f -p {error.pid}'",
            ) from error
        yield
