"""What only the stream of events tells of a lost peer: since when, what it was, and whether DRBD met a split brain.

DRBD's state says 'Primary/Unknown' for a peer that was switched off an hour ago as well as for one that has been writing
to its own copy ever since. Nothing in this file does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pvedrbdstor.drbd.events2 import Event

_ROLES = ("Primary", "Secondary")
REJOIN_SECONDS = 8
"""The shortest time in which a lost peer connects, becomes Primary, mounts (o2cb's heartbeat must become steady) and
can be lost again."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A peer without a connection.

    seconds: since the connection was lost. peer_role: the peer's role just before. Both None when nobody saw it.
    split_brain: DRBD called its split-brain handler since; None when nobody watched.
    peer_off: someone who can know (an administrator, a fencing device) says that the peer does not run.
    refused: the peer was reached again and hung up before the copies were compared here. The one of 8.4's two nodes that
    finds a split brain first does so, and the other one then never calls its handler; so does a link that breaks just then.
    """

    seconds: float | None = None
    peer_role: str | None = None
    split_brain: bool | None = None
    peer_off: bool = False
    refused: bool = False


@dataclass
class _Peer:
    state: str | None = None
    connected: bool = False
    role: str | None = None
    lost_at: float | None = None
    split_brain: bool | None = None
    refused: bool = False


@dataclass
class History:
    """Fed with every event in its order; `now` is a clock in seconds that never goes back."""

    _peers: dict[tuple[str, int], _Peer] = field(default_factory=dict)

    def apply(self, event: Event, now: float) -> None:
        """Take one event in."""
        resource = event.values.get("name")
        if not resource:
            return
        peer_id = event.values.get("peer-node-id", "")
        key = (resource, int(peer_id)) if peer_id.isascii() and peer_id.isdigit() and len(peer_id) < 10 else None
        if event.object == "connection" and key is not None:
            self._connection(self._peers.setdefault(key, _Peer()), event, now)
        elif event.object == "resource" and event.verb == "destroy":
            self._peers = {key: peer for key, peer in self._peers.items() if key[0] != resource}
        elif event.object == "helper" and event.verb == "call" and event.values.get("helper") == "split-brain":
            for known, peer in self._peers.items():
                if known == key or (key is None and known[0] == resource):
                    peer.split_brain = True

    def interrupted(self) -> None:
        """Events were missed: what a connected peer is now must be told anew before it counts."""
        for peer in self._peers.values():
            if peer.connected:
                peer.role = None

    def to_json(self) -> list[dict[str, object]]:
        """All that is known, for from_json() after a restart of the watcher; times stay those of the same clock."""
        return [{"resource": name, "peer": peer, **asdict(known)} for (name, peer), known in self._peers.items()]

    @classmethod
    def from_json(cls, data: object, blind: float) -> History:
        """What an earlier watcher knew, who stopped looking ``blind`` seconds ago; what does not fit is passed over.

        In that time a lost peer may have come back, become Primary and been lost anew, if it was long enough for that.
        """
        history = cls()
        for entry in data if isinstance(data, list) else ():
            if isinstance(entry, Mapping) and (found := _peer_from(entry)) is not None:
                name, number, peer = found
                if blind > REJOIN_SECONDS and not peer.connected:
                    peer.role = None
                history._peers[name, number] = peer
        history.interrupted()
        return history

    def loss(self, resource: str, peer_node_id: int, now: float) -> Loss | None:
        """None for a peer that is connected, or was never heard of."""
        peer = self._peers.get((resource, peer_node_id))
        if peer is None or peer.connected:
            return None
        seconds = None if peer.lost_at is None else max(0.0, now - peer.lost_at)
        return Loss(seconds=seconds, peer_role=peer.role, split_brain=peer.split_brain, refused=peer.refused)

    @staticmethod
    def _connection(peer: _Peer, event: Event, now: float) -> None:
        """A connection counts once the peer has told its role: 8.4 calls it Connected before the handshake, which may
        yet find a split brain."""
        if event.verb == "destroy":
            peer.state = None
        elif "connection" in event.values:
            hung_up = peer.state == "Connected" and not peer.connected and event.values["connection"] != "Connected"
            peer.refused = peer.refused or (hung_up and not peer.split_brain)
            peer.state = event.values["connection"]
        if peer.state == "Connected":
            if event.values.get("role") in _ROLES:
                peer.connected, peer.role = True, event.values["role"]
                peer.lost_at, peer.split_brain, peer.refused = None, False, False
        elif peer.connected:
            peer.connected, peer.lost_at = False, now


def _peer_from(entry: Mapping[str, object]) -> tuple[str, int, _Peer] | None:
    """One entry of to_json(); None for what is none."""
    name, number = entry.get("resource"), entry.get("peer")
    state, role = entry.get("state"), entry.get("role")
    lost_at, split_brain = entry.get("lost_at"), entry.get("split_brain")
    if not isinstance(name, str) or not isinstance(number, int) or split_brain not in (None, True, False):
        return None
    return (
        name,
        number,
        _Peer(
            state=state if isinstance(state, str) else None,
            connected=entry.get("connected") is True,
            role=role if role in _ROLES and isinstance(role, str) else None,
            lost_at=float(lost_at) if isinstance(lost_at, int | float) else None,
            split_brain=None if split_brain is None else bool(split_brain),
            refused=entry.get("refused") is True,
        ),
    )
