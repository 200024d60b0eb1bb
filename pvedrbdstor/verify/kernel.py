"""DRBD's own verify of the whole mirror, followed to its end: how far it is, and which blocks it finds different, from the kernel's log.

It compares in the kernel, blocks that are just being written too, so that what it finds has yet to be looked at (verify.lead); and it
marks what it finds, which DRBD then copies after the next disconnection.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pvedrbdstor import command
from pvedrbdstor.drbd import commands, proc_drbd
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import VerifyRefused, VerifyStopped
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.copy import PROC_DRBD, LocalCopy
from pvedrbdstor.verify.pair import Interrupted
from pvedrbdstor.verify.plan import whole_blocks

KMSG = "/dev/kmsg"
SECTOR = 512
_TOOL_SECONDS = 15.0
_PAUSE = 0.3
_REST_SECONDS = 10.0
_RECORD = re.compile(r"^[0-7],\d+,\d+,[^;]*;(.*)")
"""Of the kernel itself: what programs write to /dev/kmsg has a facility, and so a larger first number (devkmsg_write(), printk.c)."""
_OUT_OF_SYNC = re.compile(r"Out of sync: start=([0-9]{1,18}), size=([0-9]{1,12}) \(sectors\)")
_SKIPPED = re.compile(r"Skipped verify, too busy: start=([0-9]{1,18}), size=([0-9]{1,12}) \(sectors\)")
_BEGAN = re.compile(r"(?:conn\( \w+ -> |repl\( \w+ -> )Verify[ST] \)")
_STARTED = re.compile(r"Starting Online Verify from sector ([0-9]{1,18})")
"""On the node that began it alone; the other one's log does not say from where."""
_BROKEN_OFF = re.compile(r"Online Verify reached (?:stop )?sector")
_ENDED = re.compile(r"(?:conn|repl)\( Verify[ST] -> ")
_BLOCK = 4096
"""Of DRBD's bitmap: it counts a part of one as a whole one."""
_RANGES_MAX = 50_000
"""Of which more are not kept: so much differs that nobody needs the list."""
_RECORDS_AT_ONCE = 2000
"""Between two looks at DRBD: 18,000 lines a second have been seen."""


@dataclass
class Lines:
    """What the kernel's log says of one device's verify. skipped: bytes that DRBD 9 left out, as they were busy. lost: lines were overwritten
    before they were read. much: there were too many to keep. start: the sector it began at, None where the log does not tell. short: it was
    broken off, or had a sector to stop at. ended: its end is in the log."""

    minor: int
    ranges: list[Range] = field(default_factory=list)
    skipped: list[Range] = field(default_factory=list)
    lost: bool = False
    much: bool = False
    start: int | None = None
    short: bool = False
    ended: bool = False

    def __post_init__(self) -> None:
        self._name = of_device(self.minor)

    def see(self, text: str) -> None:
        """One line, without its time."""
        name = self._name.match(text)
        if name is None:
            return
        text = text[name.end() :]
        if _BEGAN.match(text):
            self.ranges, self.skipped, self.lost, self.much = [], [], False, False
            self.start, self.short, self.ended = None, False, False
        elif found := _STARTED.match(text):
            self.start = int(found[1])
        elif _BROKEN_OFF.match(text):
            self.short = True
        elif _ENDED.match(text):
            self.ended = True
        elif found := _OUT_OF_SYNC.match(text):
            self._keep(self.ranges, found)
        elif found := _SKIPPED.match(text):
            self._keep(self.skipped, found)

    def _keep(self, ranges: list[Range], found: re.Match[str]) -> None:
        if len(ranges) >= _RANGES_MAX:
            self.much = True
        elif int(found[2]):
            ranges.append((int(found[1]) * SECTOR, int(found[2]) * SECTOR))


class Listener(Protocol):
    """Who takes the log in. lost: lines were overwritten before they were read."""

    lost: bool

    def see(self, text: str) -> None: ...


def of_device(minor: int) -> re.Pattern[str]:
    """How the lines of a device begin, on 8.4 and on 9, which has those of the device itself and of each peer."""
    return re.compile(rf"^(?:block drbd{minor}|drbd \S+ drbd{minor}(?: \S+)?): ")


class Log:
    """A context manager: the kernel's log from its beginning or, with ``fresh``, from now on, read in bounded pieces."""

    def __init__(self, *, fresh: bool, path: str = KMSG) -> None:
        self._fresh, self._path = fresh, path

    def __enter__(self) -> Log:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fresh:
            os.lseek(self._fd, 0, os.SEEK_END)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)

    def read(self, lines: Listener) -> bool:
        """Take in what has come, but not endlessly much of it; whether there was anything."""
        for count in range(_RECORDS_AT_ONCE):
            try:
                raw = os.read(self._fd, 8192)
            except BlockingIOError:
                return count > 0
            except OSError as error:
                if error.errno != errno.EPIPE:  # overwritten while it was read
                    raise
                lines.lost = True
                continue
            if not raw:
                return count > 0
            if found := _RECORD.match(raw.decode("utf-8", "replace")):
                lines.see(found[1])
        return True


@dataclass(frozen=True, slots=True)
class Found:
    """ranges: what the kernel has found, or left out, in order. cut: not all of them. remarks: what is to be said of it."""

    ranges: tuple[Range, ...]
    cut: bool
    remarks: tuple[str, ...]


