"""The times of DRBD and o2cb that fit corosync's, from the timeline itself, and why none do. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pvedrbdstor.fencing.configured import inputs_of
from pvedrbdstor.fencing.corosync_conf import CorosyncConf
from pvedrbdstor.fencing.timeline import timeline
from pvedrbdstor.fencing.times import Inputs, recommended
from pvedrbdstor.ocfs2.o2cb import BEAT_SECONDS, KERNEL_DEFAULTS, Timeouts
from pvedrbdstor.setup.steps import Refusal


def fitting(conf: CorosyncConf | None, kept: Timeouts | None) -> Inputs:
    """Everything that a setup chooses, by what corosync has. kept: OCFS2's times that are in use already and stay."""
    given = inputs_of(None, conf, kept)
    wanted = recommended(given)
    # Corosync's own are not ours to set: where they do not fit, misfits() says so.
    fixed = {
        key: getattr(given, key) for key in ("token", "consensus", "qdevice", "qdevice_timeout", "qdevice_sync_timeout")
    }
    known = {key: value for key, value in fixed.items() if value is not None}
    dead = given.dead if kept is not None else wanted.dead
    return replace(wanted, **known, dead=dead)


def misfits(inputs: Inputs, storage: str, resource: str) -> Iterator[Refusal]:
    """The races that would be lost with these times."""
    for race in timeline(inputs).races:
        if race.fits is not True:
            yield Refusal(f"the times do not fit: {race.misfit}", race.remedy(storage, resource))


def timeouts(inputs: Inputs) -> Timeouts:
    """What goes into /etc/default/o2cb."""
    dead = inputs.dead if inputs.dead is not None else float(KERNEL_DEFAULTS.dead_seconds or 0)
    idle = inputs.idle if inputs.idle is not None else (KERNEL_DEFAULTS.idle_timeout_ms or 0) / 1000
    return replace(KERNEL_DEFAULTS, dead_threshold=int(dead // BEAT_SECONDS) + 1, idle_timeout_ms=round(idle * 1000))
