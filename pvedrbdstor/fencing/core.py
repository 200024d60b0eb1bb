"""What one guard remembers between two looks, and what follows from each: outages, what corosync said, its own pauses. No
I/O here: the guard feeds it, and does what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pvedrbdstor.fencing import constants as seconds
from pvedrbdstor.fencing import rules
from pvedrbdstor.fencing.rules import Answer, Decision, Gap, Mirror, Outage, Quorum, Ring

_RINGS_MAX = 2000
_SILENT_SECONDS = 45.0
"""Longer than a membership change, in which it does not answer, with a QDevice's sync_timeout."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A resource about which a fence-peer handler waits for an answer. peer: its node id in corosync, None if unknown."""

    resource: str
    peer: int | None


class Core:
    """Of the node ``me`` (its node id in corosync, None while that is not known). Times are seconds of CLOCK_BOOTTIME.

    now: of its start, before which it has seen nothing. remembered: outages that an earlier guard knew of, looked: when it
    last looked at them.
    """

    def __init__(
        self,
        now: float,
        me: int | None = None,
        remembered: Mapping[str, Outage] | None = None,
        looked: float | None = None,
    ) -> None:
        self.me = me
        self.quorum = Quorum(gaps=(Gap(now, "the guard has just been started"),))
        self.outages: dict[str, Outage] = dict(remembered or {})
        self._looked = now if looked is None else looked
        self._ran = now

    # --- corosync ---

    def corosync_ran(self, now: float) -> None:
        """Its process has had the processor since it was last asked about. One that is stopped says nothing, and its last word
        stands, while the other node forms a ring without it. To be told after look()."""
        self._notice_stop(now)
        self._ran = now

    def ring(self, ring: Ring) -> None:
        """A notification of libquorum. Each counts, not only the newest."""
        rings = (*self.quorum.rings, ring)
        if len(rings) > _RINGS_MAX:
            self.gap(ring.at, "corosync's ring changes without end")
            rings = rings[-_RINGS_MAX // 2 :]
        self.quorum = replace(self.quorum, rings=rings)

    def confirmed(self, asked_at: float, quorate: bool, cast: bool = True) -> None:
        """Corosync has answered a question of that time, all notifications from before it having been taken in.

        cast: the QDevice, if there is one, casts its vote for this node. While both nodes are members its loss changes no
        majority, and nothing else would tell of it.
        """
        self.quorum = replace(self.quorum, confirmed_at=asked_at, confirmed=quorate)
        if not cast:
            self.gap(asked_at, "the QDevice cast no vote")

    def gap(self, now: float, why: str) -> None:
        """Something may have been missed: a lost connection to corosync, a pause. The same again makes it longer."""
        gaps = tuple(gap for gap in self.quorum.gaps if gap.why != why)
        self.quorum = replace(self.quorum, gaps=(*gaps, Gap(now, why)))

    def judged(self, now: float, unfit: str | None, leave: float = seconds.LEAVE_SECONDS) -> None:
        """Whether quorum decides anything here at all; what it said while it did not is worth nothing afterwards either."""
        self.quorum = replace(self.quorum, unfit=unfit, leave=leave)
        if unfit is not None:
            self.gap(now, "quorum could not judge")

    # --- DRBD ---

    def look(self, now: float, mirrors: Mapping[str, Mirror]) -> None:
        """The state of all resources now. Begins and ends outages, and notices that too long passed since the last look."""
        self._notice_pause(now)
        self._notice_stop(now)
        for resource, mirror in mirrors.items():
            outage = self.outages.get(resource)
            if mirror.whole:
                self.outages.pop(resource, None)
            elif outage is None:
                if mirror.frozen:
                    self.outages[resource] = _seen(Outage(began=now), mirror, now)
            else:
                self.outages[resource] = _seen(outage, mirror, now)
        for resource in self.outages.keys() - mirrors.keys():
            del self.outages[resource]  # it was taken down: what comes up again is not Primary
        oldest = min((outage.began for outage in self.outages.values()), default=now)
        rings, gaps = rules.pruned(self.quorum, oldest)
        self.quorum = replace(self.quorum, rings=rings, gaps=gaps)

    def decide(self, now: float, asked: Asked, mirror: Mirror | None) -> Decision:
        """What to do about a handler that waits. That a node gives way is remembered here, that it has won by win()."""
        if mirror is not None and mirror.role == "Primary" and not mirror.connected:
            outage = self.outages.setdefault(asked.resource, Outage(began=now))
        else:
            outage = Outage(began=now)
        if self.me is None:
            return Decision(Answer.WAIT, "corosync has not told this node's id")
        decision = rules.decide(now, self.me, asked.peer, mirror, outage, self.quorum)
        if decision.answer is Answer.GIVE_WAY:
            self.outages[asked.resource] = replace(outage, gave_way=True)
        return decision

    def win(self, resources: Iterable[str], won: bool = True) -> None:
        """This node goes on with these, or does not after all."""
        for resource in resources:
            self.outages[resource] = replace(self.outages[resource], won=won)

    def handicap(self, now: float) -> str | None:
        """Why this node could not win an outage that began now, None if it could. Passes by itself after LOOKBACK_SECONDS."""
        if self.me is None:
            return "corosync has not told this node's id"
        if self.quorum.unfit is not None:
            return self.quorum.unfit
        silent = None if self.quorum.confirmed_at is None else now - self.quorum.confirmed_at
        if silent is None or silent > _SILENT_SECONDS:
            return "corosync does not answer" + (f" for {silent:.0f} s" if silent is not None else "")
        whole = Mirror("Primary", "Connected", "UpToDate", "UpToDate", suspended=False)
        current = self.quorum.current
        others = current.members - {self.me} if current is not None else frozenset()
        return rules.unable(self.me, min(others, default=self.me), whole, Outage(began=now), self.quorum)

    def _notice_stop(self, now: float) -> None:
        if now - self._ran > seconds.PAUSE_SECONDS:
            self.gap(now, "corosync did not run")

    def _notice_pause(self, now: float) -> None:
        paused = now - self._looked
        self._looked = now
        if paused <= seconds.PAUSE_SECONDS:
            return
        self.gap(now, f"the guard did not run for {paused:.1f} s")
        self._ran = now  # nobody looked
        for resource, outage in self.outages.items():
            if outage.won:  # the outage may be over, and another one have begun
                self.outages[resource] = replace(outage, won=False)


def _seen(outage: Outage, mirror: Mirror, now: float) -> Outage:
    if mirror.connection != "StandAlone":
        return replace(outage, standalone_since=None)
    return outage if outage.standalone_since is not None else replace(outage, standalone_since=now)
