"""The timeline of a cut: what happens when, and whether each comes before what it must precede. Nothing in this file does I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.fencing.times import (
    HA_RESTART_SECONDS,
    LOAD_SECONDS,
    QNETD_ANSWER_SECONDS,
    VOTE_LATEST,
    Inputs,
    Span,
    Times,
    most_connect_int,
    most_ping_int,
    recommended,
    threshold_for,
    times_of,
    total,
)
from pvedrbdstor.ocfs2.o2cb import BEAT_SECONDS

_UNKNOWN = "not known"


class Owner(enum.Enum):
    """Whose setting it is: what must be done for it to take effect, for a storage on a resource."""

    DRBD = "run 'drbdadm adjust {resource}' on both nodes"
    COROSYNC = "raise the file's config_version and run 'systemctl restart corosync' on one node after the other"
    OCFS2 = "run 'pvedrbdstor mirror down {storage}' on all of them, and only then 'pvedrbdstor mirror up {storage}': all need the same"
    SYSTEMD = "run 'systemctl daemon-reload'"


@dataclass(frozen=True, slots=True)
class Event:
    """why: one clause on where its times come from."""

    name: str
    span: Span
    why: str


@dataclass(frozen=True, slots=True)
class Race:
    """code: a short name that stays the same. first must not be longer than last, both in seconds and named in words.

    strict: they must not even be equal. otherwise: what happens when it does not fit. setting: what to set, in which file;
    of: whose setting it is.
    """

    code: str
    name: str
    first: float | None
    last: float | None
    first_is: str
    last_is: str
    otherwise: str
    setting: str
    of: Owner
    strict: bool = True

    @property
    def misfit(self) -> str:
        """What follows where it does not fit: one sentence, without the full stop."""
        first, last = (_UNKNOWN if time is None else f"{time:.1f} s" for time in (self.first, self.last))
        return f"{self.first_is} ({first}) must be less than {self.last_is} ({last}), else {self.otherwise}"

    def remedy(self, storage: str, resource: str) -> str:
        """One sentence, without the full stop."""
        return f"Set {self.setting}, then {self.of.value.format(storage=storage, resource=resource)}"

    @property
    def fits(self) -> bool | None:
        """None: a time is not known, which counts as not fitting."""
        if self.first is None or self.last is None:
            return None
        return self.first < self.last or (self.first == self.last and not self.strict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """events: in the order of their earliest times; those with an unknown one last."""

    events: tuple[Event, ...]
    races: tuple[Race, ...]

    @property
    def fits(self) -> bool:
        return all(race.fits is True for race in self.races)


def timeline(inputs: Inputs) -> Timeline:
    """What happens when, and which of it comes in time."""
    times = times_of(inputs)
    events = sorted(_events(inputs, times), key=_order)
    return Timeline(tuple(events), tuple(_races(inputs, times)))


def _events(inputs: Inputs, times: Times) -> Iterator[Event]:
    yield Event("the link is cut", Span(0.0, 0.0), "the hour zero of this table")
    yield Event("DRBD freezes its I/O", times.frozen, "ping-timeout to 2 x ping-int + ping-timeout")
    yield Event("corosync forms a ring without the other node", times.ring, "token + consensus")
    yield Event("the node that is given the vote is quorate", times.quorate, f"up to {VOTE_LATEST:g} s after the ring")
    yield Event("the other node is no longer quorate", times.unquorate, "with the ring, or a QDevice's timeout later")
    yield Event("the quorate node goes on", times.goes_on, "held since the freeze, and no event of corosync since")
    why = "in one membership with the other: after token + consensus, sooner where that refuses the connection"
    yield Event("a node that cannot win resets itself", times.gives_way, why)
    why = "only DRBD's link is cut, and both are in one membership"
    yield Event("the node with the higher id gives way", times.tie_break, why)
    yield Event("the node with the lower id goes on", times.tie_won, "once corosync has seen the other leave")
    if inputs.qdevice is not False:
        yield Event("a vote that qnetd keeps back is decided", times.silent, "qnetd is silent: QDevice's sync_timeout")
    yield Event("OCFS2 resets a node that is still frozen", times.reset, "its dead time after the last beat")
    yield Event("o2net's loss resets a node", times.o2net, "only o2net's link is cut: idle time, dead time, 3 beats")
    yield Event("Proxmox HA starts the lost node's guests", times.ha, "the watchdog, then as long again")


def _races(inputs: Inputs, times: Times) -> Iterator[Race]:
    yield from _about_drbd(inputs, times)
    yield from _about_corosync(inputs, times)
    yield from _about_dead_time(inputs, times)
    yield from _about_the_guard(inputs, times)


def _about_drbd(inputs: Inputs, times: Times) -> Iterator[Race]:
    yield Race(
        "detection",
        "Both nodes freeze before one goes on",
        times.frozen.latest,
        total(times.frozen.earliest, inputs.hold),
        "the other node's latest freeze",
        f"the earliest freeze here and {inputs.hold:g} s of holding",
        "the other node still reads what this one has already overwritten",
        *_ping(inputs),
        strict=False,
    )
    yield Race(
        "reconnect",
        "DRBD connects again before a node gives way for nothing",
        total(inputs.connect_int, 1.0),
        inputs.give_way,
        "connect-int and a second for the handshake",
        "giving way, once corosync sees both nodes again",
        "a node resets itself though the link is back",
        f"'connect-int {most_connect_int(inputs):g};' in net {{ }} of the DRBD resource",
        Owner.DRBD,
    )


def _about_corosync(inputs: Inputs, times: Times) -> Iterator[Race]:
    yield Race(
        "pause",
        "A node that paused unnoticed is still a member",
        inputs.pause,
        times.ring.earliest,
        "the longest pause that is not counted as one",
        "the earliest ring without this node, 0.6 x token + consensus",
        "a node that was left out while it paused takes itself for a member still, and both may go on",
        *_totem(),
    )
    if inputs.qdevice is not False:
        yield Race(
            "late-ring",
            "Both nodes have told qnetd of their rings before one goes on",
            total(inputs.pause, times.ring.latest, _negative(times.ring.earliest), QNETD_ANSWER_SECONDS),
            inputs.stable,
            "a pause that does not count, the time by which rings differ, 0.4 x token, and qnetd's answer",
            "the vote's age at a win",
            "a node that had lost its vote unnoticed may get it back after the other has gone on",
            *_totem(),
        )
    yield Race(
        "lookback",
        "A vote lost before the freeze still counts",
        total(times.frozen.latest, times.unquorate.latest),
        inputs.lookback,
        "DRBD's latest freeze and corosync's latest loss of the vote, one after the other",
        "how far back the guard looks",
        "a node that has lost its vote and got it back before it froze takes itself for unbeaten",
        *_too_long(inputs),
    )


def _about_dead_time(inputs: Inputs, times: Times) -> Iterator[Race]:
    wanted = recommended(inputs)
    least = threshold_for(times_of(wanted))
    if inputs.dead is not None and inputs.dead >= (least - 1) * BEAT_SECONDS:
        remedy = _too_long(inputs)  # its dead time will do, once the others are shorter
    else:
        remedy = f"O2CB_HEARTBEAT_THRESHOLD={least} in /etc/default/o2cb on every node", Owner.OCFS2
    by_then, is_that = total(inputs.dead, -BEAT_SECONDS), "OCFS2's dead time less a beat"
    both = "OCFS2 resets both nodes before one may go on"
    yield Race(
        "ordinary-win",
        "The quorate node goes on before OCFS2 resets it",
        total(times.goes_on.latest, LOAD_SECONDS),
        by_then,
        "freezing or voting, and holding, on a busy machine",
        is_that,
        both,
        *remedy,
    )
    yield Race(
        "tie-break",
        "With only DRBD's link cut, one node leaves and the other goes on in time",
        total(times.tie_won.latest, LOAD_SECONDS),
        by_then,
        "freezing, the tie-break, the other's leaving and the vote, on a busy machine",
        is_that,
        both,
        *remedy,
    )
    if inputs.qdevice is not False:
        yield Race(
            "qnetd-silent",
            "A vote that qnetd gives late comes in time",
            total(times.silent.latest, LOAD_SECONDS),
            by_then,
            "token + consensus + the QDevice's sync_timeout, on a busy machine",
            is_that,
            "OCFS2 resets both nodes although one could still have won",
            *remedy,
        )
    yield Race(
        "o2net",
        "OCFS2 judges a silent node after fencing has",
        times.decided,
        times.o2net.earliest,
        "the latest decision of all",
        "o2net's idle time, dead time and 3 beats, at the earliest",
        "OCFS2 resets the node that has just been chosen to go on",
        "O2CB_IDLE_TIMEOUT_MS=30000 in /etc/default/o2cb on every node",
        Owner.OCFS2,
    )


def _about_the_guard(inputs: Inputs, times: Times) -> Iterator[Race]:
    yield Race(
        "guard-watchdog",
        "A guard that merely paused is not ended",
        inputs.pause,
        inputs.guard_watchdog,
        "the longest pause that is not counted as one",
        "systemd's watchdog for the guard",
        "the guard is started anew and has forgotten what it saw, so that this node cannot win",
        f"WatchdogSec={2 * inputs.pause:g} in pvedrbdstor-fence.service",
        Owner.SYSTEMD,
    )
    yield Race(
        "ha",
        "A node goes on before Proxmox HA starts guests on it",
        times.decided,
        total(inputs.ha_watchdog, HA_RESTART_SECONDS),
        "the latest decision of all",
        "HA's watchdog and its wait",
        "HA starts the other node's guests on a storage that is still frozen, and their start fails",
        *_too_long(inputs),
    )


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _ping(inputs: Inputs) -> tuple[str, Owner]:
    """drbd.conf(5): timeout must be below ping-int."""
    most = most_ping_int(inputs)
    lines = f"'ping-int {most:g};', 'ping-timeout 10;' (1 s) and 'timeout {most * 10 - 5:g};' (below ping-int)"
    return f"{lines} in net {{ }} of the DRBD resource", Owner.DRBD


def _totem() -> tuple[str, Owner]:
    lines = "'token: 3000', no consensus and 'token_coefficient: 0' in totem { } of /etc/pve/corosync.conf"
    return lines, Owner.COROSYNC


def _too_long(inputs: Inputs) -> tuple[str, Owner]:
    """The first of the times that together are too long."""
    wanted = recommended(inputs)
    if (wanted.ping_int, wanted.ping_timeout) != (inputs.ping_int, inputs.ping_timeout):
        return _ping(inputs)
    if (wanted.token, wanted.consensus) != (inputs.token, inputs.consensus):
        return _totem()
    lines = "'timeout: 10000' and 'sync_timeout: 30000' in quorum { device { } } of /etc/pve/corosync.conf"
    return lines, Owner.COROSYNC


def _order(event: Event) -> tuple[bool, float, float]:
    span = event.span
    if span.earliest is None or span.latest is None:
        return True, 0.0, 0.0
    return False, span.earliest, span.latest
