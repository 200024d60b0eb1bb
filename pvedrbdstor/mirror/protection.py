"""Whether a failure could make two histories of one mirror: what makes a working mirror `unprotected`. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pvedrbdstor.drbd.config import FENCED, ResourceConfig
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.drbd.remedies import taken_up
from pvedrbdstor.fencing.paths import HANDLER, UNFENCE
from pvedrbdstor.fencing.times import ARBITRATION_SECONDS, DEAD_THRESHOLD_MIN
from pvedrbdstor.mirror.arbitration import arbitration
from pvedrbdstor.mirror.facts import Drbd, Facts
from pvedrbdstor.mirror.finding import Finding, Kind, Severity

_DETECTION_DEFAULT = 20.5  # 2 x ping-int 10 s + ping-timeout 0.5 s

_FENCE = (
    f'Write `fencing resource-and-stonith;` in {{section}} and `fence-peer "{HANDLER}"; unfence-peer "{UNFENCE}";` in handlers {{{{ }}}} of resource '
    "{resource} in drbd.conf on both nodes, {taken_up} (docs/fencing.md)"
)


def protection(facts: Facts) -> Iterator[Finding]:
    """What is missing. A mirror that may only ever have one Primary, or is down, needs no fencing."""
    if facts.drbd is None:
        return
    config = facts.config
    judged = False
    if config is None:
        look = f"Look at 'drbdsetup show {facts.resource}'"
        yield _unprotected("It is not known whether DRBD fences its peer before it goes on alone", look)
    elif config.allow_two_primaries is not False:
        yield from _fencing(facts, config, facts.drbd)
        yield from _quorum(facts, config)
        judged = facts.own_handler
    if config is not None:
        yield from _split_brain(facts, config)
    if judged:
        yield from arbitration(facts)
    else:
        yield from _dead_time(facts)


def _split_brain(facts: Facts, config: ResourceConfig) -> Iterator[Finding]:
    """All but 'disconnect' throw one side's writes away unasked, but retry-connect, which hides that there are two sides.

    call-pri-lost-after-sb too: it does what after-sb-0pri decides, and hands the loser, a Primary, to a handler.
    """
    wrong = dict(option for net in config.nets for option in net.undisconnected)
    if not wrong:
        return
    found = ", ".join(f"{option} is '{policy}'" for option, policy in wrong.items())
    if set(wrong.values()) == {"retry-connect"}:
        cause = f"Where the copies contradict the roles, DRBD tries again and again instead of stopping for a decision: {found}"
    else:
        cause = f"After a split brain DRBD may discard one side's writes unasked: {found}"
    lines = " ".join(f"{option} disconnect;" for option in wrong)
    remedy = f"Write `{lines}` in net {{ }} of resource {facts.resource} in drbd.conf on both nodes, {taken_up(facts.resource)}"
    yield _unprotected(cause, remedy, what="split-brain policies")


def _fencing(facts: Facts, config: ResourceConfig, drbd: Drbd) -> Iterator[Finding]:
    if facts.generation is Generation.V8_4 and drbd.disk == "Diskless" and facts.volume not in config.disk_fencing:
        return  # without a disk 8.4 has no policy in force, and without a peer no data to diverge
    remedy = _FENCE.format(section=_section(facts), resource=facts.resource, taken_up=taken_up(facts.resource))
    policy = config.fencing(facts.volume)
    if policy != FENCED:
        found = f"fencing is '{policy}'" if policy is not None else "its fencing policy is not known"
        yield _unprotected(f"Both nodes may be Primary and {found}: a cut link becomes a split brain unnoticed", remedy)
    elif facts.fence_handler is not True:
        found = "DRBD has no fence-peer handler" if facts.fence_handler is False else "no fence-peer handler is known"
        yield _unprotected(f"Fencing is on but {found}: after a cut link I/O stays frozen on both nodes", remedy)


def _section(facts: Facts) -> str:
    return "disk { }" if facts.generation is Generation.V8_4 else "net { }"


def _quorum(facts: Facts, config: ResourceConfig) -> Iterator[Finding]:
    if config.quorum != "off" and config.on_no_quorum == "io-error":
        remedy = f"Write `on-no-quorum suspend-io;` in options {{ }} of resource {facts.resource} in drbd.conf on both nodes, {taken_up(facts.resource)}"
        yield _unprotected("A lost quorum fails I/O, on which OCFS2 aborts its journal", remedy)


def _dead_time(facts: Facts) -> Iterator[Finding]:
    """o2hb's dead time must leave time for DRBD to notice a loss and for a handler to decide, which is not known of others'."""
    if facts.o2cb is None and facts.mount.mounted is not True:
        return
    seconds = facts.o2cb.dead_seconds if facts.o2cb is not None else None
    detection = facts.config.detection if facts.config is not None else None
    decided = (_DETECTION_DEFAULT if detection is None else detection) + ARBITRATION_SECONDS
    needed = max(decided, (DEAD_THRESHOLD_MIN - 1) * 2)
    remedy = (
        f"Set O2CB_HEARTBEAT_THRESHOLD={math.ceil(needed / 2) + 1} in /etc/default/o2cb on every node, run 'pvedrbdstor "
        f"mirror down {facts.storage}' on all of them, and only then 'pvedrbdstor mirror up {facts.storage}'"
    )
    if seconds is None:
        yield _unprotected("OCFS2's dead time is not known", remedy)
    elif seconds < needed:
        yield _unprotected(
            f"OCFS2's dead time of {seconds} s is too short: after a cut link both nodes may reset themselves "
            f"before fencing has decided, which takes up to {needed:.0f} s",
            remedy,
        )


def _unprotected(cause: str, remedy: str, what: str = "") -> Finding:
    return Finding(Kind.UNPROTECTED, f"{cause}.", f"{remedy}.", Severity.ERROR, what=what)
