"""DRBD's before-resync-source and before-resync-target handler: notes what was written while the nodes were apart, then lets it go on.

DRBD waits for it, before it clears the first bit, and drops the connection where a handler ends with anything but 0 (drbd_start_resync(),
drbd_worker.c): so this ends with 0 whatever happens, and soon. It asks nobody who may have to wait for DRBD's receiver, in which it runs: neither the
kernel (drbdsetup) nor /etc/pve. Whoever wants to know that later starts as a process of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import syslog
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import metadata_08, proc_drbd
from pvedrbdstor.errors import BadConfig, CommandFailed, CommandTimeout
from pvedrbdstor.fencing.split import kernel_log
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.verify import rejoin, written
from pvedrbdstor.verify.rejoin import SOURCE, TARGET, Kept, Note

NOTE_SECONDS = 4.5
"""For all of it, from the start. A resync's target holds up the other node's writes as long as this takes."""
_ALARM_SECONDS = 6
"""After which whatever still waits is given up, and that is noted."""
_TOOL_SECONDS = 2.0
_LATER_SECONDS = 600
_LATE_SECONDS = 20.0
_STORAGE_CFG_SECONDS = 300.0
_STORAGE_CFG_LOOK = 5.0
_BEFORE = "WFBitMapS"
_PROC_DRBD = "/proc/drbd"
_STORAGE_CFG = "/etc/pve/storage.cfg"
_UNIT = "pvedrbdstor-rejoin@{}.service"
_NOBODY = "0" * 12


class _TooLong(Exception):
    """The alarm; what runs for us is ended with its process group on the way (command.run())."""


def _too_long(_number: int, _frame: object) -> None:
    raise _TooLong("it took too long")


def main(argv: Sequence[str]) -> int:
    """argv: the side of the resync. The exit status is always 0."""
    try:
        deadline = time.monotonic() + NOTE_SECONDS
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(_ALARM_SECONDS)
        resource, volume = os.environ["DRBD_RESOURCE"], int(os.environ.get("DRBD_VOLUME", "0"))
        side = SOURCE if argv[0] == SOURCE else TARGET
        minor = int(os.environ["DRBD_MINOR"])
        kept = note(resource, volume, minor, side, deadline)
        signal.alarm(0)
        _later(resource, volume, minor, side, kept)
    except Exception as error:
        print(f"pvedrbdstor: what was written is not noted: {type(error).__name__}: {error}", file=sys.stderr)
    return 0


def note(resource: str, volume: int, minor: int, side: str, deadline: float) -> Kept:
    """Keep the list, or why there is none. deadline: of the monotonic clock. Raises OSError: then the attempt stays one that was not noted."""
    now = time.time()
    blank = Note(side, socket.gethostname().partition(".")[0], _NOBODY, "0" * 16, now, now, 0)
    uuids: tuple[int, ...] = ()
    try:
        found, listed = written.read(_meta_disk(resource, volume, deadline), deadline)
        uuids = found.uuids
        kept = kept_of(blank, found, listed, _parted(resource, minor))
    except (CommandFailed, CommandTimeout) as error:
        kept = _failed(blank, error.message)
    except (written.Unknown, OSError, _TooLong) as error:
        kept = _failed(blank, str(error))
    with rejoin.locked(resource, volume):
        lost = rejoin.LOST if rejoin.attempts(resource, volume) > 1 else None
        try:
            before = rejoin.as_written(resource, volume)
        except rejoin.Unknown:
            before, lost = None, lost or "what was noted when the nodes met before cannot be read"
        kept = rejoin.together(before, kept, uuids, lost)
        rejoin.write(resource, volume, kept)
        rejoin.noted(resource, volume)
    return kept


def kept_of(blank: Note, found: metadata_08.Superblock, listed: written.Written, parted: float | None) -> Kept:
    """blank: what is known without the metadata. The bitmap of the source began with the identifier that the target's data still have."""
    current, bitmap = found.uuids[:2]
    short = None
    if listed.known < found.size:
        short = f"reading DRBD's bitmap took more than {NOTE_SECONDS} s, and only the first {listed.known >> 30} GiB of the device were looked at"
    return Kept(
        Note(
            side=blank.side,
            node=blank.node,
            base=rejoin.key(bitmap if blank.side == SOURCE else current),
            current=f"{current:016X}",
            noted=blank.noted,
            first=blank.first,
            size=found.size,
            gap=listed.gap,
            parted=parted,
            short=short,
            late=rejoin.LATE if blank.side == SOURCE else None,
            counted=f"{bitmap:016X}" if blank.side == SOURCE else None,
        ),
        listed.ranges,
    )


def _failed(blank: Note, why: str) -> Kept:
    plain = "".join(letter if letter.isprintable() else " " for letter in why)[:200].rstrip(". ")
    return Kept(
        Note(blank.side, blank.node, blank.base, blank.current, blank.noted, blank.first, 0, short=plain or "unknown")
    )


