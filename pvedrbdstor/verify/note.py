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
import time
from collections.abc import Sequence
from dataclasses import replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import metadata_08, proc_drbd
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import BadConfig, CommandFailed, CommandTimeout
from pvedrbdstor.fencing.split import kernel_log
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.verify import rejoin, written
from pvedrbdstor.verify.rejoin import SOURCE, TARGET, Kept, Note

READ_SECONDS = 3.0
"""For reading the metadata. A resync's target holds up the other node's writes as long as this takes."""
_ALL_SECONDS = 6
_TOOL_SECONDS = 2.0
_LATER_SECONDS = 60
_LATE_SECONDS = 20.0
_BEFORE = "WFBitMapS"
_PROC_DRBD = "/proc/drbd"
_STORAGE_CFG = "/etc/pve/storage.cfg"
_UNIT = "pvedrbdstor-rejoin@{}.service"
_NOBODY = "0" * 12


def main(argv: Sequence[str]) -> int:
    """argv: the side of the resync. The exit status is always 0."""
    try:
        signal.alarm(_ALL_SECONDS)  # its default ends the process, which the handler's last word turns into 0
        resource, volume = os.environ["DRBD_RESOURCE"], int(os.environ.get("DRBD_VOLUME", "0"))
        side = SOURCE if argv[0] == SOURCE else TARGET
        minor = int(os.environ["DRBD_MINOR"])
        kept = note(resource, volume, minor, side)
        if side == SOURCE:
            _later(resource, volume, minor, kept)
    except Exception as error:
        print(f"pvedrbdstor: what was written is not noted: {type(error).__name__}: {error}", file=sys.stderr)
    return 0


def note(resource: str, volume: int, minor: int, side: str) -> Kept:
    """Keep the list, or why there is none. Raises OSError."""
    now = time.time()
    blank = Note(side, socket.gethostname().partition(".")[0], _NOBODY, "0" * 16, now, now, 0)
    uuids: tuple[int, ...] = ()
    try:
        found, listed = written.read(_meta_disk(resource, volume), time.monotonic() + READ_SECONDS)
        uuids = found.uuids
        kept = kept_of(blank, found, listed, _parted(resource, minor))
    except (CommandFailed, CommandTimeout) as error:
        kept = _failed(blank, error.message)
    except (written.Unknown, OSError) as error:
        kept = _failed(blank, str(error))
    try:
        before = rejoin.read(resource, volume)
    except rejoin.Unknown:
        before = None
    kept = rejoin.together(before, kept, uuids)
    rejoin.write(resource, volume, kept)
    return kept


def kept_of(blank: Note, found: metadata_08.Superblock, listed: written.Written, parted: float | None) -> Kept:
    """blank: what is known without the metadata. The bitmap of the source began with the identifier that the target's data still have."""
    current, bitmap = found.uuids[:2]
    short = None
    if listed.known < found.size:
        short = f"reading DRBD's bitmap took more than {READ_SECONDS:.0f} s, and only the first {listed.known >> 30} GiB of the device were looked at"
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
        ),
        listed.ranges,
    )


def _failed(blank: Note, why: str) -> Kept:
    plain = "".join(letter if letter.isprintable() else " " for letter in why)[:200].rstrip(". ")
    return Kept(
        Note(blank.side, blank.node, blank.base, blank.current, blank.noted, blank.first, 0, short=plain or "unknown")
    )


def _meta_disk(resource: str, volume: int) -> metadata_08.MetaDisk:
    """By the configuration as it is written. Raises CommandFailed, CommandTimeout, written.Unknown."""
    device, word = (_word(what, f"{resource}/{volume}") for what in ("sh-md-dev", "sh-md-idx"))
    found = metadata_08.meta_disk(device, word)
    if found is None:
        raise written.Unknown(f"drbdadm calls the place of the metadata '{word[:32]}'")
    return found


def _word(what: str, name: str) -> str:
    words = command.run(["drbdadm", what, name], timeout=_TOOL_SECONDS).stdout.split()
    if not words:
        raise written.Unknown(f"'drbdadm {what} {name}' says nothing")
    return words[0]


def _parted(resource: str, minor: int) -> float | None:
    """When the nodes lost each other last, as far as this boot's kernel log goes back."""
    return kernel_log.wall(kernel_log.lost(kernel_log.records(), resource, minor))


def add_late(resource: str, volume: int, minor: int, noted: float) -> None:
    """Add what may have been written since then and before the resync began: its source takes writes all the time, and marks them until then
    (WFBitMapS), so that they are resynced too. They are in the activity log still. Raises rejoin.Unknown, OSError."""
    deadline = time.monotonic() + _LATE_SECONDS
    while _connection(minor) == _BEFORE and time.monotonic() < deadline:
        time.sleep(0.02)
    short: str | None = None
    ranges: tuple[Range, ...] = ()
    try:
        ranges = written.read_log(_meta_disk(resource, volume))
    except (CommandFailed, CommandTimeout, written.Unknown, OSError) as error:
        short = f"what was written at the very beginning of the resync could not be read ({type(error).__name__})"
    if _connection(minor) == _BEFORE:
        short = (
            f"the resync has not begun within {_LATE_SECONDS:.0f} s, and what was written in that time was not noted"
        )
    kept = rejoin.read(resource, volume)
    if kept is not None and kept.note.noted == noted and kept.note.size:
        listed, gap = written.coarser([*kept.ranges, *ranges], kept.note.size)
        known = replace(kept.note, gap=max(gap, kept.note.gap), short=kept.note.short or short)
        rejoin.write(resource, volume, Kept(known, listed))


def _connection(minor: int) -> str | None:
    """By /proc/drbd, for which nothing waits."""
    try:
        with open(_PROC_DRBD, encoding="ascii", errors="replace") as file:
            device = proc_drbd.parse(file.read(1 << 18)).devices.get(minor)
    except OSError:
        return None
    return device.connection if device is not None else None


def _later(resource: str, volume: int, minor: int, kept: Kept) -> None:
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
        signal.alarm(_LATER_SECONDS)
        add_late(resource, volume, minor, kept.note.noted)
        for storage in storages_of(resource, volume):
            command.run(
                ["systemctl", "start", "--no-block", _UNIT.format(storage)], timeout=_LATER_SECONDS, check=False
            )
    finally:
        os._exit(0)


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
