"""What DRBD on one node must say before its reads of the mirror prove anything, and what it says. No I/O here.

DRBD serves a read from the local disk while that is UpToDate, and from the peer otherwise; then the copies would be found equal
because one of them was read twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.drbd.proc_drbd import ProcDevice
from pvedrbdstor.verify import values

_SYNC_STATES = frozenset(f"{state}{end}" for state in ("StartingSync", "WFBitMap", "PausedSync") for end in "ST") | {
    "WFSyncUUID",
    "SyncSource",
    "SyncTarget",
}
VERIFY_STATES = frozenset({"VerifyS", "VerifyT"})
_REPLICATING = _SYNC_STATES | VERIFY_STATES | {"Ahead", "Behind"}
_WRAP_8_4 = 1 << 31
"""KiB after which 8.4's `dr:` and `dw:` begin anew: `unsigned int` sectors (read_cnt, writ_cnt in drbd_int.h), printed halved (drbd_proc.c)."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """DRBD's words on one volume at one moment; None where it did not tell, all of them where the resource is down.

    replication: `Established` while nothing but replication goes on (8.4 calls that Connected). out_of_sync: KiB that DRBD knows to
    differ. outstanding: requests that have not ended on the disk, at the peer and for users. written, read: KiB of the local disk
    since it was attached; a read that the peer has served is not counted. writes, write_ms: of the DRBD device (/sys/block/*/stat).
    open_writes: begun on it and not ended (/sys/block/*/inflight).
    wrap: KiB after which written and read begin anew, None where they never do.
    """

    role: str | None = None
    disk: str | None = None
    connection: str | None = None
    replication: str | None = None
    peer_disk: str | None = None
    suspended: bool = False
    quorum: bool | None = None
    out_of_sync: int | None = None
    outstanding: int | None = None
    written: int | None = None
    read: int | None = None
    writes: int | None = None
    write_ms: int | None = None
    open_writes: int | None = None
    wrap: int | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the copies cannot be compared, in one sentence, and what to do."""

    cause: str
    remedy: str


def of_proc(device: ProcDevice) -> NodeState:
    """From /proc/drbd of 8.4, where the connection and the replication are one word."""
    counters = device.counters
    replicating = device.connection in _REPLICATING
    established = device.connection == "Connected"
    return NodeState(
        role=device.role,
        disk=device.disk,
        connection="Connected" if replicating or established else device.connection,
        replication="Established" if established else device.connection if replicating else "Off",
        peer_disk=device.peer_disk,
        suspended=device.flags.suspended,
        out_of_sync=counters.oos if counters else None,
        outstanding=counters.lo + counters.pe + counters.ua + counters.ap if counters else None,
        written=counters.dw if counters else None,
        read=counters.dr if counters else None,
        wrap=_WRAP_8_4,
    )


def of_events(state: State, resource: str, volume: int) -> NodeState:
    """From `drbdsetup events2 --now --statistics`, for 9 (and 8.4, whose /proc/drbd is quicker)."""
    own = next((found for found in state.resources if found.name == resource), None)
    device = next((found for found in state.devices if (found.resource, found.volume) == (resource, volume)), None)
    if own is None or device is None or not state.complete:
        return NodeState()
    peers = [
        found
        for found in state.peer_devices
        if (found.resource, found.volume) == (resource, volume) and found.client is not True
    ]
    with_disk = {found.peer_node_id for found in peers}
    connections = [
        found for found in state.connections if found.resource == resource and found.peer_node_id in with_disk
    ]
    peer = peers[0] if len(peers) == 1 else None
    counts = (
        device.upper_pending,
        device.lower_pending,
        *(n for found in peers for n in (found.pending, found.unacked)),
    )
    told = [count for count in counts if count is not None]
    return NodeState(
        role=own.role,
        disk=device.disk,
        connection=connections[0].state if len(connections) == 1 else "StandAlone" if not connections else None,
        replication=peer.replication if peer else None,
        peer_disk=peer.disk if peer else None,
        suspended=bool(own.suspended) or own.failing is True,
        quorum=device.quorum,
        out_of_sync=peer.out_of_sync if peer else None,
        outstanding=sum(told) if len(told) == len(counts) else None,
        written=device.written,
        read=device.read,
    )


def with_stat(state: NodeState, text: str) -> NodeState:
    """With the writes of /sys/block/drbdN/stat (Documentation/block/stat.rst): the fifth number and the eighth."""
    words = text.split()
    if len(words) < 8 or not all(word.isdecimal() for word in words[:8]):
        return state
    return replace(state, writes=int(words[4]), write_ms=int(words[7]))


