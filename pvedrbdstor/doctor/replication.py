"""What lies at both ends of replication: how fast the disk below DRBD reads, whether it has a cache, and whether the other node's address answers."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pvedrbdstor import command, native
from pvedrbdstor.doctor.answers import Answers
from pvedrbdstor.drbd import commands, events2
from pvedrbdstor.drbd.disk_cache import write_cache
from pvedrbdstor.drbd.endpoints import endpoints
from pvedrbdstor.drbd.lower import lower_disk
from pvedrbdstor.native import IOPRIO_CLASS_IDLE, IoPriority

SECONDS = 0.25
BYTES = 64 << 20
"""At most this long is read, and this much."""
_AT_ONCE = 1 << 20
_SSH = 22
_CONNECT_SECONDS = 1.5
_TOOL_SECONDS = 4.0


def ask_replication(volumes: Sequence[Sequence[object]]) -> dict[str, object]:
    """As work of a Helper. volumes: (resource, volume) of each storage."""
    told = Answers()
    wanted = [(str(resource), int(str(volume))) for resource, volume in volumes]
    disks = functools.cache(lambda: _lower_disks(wanted))
    told.take("write_caches", lambda: {f"{each.resource}/{each.volume}": write_cache(each.path) for each in disks()})
    told.take("disk_speeds", lambda: _speeds(disks()))
    return told.as_json()


@dataclass(frozen=True, slots=True)
class _Lower:
    """path: of the disk below a resource's volume."""

    resource: str
    volume: int
    path: str


def _lower_disks(wanted: Sequence[tuple[str, int]]) -> list[_Lower]:
    """Without those that have none here."""
    show = command.run(commands.show(), timeout=_TOOL_SECONDS).stdout
    found = ((resource, volume, lower_disk(show, resource, volume)) for resource, volume in wanted)
    return [_Lower(resource, volume, lower.path) for resource, volume, lower in found if lower is not None]


def _speeds(disks: Sequence[_Lower]) -> dict[str, int | None]:
    """Resource -> bytes a second of its slowest disk."""
    found: dict[str, int | None] = {}
    for each in disks:
        speeds = [found.get(each.resource), speed(each.path)]
        found[each.resource] = min((read for read in speeds if read is not None), default=None)
    return found


def speed(path: str) -> int | None:
    """Bytes a second of one reader, one request after the other, past the page cache: what the disk can do at least. Behind everybody else's
    requests. None for one too small to tell. Raises OSError."""
    native.set_io_priority(IoPriority(IOPRIO_CLASS_IDLE, 0))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with native.AlignedBuffer(_AT_ONCE) as buffer:
            done, began = 0, time.monotonic()
            while done < BYTES and time.monotonic() - began < SECONDS:
                count = buffer.pread(fd, done, path=path)
                done += count
                if count < _AT_ONCE:
                    break
            seconds = time.monotonic() - began
    finally:
        os.close(fd)
    return int(done / seconds) if done >= _AT_ONCE and seconds > 0 else None


def answering(show: str, events: str, resources: Sequence[str]) -> dict[str, bool]:
    """Resource -> whether its peer's address answers at all, for those that are not connected. DRBD's own port is left alone: whoever connects
    there may be taken for the peer. show, events: what drbdsetup told. In _CONNECT_SECONDS, however many there are: all else that is known of DRBD
    waits for it."""
    apart = {each.resource for each in events2.parse_now(events).connections if each.state != "Connected"}
    peers = {each: [address for address, _ in endpoints(show, each)[1]] for each in resources if each in apart}
    addresses = list(dict.fromkeys(address for ends in peers.values() for address in ends))
    if not addresses:
        return {}
    from concurrent.futures import ThreadPoolExecutor  # only needed while the nodes are apart

    with ThreadPoolExecutor(len(addresses)) as pool:
        reached = dict(zip(addresses, pool.map(_reached, addresses), strict=True))
    return {resource: all(reached[address] for address in ends) for resource, ends in peers.items() if ends}


def _reached(address: str) -> bool:
    """Whether somebody there accepts or refuses a connection to ssh's port."""
    try:
        socket.create_connection((address, _SSH), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
