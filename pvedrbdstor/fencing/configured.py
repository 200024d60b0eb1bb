"""What a resource's configuration says of fencing: whether its handler is ours, and the times of its timeline. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.drbd.config import ResourceConfig
from pvedrbdstor.fencing import paths
from pvedrbdstor.fencing.corosync_conf import CorosyncConf, Timing
from pvedrbdstor.fencing.times import Inputs
from pvedrbdstor.ocfs2.o2cb import Timeouts

HANDLER = paths.HANDLER


def is_ours(handler: str | None) -> bool:
    """Whether a fence-peer command, as drbd.conf has it, is the package's; with arguments or without."""
    return handler is not None and handler.split()[:1] == [HANDLER]


def inputs_of(
    config: ResourceConfig | None, conf: CorosyncConf | None, timeouts: Timeouts | None, in_force: Timing | None = None
) -> Inputs:
    """The times in force, with None for what is not known: 8.4 forgets DRBD's in StandAlone.

    in_force: what a running corosync waits; else it is what corosync.conf would have it wait.
    """
    timing = in_force or (conf.timing if conf is not None else None)
    nets = config.nets if config is not None else ()
    device = conf.quorum.device if conf is not None else None
    return Inputs(
        ping_int=_longest([net.ping_interval for net in nets]),
        ping_timeout=_longest([net.ping_timeout for net in nets]),
        connect_int=_longest([net.connect_interval for net in nets]),
        token=timing.token if timing is not None else None,
        consensus=timing.consensus if timing is not None else None,
        qdevice=device is not None if conf is not None else None,
        qdevice_timeout=device.timeout_ms / 1000 if device is not None else None,
        qdevice_sync_timeout=device.sync_timeout_ms / 1000 if device is not None else None,
        dead=timeouts.dead_seconds if timeouts is not None else None,
        idle=timeouts.idle_timeout_ms / 1000 if timeouts is not None and timeouts.idle_timeout_ms is not None else None,
    )


def unknown(inputs: Inputs) -> Iterator[str]:
    """The settings that are not known, as an administrator calls them."""
    if inputs.ping_int is None or inputs.ping_timeout is None or inputs.connect_int is None:
        yield "DRBD's ping-int, ping-timeout and connect-int"
    if inputs.token is None or inputs.consensus is None:
        yield "corosync's token and consensus"
    if inputs.dead is None:
        yield "OCFS2's dead time"
    if inputs.idle is None:
        yield "o2net's idle time"


def _longest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None
