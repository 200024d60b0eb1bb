"""Command lines of DRBD's tools, as argument lists for pvedrbdstor.command.run. Nothing in this file does I/O.

What differs between 8.4 and 9 is told by each function. There is none that forces a promotion or resumes frozen I/O: these are
for an administrator's own hand; and one that throws data away, for the resolution of a split brain, which preserves them first.
"""

from __future__ import annotations


def events2_now(resource: str | None = None, *, statistics: bool = False) -> list[str]:
    """The present state of one resource, or of all, in the format of drbd.events2 (DRBD 8.4 and 9).

    A resource that does not exist gives an empty state and exit status 0 on 8.4.
    """
    return _events2("--now", resource, statistics)


def events2_stream(resource: str | None = None, *, statistics: bool = False) -> list[str]:
    """The same, followed by every change until it is stopped. Without a resource it also sees new ones."""
    return _events2(None, resource, statistics)


def show(resource: str | None = None) -> list[str]:
    """What the kernel has, for drbd.config.parse_show. A resource that is down is left out."""
    return ["drbdsetup", "show", *([resource] if resource is not None else [])]


def version() -> list[str]:
    """For drbd.generation.from_version."""
    return ["drbdadm", "--version"]


def dump(resource: str | None = None) -> list[str]:
    """The configuration as it is written, for drbd.config.fence_peer_handler."""
    return ["drbdadm", "dump", *([resource] if resource is not None else [])]


def defined_resources() -> list[str]:
    """The names of the resources configured for this host, on one line."""
    return ["drbdadm", "sh-resources"]


def up(resource: str) -> list[str]:
    """Attach and connect. Exit status 1 when it is up already (8.4 and 9): ask events2 first, or use adjust()."""
    return ["drbdadm", "up", resource]


def down(resource: str) -> list[str]:
    """Exit status 0 also when it is down already."""
    return ["drbdadm", "down", resource]


def adjust(resource: str) -> list[str]:
    """Bring the kernel to what the configuration says; brings up what is down, reconnects what is StandAlone."""
    return ["drbdadm", "adjust", resource]


def adjustments(resource: str) -> list[str]:
    """Print what adjust() would run, and run nothing; no line where the kernel is as the configuration says."""
    return ["drbdadm", "--dry-run", "adjust", resource]


def primary(resource: str) -> list[str]:
    """Promote. Two nodes at the same moment: one of them may be refused, and should try again."""
    return ["drbdadm", "primary", resource]


def secondary(resource: str) -> list[str]:
    """Demote. Refused (-12, held open) while something has the device open."""
    return ["drbdadm", "secondary", resource]


def connect(resource: str) -> list[str]:
    """Exit status 10 when it is connected or connecting already."""
    return ["drbdadm", "connect", resource]


def connect_discarding(resource: str) -> list[str]:
    """Connect, and in a split brain take over the other node's data: this one's are lost (8.4 and 9).

    Only of a Secondary that is StandAlone. 8.4 remembers it up to the next handshake, 9 until it has met the peer, a promotion or
    down(), but for no disconnect() (CONN_DISCARD_MY_DATA in drbd_nl.c of DRBD 9).
    """
    return ["drbdadm", "connect", "--discard-my-data", resource]


def pause_sync(resource: str) -> list[str]:
    """Pause a resync here until `drbdadm resume-sync`. It fails where it is paused already."""
    return ["drbdadm", "pause-sync", resource]


def verify_all(volume: tuple[str, int], minor: int, peer: int | None) -> list[str]:
    """Compare all of a volume with the peer's copy, from its beginning: without that it begins where the last one was broken off.

    peer: as with verify_part().
    """
    resource, number = volume
    named = [str(minor)] if peer is None else [resource, str(peer), str(number)]
    return ["drbdsetup", "verify", *named, "--start=0s"]


def verify_part(volume: tuple[str, int], minor: int, peer: int | None, start: int, stop: int) -> list[str]:
    """Compare a part of a volume (resource and number) with the peer's, bytes that are multiples of 4 KiB.

    peer: the node id on 9; None on 8.4, which names the minor alone. drbdadm knows these options on neither.
    """
    resource, number = volume
    named = [str(minor)] if peer is None else [resource, str(peer), str(number)]
    return ["drbdsetup", "verify", *named, f"--start={start // 512}s", f"--stop={stop // 512}s"]


def disconnect(resource: str) -> list[str]:
    """With both sides Primary, 8.4 does it (and calls fence-peer), 9 refuses (exit status 17).

    On 8.4 a Secondary stays UpToDate and a second call fails (10); on 9 it becomes Outdated.
    """
    return ["drbdadm", "disconnect", resource]


def _events2(now: str | None, resource: str | None, statistics: bool) -> list[str]:
    command = ["drbdsetup", "events2"]
    if now is not None:
        command.append(now)
    if statistics:
        command.append("--statistics")
    if resource is not None:
        command.append(resource)
    return command
