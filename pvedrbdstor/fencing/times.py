"""How long after a cut each thing can happen, from the configured times alone, and which settings to recommend. No I/O here.

All times are seconds. Sources: drbd.conf(5), corosync.conf(5), corosync-qdevice(8), the kernel's
fs/ocfs2/cluster/{heartbeat,tcp}.c, and measurements on real clusters, which the constants below name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pvedrbdstor.fencing import constants
from pvedrbdstor.ocfs2.o2cb import BEAT_SECONDS

TOKEN_EARLIEST = 0.6
"""Of the token time: measured 1.8 to 2.8 s after the cut with 3 s, since the last token came before the cut."""
VOTE_EARLIEST, VOTE_LATEST = 0.9, 6.0
"""From the new ring to quorate; measured 6.3 to 12.6 s after the cut with a ring at 5.4 to 6.6 s. qdevice asks qnetd in between."""
LOAD_SECONDS = 7.0
"""What a busy machine adds: DRBD froze at 17.8 s at worst where 11 s were due."""
O2NET_DELAY_BEATS = 3
"""A node that o2net has lost is judged (dead_threshold + 2) beats later, O2NET_QUORUM_DELAY_MS: dead time + 3 beats."""
DEAD_THRESHOLD_MIN = 31
"""Beats, the kernel's default: 60 s. Less gains nothing: what waits for it is a node that has lost already."""
ARBITRATION_SECONDS = 27.0
"""The longest a fence-peer handler needed after DRBD noticed: both still in one membership for 15 s, then up to 12 s."""
QNETD_ANSWER_SECONDS = 0.5
"""Until qnetd has answered both nodes that told it of their rings; their links to it answer, or they have no vote."""
HA_RESTART_SECONDS = 60.0
"""Proxmox HA waits this much longer than the watchdog of the lost node before it starts that node's guests elsewhere."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The configured times in seconds; None: not known. Then no race that needs it is known to fit.

    token, consensus: in force, with the coefficient. qdevice: there is one. dead: OCFS2's, idle: o2net's. guard_watchdog,
    ha_watchdog: systemd's for the guard, Proxmox's for a node. The others: see constants.py.
    """

    ping_int: float | None = None
    ping_timeout: float | None = None
    connect_int: float | None = None
    token: float | None = None
    consensus: float | None = None
    qdevice: bool | None = None
    qdevice_timeout: float | None = None
    qdevice_sync_timeout: float | None = None
    dead: float | None = None
    idle: float | None = None
    guard_watchdog: float | None = 10.0
    ha_watchdog: float | None = 60.0
    hold: float = constants.HOLD_SECONDS
    stable: float = constants.STABLE_SECONDS
    pause: float = constants.PAUSE_SECONDS
    standalone: float = constants.STANDALONE_SECONDS
    give_way: float = constants.GIVE_WAY_SECONDS
    tie_break: float = constants.TIE_BREAK_SECONDS
    lookback: float = constants.LOOKBACK_SECONDS


@dataclass(frozen=True, slots=True)
class Span:
    """earliest, latest: None where an input is not known."""

    earliest: float | None
    latest: float | None

    def __add__(self, other: Span) -> Span:
        return Span(total(self.earliest, other.earliest), total(self.latest, other.latest))

    def after(self, other: Span) -> Span:
        """The later of two things that must both have happened."""
        return Span(_last(self.earliest, other.earliest), _last(self.latest, other.latest))


@dataclass(frozen=True, slots=True)
class Times:
    """What the events and the races are both made from."""

    frozen: Span
    ring: Span
    quorate: Span
    unquorate: Span
    goes_on: Span
    gives_way: Span
    tie_break: Span
    tie_won: Span
    silent: Span
    reset: Span
    o2net: Span
    ha: Span

    @property
    def decided(self) -> float | None:
        """The latest of all ways to go on, on a busy machine."""
        ways = (self.goes_on.latest, self.tie_won.latest, self.silent.latest)
        return total(_last(*ways), LOAD_SECONDS)