def follow(
    copy: LocalCopy, progress: Callable[[int, int], None], say: Callable[[str], None], stop: Callable[[], bool]
) -> Found:
    """Run it, or join the one that runs. Raises VerifyRefused, VerifyStopped, Interrupted, CommandFailed, CommandTimeout, OSError."""
    storage, hello = copy.storage, copy.hello
    if hello.verify_alg is None:
        raise VerifyRefused(
            storage=storage.id,
            cause=f"no `verify-alg` is set, without which DRBD cannot verify {hello.resource}",
            remedy="Write 'verify-alg crc32c;' into net { } of the resource on both nodes, then 'drbdadm adjust "
            f"{hello.resource}' on both; or compare without the kernel: 'pvedrbdstor verify {storage.id} --mode full'",
        )
    before = copy.state()
    runs = before.replication in states.VERIFY_STATES
    lines = Lines(copy.minor)
    with Log(fresh=not runs) as log:
        if runs:
            say("DRBD's verify runs already and is followed.")
        else:
            command.run(_start(copy), timeout=_TOOL_SECONDS)
        _to_the_end(copy, log, lines, progress, stop)
        _the_rest(log, lines)
    marked = copy.state().out_of_sync
    missing = list(_missing(lines, before.out_of_sync, marked, copy, joined=runs))
    return Found(merged([*lines.ranges, *lines.skipped]), bool(missing), (*_remarks(lines), *missing))


def _the_rest(log: Log, lines: Lines) -> None:
    """What was said up to its end, which others' lines may keep from ever coming."""
    deadline = time.monotonic() + _REST_SECONDS
    while log.read(lines):
        if lines.ended:
            log.read(lines)  # that it did not come to the device's end is said after that
            return
        if time.monotonic() > deadline:
            lines.lost = True
            return


def _start(copy: LocalCopy) -> list[str]:
    """From the beginning, also where an earlier one was broken off."""
    storage = copy.storage
    peers = parse_now(command.run(commands.events2_now(storage.resource), timeout=_TOOL_SECONDS).stdout).connections
    named = [found for found in peers if found.resource == storage.resource]
    nine = named[0].peer_node_id if named and named[0].name not in (None, "peer") else None
    return commands.verify_all((storage.resource, storage.volume), copy.minor, nine)


def _to_the_end(
    copy: LocalCopy, log: Log, lines: Lines, progress: Callable[[int, int], None], stop: Callable[[], bool]
) -> None:
    while True:
        log.read(lines)
        state = copy.state()
        if state.replication not in states.VERIFY_STATES:
            found = states.obstacle(state, copy.node, copy.storage.id, copy.storage.resource)
            if found is not None:
                raise VerifyStopped(storage=copy.storage.id, cause=found.cause, remedy=found.remedy)
            return
        if stop():
            raise Interrupted
        done = _done(copy)
        if done is not None:
            progress(int(copy.hello.size * done), copy.hello.size)
        time.sleep(_PAUSE)


def _done(copy: LocalCopy) -> float | None:
    """How much of it is done, of 1: from /proc/drbd on 8.4, whose tools tell it wrong, from events on 9."""
    with open(PROC_DRBD, encoding="ascii", errors="replace") as file:
        device = proc_drbd.parse(file.read(1 << 18)).devices.get(copy.minor)
    if device is not None:
        found = device.progress
        return 1 - found.left / found.total if found is not None and found.total else None
    storage = copy.storage
    text = command.run(commands.events2_now(storage.resource, statistics=True), timeout=_TOOL_SECONDS).stdout
    told = [
        peer.done
        for peer in parse_now(text).peer_devices
        if (peer.resource, peer.volume) == (storage.resource, storage.volume) and peer.done is not None
    ]
    return told[0] / 100 if told else None


def _remarks(lines: Lines) -> Iterable[str]:
    found = sum(length for _, length in merged(lines.ranges)) >> 10
    if found:
        yield (
            f"DRBD's verify has found {found} KiB different at the moment it read them, and has marked them; those below still differed when "
            "they were looked at again."
        )
    if lines.skipped:
        skipped = sum(length for _, length in merged(lines.skipped)) >> 10
        yield f"DRBD's verify has left out {skipped} KiB that were busy: they were compared here instead."


def _missing(lines: Lines, before: int | None, after: int | None, copy: LocalCopy, *, joined: bool) -> Iterable[str]:
    """Why what was found is not all that differs. before, after: KiB out of sync. joined: it ran already."""
    full = f"'pvedrbdstor verify {copy.storage.id} --mode full' finds them all."
    found = sum(length for _, length in whole_blocks(lines.ranges, _BLOCK, copy.hello.size + _BLOCK)) >> 10
    if lines.lost or lines.much:
        yield (
            f"The kernel's log was too long to be read whole: DRBD has {after or 0} KiB marked, and not all of them are in this list. {full}"
        )
    elif after is None or after > found + (before or 0):
        told = "an unknown number of" if after is None else str(after)
        yield f"DRBD has {told} KiB marked, {before or 0} of them before, and its log has told of {found} only. {full}"
    if lines.short:
        yield "DRBD's verify did not go to the end of the device: it was broken off, or begun with a sector to stop at."
    if joined and lines.start is None:
        yield (
            f"DRBD's verify ran already, and the log of {copy.node} does not tell that it began with the first sector: it may have compared a "
            f"part only. The log of the node where it was begun tells. Run 'pvedrbdstor verify {copy.storage.id} --mode kernel' again for all of it."
        )
    elif lines.start:
        yield (
            f"DRBD's verify began at sector {lines.start} only. Run 'pvedrbdstor verify {copy.storage.id} --mode kernel' again for all of it."
        )
