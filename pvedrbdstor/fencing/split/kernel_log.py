"""When the nodes parted and when DRBD found the split brain, from the kernel's log of this boot."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

KMSG = "/dev/kmsg"
_RECORD = re.compile(r"^\d+,\d+,(\d+),[^;]*;(.*)")
_LOST = re.compile(
    r"conn\( (?!WF|Connecting|Unconnected|NetworkFailure)\w+ -> (?:NetworkFailure|BrokenPipe|Timeout|ProtocolError|TearDown|Disconnecting)"
)
_DIVERGED = re.compile(r"new current UUID")
_FOUND = re.compile(r"Split-Brain detected but unresolved")
_HUNG_UP = re.compile(r"conn\( WFReportParams -> (?:NetworkFailure|BrokenPipe)")
_JOINED = re.compile(
    r"conn\( \w+ -> (Connected|WFBitMap\w|SyncSource|SyncTarget) \)|repl\( \w+ -> (Established|Sync\w+) \)"
)
_NINE_ALONE = re.compile(r"conn\( Connecting -> Connected \)")
"""9 calls a connection Connected before the copies are compared; what counts there is `repl(`."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Seconds of the kernel log's clock. parted: the copy began a history of its own, or the connection was lost before that. found: DRBD
    here compared the copies. refused: the other node hung up first, perhaps because it has found the split (8.4), perhaps because the link broke."""

    parted: float | None = None
    found: float | None = None
    refused: float | None = None


def moments(lines: Iterable[tuple[float, str]], resource: str, minor: int | None) -> Moments:
    """Of (seconds, text) in order: what has happened since the nodes were last connected."""
    joined = False  # as far as this log goes: a node that was booted alone has lost nobody
    lost: float | None = None
    parted: float | None = None
    found: float | None = None
    refused: float | None = None
    names = _names(resource, minor)
    for seconds, text in lines:
        if not names.match(text):
            continue
        if _JOINED.search(text) and not _NINE_ALONE.search(text):
            lost = parted = found = refused = None
            joined = True
        elif _LOST.search(text):
            lost = seconds if lost is None else lost
            joined = False
        elif _DIVERGED.search(text) and not joined:
            parted = seconds if parted is None else parted
        elif _FOUND.search(text):
            found = found or seconds
        elif _HUNG_UP.search(text):
            refused = refused or seconds
    return Moments(parted if parted is not None else lost, found, refused)


def lost(lines: Iterable[tuple[float, str]], resource: str, minor: int | None) -> float | None:
    """When the connection was lost last, also where the nodes are about to meet again."""
    names = _names(resource, minor)
    found: float | None = None
    joined = True
    for seconds, text in lines:
        if not names.match(text):
            continue
        if _JOINED.search(text) and not _NINE_ALONE.search(text):
            joined = True
        elif _LOST.search(text) and joined:
            found, joined = seconds, False
    return found


def records(path: str = KMSG) -> list[tuple[float, str]]:
    """The kernel's log as (seconds, text); empty where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    found = []
    try:
        while True:
            try:
                raw = os.read(fd, 8192)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while we read: go on with the next
                    continue
                break
            if not raw:
                break
            if match := _RECORD.match(raw.decode("utf-8", "replace")):
                found.append((int(match[1]) / 1e6, match[2]))
    finally:
        os.close(fd)
    return found


def _names(resource: str, minor: int | None) -> re.Pattern[str]:
    return re.compile(rf"^(?:drbd {re.escape(resource)}(?:/\d+)?[ :]|block drbd{minor if minor is not None else '-'}:)")


def wall(seconds: float | None) -> float | None:
    """A moment of the kernel log's clock as seconds since 1970."""
    if seconds is None:
        return None
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + seconds
