"""A model of two nodes, corosync, a QDevice's qnetd and DRBD, in steps of a quarter of a second, for the rules to live in.

What it grants the rules, and no more: corosync forms rings as totem does (numbers rise by 4); qnetd acknowledges one partition
at a time, refuses the other before that or has dropped its connection, and a qdevice without a connection casts no vote
(corosync-qdevice's sources); a node whose corosync does not run hears nothing. Delays, link failures, pauses and deaths are
the caller's. A vote may outlive its loss at qnetd by seconds, as no vote is a lease.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

from pvedrbdstor.fencing.core import Asked, Core
from pvedrbdstor.fencing.rules import Answer, Decision, Mirror, Ring

STEP = 0.25
PING_INTERVAL, PING_TIMEOUT = 3.0, 1.0
NODES = (1, 2)
LINKS = ("drbd", "corosync", "q1", "q2")
WARM_UP = 40.0

Draw = Callable[[float, float], float]
"""A delay in seconds from the first to the second bound."""


@dataclass
class Corosync:
    seq: int = 4
    members: frozenset[int] = frozenset(NODES)
    quorate: bool = True
    token_lost_at: float | None = None
    forming_at: float | None = None
    waiting_since: float | None = None
    """Since the new ring formed, until the qdevice has voted: questions are not answered meanwhile."""
    stopped: bool = False


@dataclass
class Qdevice:
    """voting: what corosync has from it. connected: as qnetd sees it. noticed: as it sees it itself."""

    voting: bool = True
    connected: bool = True
    noticed: bool = True
    reported: tuple[int, frozenset[int]] = (4, frozenset(NODES))
    decided: tuple[int, frozenset[int]] = (4, frozenset(NODES))
    """The ring for which qnetd has answered."""
    drop_at: float | None = None
    notice_at: float | None = None
    connect_at: float | None = None


@dataclass
class Node:
    id: int
    core: Core
    corosync: Corosync = field(default_factory=Corosync)
    qdevice: Qdevice = field(default_factory=Qdevice)
    paused: bool = False
    alive: bool = True
    role: str = "Primary"
    connection: str = "Connected"
    disk: str = "UpToDate"
    peer_disk: str = "UpToDate"
    suspended: bool = False
    lose_at: float | None = None
    boot_at: float | None = None
    promote_at: float | None = None
    pending: list[Ring] = field(default_factory=list)
    """Notifications that the guard has not taken yet."""

    @property
    def runs(self) -> bool:
        return self.alive and not self.paused

    @property
    def corosync_runs(self) -> bool:
        return self.runs and not self.corosync.stopped

    @property
    def mirror(self) -> Mirror:
        return _mirror(self.role, self.connection, self.disk, self.peer_disk, self.suspended)


# asked for several times a step; there are few different ones
_mirror = functools.lru_cache(maxsize=None)(Mirror)


class SplitBrain(AssertionError):
    """Two sides were told to go on without having met in between."""


class World:
    """decide: the rule under test, called as Core.decide is; by default the core's own. warm: as all is after WARM_UP."""

    def __init__(
        self, draw: Draw, decide: Callable[[World, Node], Decision] | None = None, *, warm: bool = True
    ) -> None:
        self.now = 0.0
        self.draw = draw
        self.up = dict.fromkeys(LINKS, True)
        self.nodes = {number: Node(number, Core(0.0, number)) for number in NODES}
        self.voted: int | None = None  # the node alone that qnetd has acknowledged, None: both
        self.winner: int | None = None
        self.log: list[str] = []
        self._meet_at: float | None = None
        self._decide = decide or (
            lambda world, node: node.core.decide(world.now, Asked("r0", 3 - node.id), node.mirror)
        )
        if warm:
            self.now, self.nodes, self.log = pickle.loads(_warmed_up())

    def step(self) -> None:
        self.now += STEP
        for node in self.nodes.values():
            self._power(node)
        self._rings()
        for node in self.nodes.values():
            self._qdevice(node)
        self._qnetd()
        for node in self.nodes.values():
            self._votes(node)
        self._drbd()
        for node in self.nodes.values():
            self._guard(node)

    def run(self, duration: float) -> None:
        for _ in range(int(duration / STEP)):
            self.step()

    # --- what the caller breaks ---

    def pause(self, number: int) -> None:
        self.nodes[number].paused = True

    def wake(self, number: int) -> None:
        self.nodes[number].paused = False

    def kill(self, number: int) -> None:
        node = self.nodes[number]
        if node.alive:
            self._say(f"{number} dies")
            node.alive, node.paused = False, False
            node.boot_at = self.now + self.draw(20, 40)

    # --- the machine ---

    def _power(self, node: Node) -> None:
        if node.alive or node.boot_at is None or self.now < node.boot_at:
            return
        self._say(f"{node.id} boots")
        seq = node.corosync.seq
        node.alive, node.boot_at = True, None
        node.core = Core(self.now, node.id)
        node.corosync = Corosync(seq=seq + 5, members=frozenset({node.id}), quorate=False)
        node.qdevice = Qdevice(voting=False, connected=False, noticed=False, connect_at=self.now + self.draw(0, 3))
        node.pending.clear()
        node.role, node.connection, node.suspended = "Secondary", "WFConnection", False
        node.disk, node.peer_disk = "Consistent", "DUnknown"
        node.promote_at = node.lose_at = None
        self._notify(node)

    # --- corosync ---

    def _rings(self) -> None:
        one, other = self.nodes[1], self.nodes[2]
        together = self.up["corosync"] and one.corosync_runs and other.corosync_runs
        for node, peer in ((one, other), (other, one)):
            self._token(node, peer, together)
        if together:
            if any(
                node.corosync.forming_at is not None and self.now >= node.corosync.forming_at for node in (one, other)
            ):
                self._form(frozenset(NODES))
            return
        for node in (one, other):
            if node.corosync_runs and node.corosync.forming_at is not None and self.now >= node.corosync.forming_at:
                self._form(frozenset({node.id}))

    def _token(self, node: Node, peer: Node, together: bool) -> None:
        """Its time runs out whether corosync runs or not; what follows takes a corosync that runs."""
        mine = node.corosync
        in_ring = peer.id in mine.members and peer.corosync.seq == mine.seq and node.id in peer.corosync.members
        if together == in_ring or (not together and mine.members == {node.id}):
            mine.token_lost_at = mine.forming_at = None
        elif mine.token_lost_at is None:
            mine.token_lost_at = self.now + (self.draw(0, 1) if together else self.draw(1.8, 3.0))
        elif node.corosync_runs and mine.forming_at is None and self.now >= mine.token_lost_at:
            mine.forming_at = self.now + (self.draw(1, 2) if together else 3.6)

    def _form(self, members: frozenset[int]) -> None:
        seq = max(self.nodes[number].corosync.seq for number in members) + 4
        for number in members:
            node = self.nodes[number]
            mine = node.corosync
            mine.seq, mine.members, mine.waiting_since = seq, members, self.now
            mine.token_lost_at = mine.forming_at = None
        self._say(f"ring {seq} {sorted(members)}")

    def _votes(self, node: Node) -> None:
        mine = node.corosync
        if not node.corosync_runs:
            return
        if mine.waiting_since is not None:
            answered = node.qdevice.decided == (mine.seq, mine.members) or not node.qdevice.noticed
            if not answered and self.now - mine.waiting_since < 30:
                return
            mine.waiting_since = None
            if not answered:
                node.qdevice.voting = False
            mine.quorate = len(mine.members) + node.qdevice.voting >= 2
            self._notify(node)
            return
        quorate = len(mine.members) + node.qdevice.voting >= 2
        if quorate != mine.quorate:
            mine.quorate = quorate
            self._notify(node)

    def _notify(self, node: Node) -> None:
        mine = node.corosync
        self._say(f"{node.id} {'quorate' if mine.quorate else 'not quorate'} {mine.seq} {sorted(mine.members)}")
        node.pending.append(Ring(self.now, mine.quorate, mine.seq, mine.members))

    # --- the QDevice ---

    def _qdevice(self, node: Node) -> None:
        mine, up = node.qdevice, self.up[f"q{node.id}"] and node.corosync_runs  # it blocks with corosync
        if mine.connected:
            if up:
                mine.drop_at = None
            elif mine.drop_at is None:
                mine.drop_at = self.now + (self.draw(4, 24) if not node.alive or node.paused else self.draw(4, 16))
            elif self.now >= mine.drop_at:
                mine.connected, mine.drop_at = False, None
                self._say(f"qnetd drops {node.id}")
        if not node.corosync_runs:
            return
        if mine.noticed:
            if mine.connected and up:
                mine.notice_at = None
            elif mine.notice_at is None:
                mine.notice_at = self.now + (self.draw(8, 16) if not up else STEP)
            elif up and not mine.connected:  # qnetd has closed the connection: the next packet is refused
                mine.notice_at = min(mine.notice_at, self.now)
            if mine.notice_at is not None and self.now >= mine.notice_at:
                mine.noticed, mine.voting, mine.notice_at = False, False, None
                mine.connect_at = self.now + self.draw(0, 4)
                self._say(f"qdevice {node.id} has lost qnetd")
        elif up and mine.connect_at is not None and self.now >= mine.connect_at and not mine.connected:
            mine.connected = mine.noticed = True
            mine.connect_at = None
            mine.reported = (node.corosync.seq, node.corosync.members)
        elif not mine.noticed and mine.connect_at is None:
            mine.connect_at = self.now + self.draw(0, 4)
        if not mine.noticed and mine.connected:
            mine.connected = False  # the connection it has given up is closed at qnetd, too

    def _qnetd(self) -> None:
        """ffsplit: once all that are connected report memberships that fit, refuse the one, then acknowledge the other."""
        clients = [node for node in self.nodes.values() if node.qdevice.connected]
        for node in clients:
            if self._hears(node):
                node.qdevice.reported = (node.corosync.seq, node.corosync.members)
        reports = {node.id: node.qdevice.reported for node in clients}
        if not reports:
            return
        if len(reports) == 2 and reports[1] != reports[2] and any(len(members) == 2 for _, members in reports.values()):
            return  # not yet stable
        chosen = {number for number in reports if len(reports[number][1]) == 2} or {min(reports)}
        refused = [node for node in clients if node.id not in chosen]
        for node in refused:
            if not self._hears(node):
                if node.qdevice.voting:
                    return  # its answer to the NACK is waited for
                continue
            node.qdevice.decided = node.qdevice.reported
            if node.qdevice.voting:
                node.qdevice.voting = False
                self._say(f"qnetd refuses {node.id}")
        for node in clients:
            if node.id in chosen and self._hears(node):
                node.qdevice.decided = node.qdevice.reported
                if not node.qdevice.voting:
                    node.qdevice.voting = True
                    self._say(f"qnetd acknowledges {node.id}")

    def _hears(self, node: Node) -> bool:
        return self.up[f"q{node.id}"] and node.corosync_runs and node.qdevice.noticed

    # --- DRBD ---

    def _drbd(self) -> None:
        one, other = self.nodes[1], self.nodes[2]
        linked = self.up["drbd"] and one.runs and other.runs
        for node in (one, other):
            if not node.mirror.connected or not node.runs:
                continue
            peer = other if node is one else one
            if linked and peer.mirror.connected:
                node.lose_at = None
            elif node.lose_at is None:
                worst = 2 * PING_INTERVAL + PING_TIMEOUT
                node.lose_at = self.now + (0 if linked else self.draw(PING_TIMEOUT, worst - STEP))
            if node.lose_at is not None and self.now >= node.lose_at:
                self._lose(node)
        if not linked or one.mirror.connected or other.mirror.connected:
            self._meet_at = None
        elif self._meet_at is None:
            self._meet_at = self.now + self.draw(0.5, 3)
        elif self.now >= self._meet_at:
            self._meet(one, other)
        for node in (one, other):
            if node.promote_at is not None and self.now >= node.promote_at and node.mirror.whole and node.runs:
                node.role, node.promote_at = "Primary", None
                self._say(f"{node.id} is promoted")

    def _lose(self, node: Node) -> None:
        node.lose_at = None
        node.connection = "WFConnection"
        if node.peer_disk == "UpToDate":
            node.peer_disk = "DUnknown"
        if node.role == "Primary" and node.peer_disk == "DUnknown":
            node.suspended = True
        elif node.role == "Secondary":
            node.disk = "Consistent" if node.disk == "UpToDate" else node.disk
            node.promote_at = None
        self._say(f"{node.id} has lost the other one{', frozen' if node.suspended else ''}")

    def _meet(self, one: Node, other: Node) -> None:
        """The handshake: two histories stay apart, a copy that fell behind follows."""
        ahead = self.winner
        if ahead is not None and all(node.role == "Primary" for node in (one, other)):
            loser = self.nodes[3 - ahead]
            if loser.connection != "StandAlone":
                loser.connection = "StandAlone"
                self._say(f"{loser.id} is refused")
            return
        if any(node.connection == "StandAlone" for node in (one, other)) or (
            ahead is None and "Inconsistent" in (one.disk, other.disk)
        ):
            return
        for node in (one, other):
            node.connection, node.suspended, node.disk, node.peer_disk = "Connected", False, "UpToDate", "UpToDate"
            if node.role == "Secondary":
                node.promote_at = self.now + self.draw(1, 10)
        self.winner = None
        self._say("connected, both copies the same")

    # --- the guard and the handler ---

    def _guard(self, node: Node) -> None:
        if not node.runs:
            return
        mine = node.corosync
        if not mine.stopped:
            node.core.corosync_ran(self.now)
            for ring in node.pending:
                node.core.ring(ring)
            node.pending.clear()
            if mine.waiting_since is None:
                node.core.confirmed(self.now, mine.quorate, node.qdevice.voting)
        node.core.look(self.now, {"r0": node.mirror})
        if not node.mirror.frozen:
            return
        decision = self._decide(self, node)
        if decision.answer in (Answer.WIN, Answer.GO_ON):
            node.core.win(node.core.outages)
            self._go_on(node)
        elif decision.answer is Answer.GIVE_WAY:
            self._say(f"{node.id} gives way: {decision.why}")
            self.kill(node.id)

    def _go_on(self, node: Node) -> None:
        self._say(f"{node.id} GOES ON")
        if self.winner not in (None, node.id):
            raise SplitBrain("\n".join(self.log))
        self.winner = node.id
        node.suspended, node.peer_disk = False, "Outdated"

    def _say(self, text: str) -> None:
        self.log.append(f"{self.now - WARM_UP:7.2f} {text}")


@functools.cache
def _warmed_up() -> bytes:
    """A world's time, nodes and log after WARM_UP, the same in all of them: nothing breaks and nothing is left to chance meanwhile."""

    def nothing(low: float, high: float) -> float:
        raise AssertionError(f"a delay of {low} to {high} s in a world where all is well")

    world = World(nothing, warm=False)
    for node in world.nodes.values():
        world._notify(node)
    while world.now < WARM_UP:
        world.step()
    return pickle.dumps((world.now, world.nodes, world.log))


def obvious(world: World, node: Node) -> Decision:
    """The rule that facts call unsafe: quorate and the peer absent, whatever was before."""
    current = node.core.quorum.current
    if current is not None and current.quorate and 3 - node.id not in current.members:
        return Decision(Answer.GO_ON, "quorate, and the peer is absent")
    return Decision(Answer.WAIT, "")