def times_of(inputs: Inputs) -> Times:
    frozen = Span(inputs.ping_timeout, total(inputs.ping_int, inputs.ping_int, inputs.ping_timeout))
    early = None if inputs.token is None else inputs.token * TOKEN_EARLIEST
    ring = Span(total(early, inputs.consensus), total(inputs.token, inputs.consensus))
    quorate = ring + Span(VOTE_EARLIEST, VOTE_LATEST)
    settled = quorate + _both(inputs.stable)
    tie = frozen + _both(inputs.tie_break)
    unquorate = ring + Span(0.0, 0.0 if inputs.qdevice is False else inputs.qdevice_timeout)
    silent = (
        ring + _both(inputs.qdevice_sync_timeout) + _both(inputs.stable) if inputs.qdevice is not False else settled
    )
    watchdog = Span(total(unquorate.earliest, inputs.ha_watchdog), total(unquorate.latest, inputs.ha_watchdog))
    reset = _both(inputs.dead) + Span(-BEAT_SECONDS, 2 * BEAT_SECONDS)  # measured: 62 to 64 s with 60
    return Times(
        frozen=frozen,
        ring=ring,
        quorate=quorate,
        unquorate=unquorate,
        goes_on=(frozen + _both(inputs.hold)).after(settled),
        gives_way=frozen + Span(inputs.standalone, total(ring.latest, constants.STILL_HERE_SECONDS)),
        tie_break=tie,
        tie_won=tie + settled,
        silent=silent,
        reset=reset,
        o2net=reset + _both(total(inputs.idle, O2NET_DELAY_BEATS * BEAT_SECONDS)),
        ha=watchdog + _both(HA_RESTART_SECONDS),
    )


def most_ping_int(inputs: Inputs) -> float:
    """The longest whole ping-int, in seconds, with which the race of DRBD's detection fits: 2 x ping-int is no longer than the hold."""
    return max(1.0, inputs.hold // 2)


def most_connect_int(inputs: Inputs) -> float:
    """The longest whole connect-int, in seconds, with which DRBD has connected before a node gives way: a second is left for the
    handshake."""
    return max(1.0, (inputs.give_way - 1.0) // 1 - 1.0)


def threshold_for(times: Times) -> int:
    """The least O2CB_HEARTBEAT_THRESHOLD with which all is decided a beat before the dead time; the kernel's own at least."""
    if times.decided is None:
        return DEAD_THRESHOLD_MIN
    return max(DEAD_THRESHOLD_MIN, int((times.decided + BEAT_SECONDS) // BEAT_SECONDS) + 2)


def recommended(inputs: Inputs) -> Inputs:
    """The same, with what is not known or does not fit replaced by a setting that does."""
    ping_int = most_ping_int(inputs)
    wanted = replace(
        inputs,
        ping_int=_at_most(inputs.ping_int, ping_int),
        ping_timeout=_at_most(inputs.ping_timeout, 1.0),
        connect_int=_at_most(inputs.connect_int, most_connect_int(inputs)),
        qdevice=inputs.qdevice is not False,
        qdevice_timeout=_at_most(inputs.qdevice_timeout, 10.0),
        qdevice_sync_timeout=_at_most(inputs.qdevice_sync_timeout, 30.0),
        idle=30.0 if inputs.idle is None else inputs.idle,
        guard_watchdog=_at_least(inputs.guard_watchdog, 2 * inputs.pause),
        ha_watchdog=_at_least(inputs.ha_watchdog, 60.0),
    )
    if not _corosync_fits(wanted):
        wanted = replace(wanted, token=3.0, consensus=3.6)
    dead = (threshold_for(times_of(wanted)) - 1) * BEAT_SECONDS
    return replace(wanted, dead=_at_least(inputs.dead, dead))


def _corosync_fits(inputs: Inputs) -> bool:
    times = times_of(inputs)
    out, lost = times.ring.earliest, total(times.frozen.latest, times.unquorate.latest)
    if out is None or lost is None or times.ring.latest is None:
        return False
    late = inputs.pause + times.ring.latest - out + QNETD_ANSWER_SECONDS
    return out > inputs.pause and lost < inputs.lookback and (inputs.qdevice is False or late < inputs.stable)


def _at_most(value: float | None, limit: float) -> float:
    return limit if value is None else min(value, limit)


def _at_least(value: float | None, limit: float) -> float:
    return limit if value is None else max(value, limit)


def _both(value: float | None) -> Span:
    return Span(value, value)


def total(*values: float | None) -> float | None:
    """Their sum; None when one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _last(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