def _meta_disk(resource: str, volume: int, deadline: float) -> metadata_08.MetaDisk:
    """By the configuration as it is written. deadline: of the monotonic clock. Raises CommandFailed, CommandTimeout, written.Unknown."""
    device, word = (_word(what, f"{resource}/{volume}", deadline) for what in ("sh-md-dev", "sh-md-idx"))
    found = metadata_08.meta_disk(device, word)
    if found is None:
        raise written.Unknown(f"drbdadm calls the place of the metadata '{word[:32]}'")
    return found


def _word(what: str, name: str, deadline: float) -> str:
    seconds = min(_TOOL_SECONDS, max(0.1, deadline - time.monotonic()))
    words = command.run(["drbdadm", what, name], timeout=seconds).stdout.split()
    if not words:
        raise written.Unknown(f"'drbdadm {what} {name}' says nothing")
    return words[0]


def _parted(resource: str, minor: int) -> float | None:
    """When the nodes lost each other last, as far as this boot's kernel log goes back."""
    return kernel_log.wall(kernel_log.lost(kernel_log.records(), resource, minor))


def add_late(resource: str, volume: int, minor: int, noted: float) -> None:
    """Add what may have been written since then and before the resync began: its source takes writes all the time, and marks them until then
    (WFBitMapS), so that they are resynced too. They are in the activity log still. Until this has succeeded the note is not whole. Raises
    rejoin.Unknown, CommandFailed, CommandTimeout, written.Unknown, OSError, also where DRBD's state cannot be read."""
    deadline = time.monotonic() + _LATE_SECONDS
    while _connection(minor) == _BEFORE:
        if time.monotonic() >= deadline:
            raise written.Unknown(f"the resync has not begun within {_LATE_SECONDS:.0f} s")
        time.sleep(0.02)
    ranges = written.read_log(_meta_disk(resource, volume, time.monotonic() + 2 * _TOOL_SECONDS))
    with rejoin.locked(resource, volume, seconds=10):
        kept = rejoin.as_written(resource, volume)
        if kept is not None and kept.note.noted == noted and kept.note.late is not None:
            listed, gap = written.coarser([*kept.ranges, *ranges], kept.note.size)
            whole = replace(kept.note, gap=max(gap, kept.note.gap), late=None)
            rejoin.write(resource, volume, Kept(whole, listed), durable=True)


def _connection(minor: int) -> str:
    """By /proc/drbd, for which nothing waits. Raises OSError, written.Unknown where the device is not there."""
    with open(_PROC_DRBD, encoding="ascii", errors="replace") as file:
        device = proc_drbd.parse(file.read(1 << 18)).devices.get(minor)
    if device is None or device.connection is None:
        raise written.Unknown(f"{_PROC_DRBD} does not have the device {minor}")
    return device.connection


def _later(resource: str, volume: int, minor: int, side: str, kept: Kept) -> None:
    """Add the last writes, and have all compared when the resync has ended: by a process that nobody waits for, as it asks Proxmox and systemd."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        with open("/dev/null", "r+b", buffering=0) as nothing:
            for fd in (0, 1, 2):
                os.dup2(nothing.fileno(), fd)
        os.closerange(3, 1024)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LATER_SECONDS)
        finish(resource, volume, minor, side, kept.note)
    finally:
        os._exit(0)


def finish(resource: str, volume: int, minor: int, side: str, found: Note) -> None:
    """What nobody waits for; what fails is told in the log, and keeps nothing else from being done."""
    if side == SOURCE and found.late is not None:
        _try(f"{rejoin.LATE} ({resource}/{volume})", lambda: add_late(resource, volume, minor, found.noted))
    _try(f"the note of {resource}/{volume} may be lost in a crash", lambda: rejoin.sync(resource, volume))
    if side == SOURCE:
        _try(f"the rejoin of {resource}/{volume} is not compared by itself", lambda: _compare(resource, volume))


def _try(what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:
        syslog.openlog("pvedrbdstor", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, f"{what}: {type(error).__name__}: {error}")


def _compare(resource: str, volume: int) -> None:
    """Raises OSError, CommandFailed, CommandTimeout."""
    deadline = time.monotonic() + _STORAGE_CFG_SECONDS
    while True:
        try:
            names = storages_of(resource, volume)
            break
        except OSError:  # /etc/pve is not there yet, as early at boot
            if time.monotonic() >= deadline:
                raise
        time.sleep(_STORAGE_CFG_LOOK)
    for storage in names:
        command.run(["systemctl", "start", "--no-block", _UNIT.format(storage)], timeout=60)


def storages_of(resource: str, volume: int, path: str = _STORAGE_CFG) -> list[str]:
    """The storages of this node that lie on a volume, one for each path. Raises OSError."""
    node = socket.gethostname().partition(".")[0]
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 20)
    found: dict[str, StorageConfig] = {}
    for name in storage_cfg.storage_ids_on(text, node):
        try:
            config = storage_cfg.find_storage(text, name).config
        except BadConfig:
            continue
        if (config.resource, config.volume) == (resource, volume):
            found.setdefault(config.path, config)
    return [config.id for config in found.values()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