def obstacle(state: NodeState, node: str, storage: str, resource: str) -> Obstacle | None:
    """Why reads on ``node`` prove nothing now; None where its local disk serves them and is as DRBD wants it."""
    again = f"then run 'pvedrbdstor verify {storage}' again"
    up = f"Run 'pvedrbdstor mirror up {storage}' on {node}, {again}"
    status = f"'pvedrbdstor mirror status {storage}' on {node} says"
    if state.disk is None or state.connection is None:
        return Obstacle(f"DRBD's resource {resource} is down on {node}, or does not tell its state", up)
    if "Diskless" in (state.disk, state.peer_disk):
        where = node if state.disk == "Diskless" else f"the peer of {node}"
        return Obstacle(
            f"{where} is Diskless: that would read the peer and prove nothing",
            f"Look at 'dmesg' there for what became of its disk, 'drbdadm attach {resource}' there, wait for the resync, {again}",
        )
    if state.connection == "StandAlone":
        return Obstacle(
            f"{node} is StandAlone, so that its copy has a history of its own or will have",
            f"See what {status}; after a split brain 'pvedrbdstor split-brain show {storage}' tells more",
        )
    if state.suspended:
        return Obstacle(f"DRBD has frozen the I/O of {node}", f"See what {status}")
    if state.connection != "Connected":
        return Obstacle(f"{node} is not connected to its peer ({state.connection})", f"See what {status}")
    if state.replication in _SYNC_STATES:
        return Obstacle(f"a resync is running ({state.replication} on {node})", f"Wait for its end, {again}")
    if state.replication in VERIFY_STATES:
        return Obstacle(
            f"DRBD's own verify is running ({state.replication} on {node})",
            f"Wait for its end, or follow it with 'pvedrbdstor verify {storage} --mode kernel'",
        )
    if state.disk != "UpToDate":
        return Obstacle(f"the disk of {node} is {state.disk}, not UpToDate", f"See what {status}")
    if state.replication != "Established":
        return Obstacle(f"{node} does not replicate ({state.replication or 'not told'})", f"See what {status}")
    if state.peer_disk != "UpToDate":
        return Obstacle(f"{node} knows its peer's disk as {state.peer_disk}, not UpToDate", f"See what {status}")
    if state.quorum is False:
        return Obstacle(f"{node} has no quorum", f"See what {status}")
    if state.role != "Primary":
        return Obstacle(f"{node} is {state.role}, and DRBD lets nobody read there", up)
    return None


def unlike(before: NodeState, now: NodeState, node: str, expected_kib: int = 0) -> Obstacle | None:
    """What has happened between two good states that no state tells any more.

    expected_kib: what this node was asked to read meanwhile; what DRBD does not count as read from its disk came from the peer, as it
    does when the disk fails or `read-balancing` says so.
    """
    again = "Look at 'dmesg' there, then run it again"
    if _attached_anew(before, now):
        return Obstacle(f"the disk of {node} was taken away and attached again meanwhile", again)
    if before.out_of_sync != now.out_of_sync:
        told = f"{before.out_of_sync} KiB, now {now.out_of_sync} KiB"
        return Obstacle(
            f"DRBD on {node} has found or mended differences meanwhile (out of sync: {told})",
            f"A disk that fails, a verify or a resync does that. {again}",
        )
    read = _since(before.read, now.read, now.wrap)
    if read is not None and read < expected_kib - 1:
        return Obstacle(
            f"not all of what {node} read came from its own disk: {expected_kib} KiB were asked for, and DRBD has counted {read}",
            again,
        )
    return None


def still(before: NodeState, now: NodeState) -> bool:
    """Whether this node's users wrote nothing from before ``before`` to after ``now``: no request was open at either moment, and none has ended in
    between. Each is counted, as KiB would hide one of 512 bytes, such as o2cb's heartbeat writes. What the peer's users write is for the peer to tell.
    """
    return before.outstanding == now.outstanding == 0 and before.writes is not None and before.writes == now.writes


def as_json(state: NodeState) -> dict[str, object]:
    return asdict(state)


def from_json(data: Mapping[str, object]) -> NodeState:
    """Raises ValueError for what is none; what is not known here is passed over."""
    return values.read(NodeState, data)


def _attached_anew(before: NodeState, now: NodeState) -> bool:
    """Whether the counters began anew, as an attach sets both to 0 (drbd_adm_attach() in drbd_nl.c).

    Where they wrap, one that fell may just have come round; but hardly both at once, nor by more than half of the round between two looks.
    """
    pairs = ((before.read, now.read), (before.written, now.written))
    if any(_fell(*pair) and pair[1] is None for pair in pairs):
        return True
    fell = [pair for pair in pairs if _fell(*pair)]
    if not now.wrap:
        return bool(fell)
    return len(fell) == len(pairs) or any((_since(*pair, now.wrap) or 0) > now.wrap // 2 for pair in fell)


def _since(before: int | None, now: int | None, wrap: int | None) -> int | None:
    """How far a counter has gone."""
    if before is None or now is None:
        return None
    return (now - before) % wrap if wrap else now - before


def _fell(before: int | None, now: int | None) -> bool:
    return before is not None and (now is None or now < before)
