"""Everything a verdict on one storage is made from, as values, and how they come out of what was parsed. No I/O here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pvedrbdstor.drbd.config import ResourceConfig
from pvedrbdstor.drbd.events2 import Connection, PeerDevice, State
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.drbd.history import Loss
from pvedrbdstor.drbd.proc_drbd import ProcDevice, ProcDrbd
from pvedrbdstor.fencing.corosync_conf import CorosyncConf
from pvedrbdstor.fencing.status import Status
from pvedrbdstor.ocfs2.o2cb import Timeouts

UNHEARD_OF = Loss()


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a resync or verify. done: per cent. finish: seconds to go. None where it is not told."""

    done: float | None = None
    finish: int | None = None
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer of the volume, in DRBD's own words; None where DRBD did not tell.

    client: diskless on purpose. out_of_sync: KiB. lost: what is known of the loss of its connection.
    """

    node_id: int
    name: str | None
    connection: str | None
    role: str | None
    replication: str | None
    disk: str | None
    client: bool = False
    paused: frozenset[str] = frozenset()
    out_of_sync: int | None = None
    progress: Progress = Progress()
    lost: Loss = UNHEARD_OF

    @property
    def connected(self) -> bool:
        """And past the handshake, which 8.4 already calls Connected."""
        return self.connection == "Connected" and self.replication != "Off"

    @property
    def has_the_data(self) -> bool:
        """It can be read from now."""
        return self.connected and self.disk == "UpToDate"

    @property
    def known_behind(self) -> bool:
        """DRBD has it on record that this copy is no rival of ours: fenced, outdated, or no copy at all."""
        return self.disk in ("Outdated", "Inconsistent", "Diskless")

    def __str__(self) -> str:
        """For sentences. 8.4 calls every peer 'peer'."""
        return f"'{self.name}'" if self.name not in (None, "peer") else "the other node"


@dataclass(frozen=True, slots=True)
class Drbd:
    """The volume on this node. suspended: why I/O is frozen, with '?' where only /proc/drbd tells that it is."""

    role: str | None
    disk: str | None
    suspended: frozenset[str] | None
    failing: bool
    quorum: bool | None
    client: bool
    peers: tuple[Peer, ...]

    @property
    def missing(self) -> str | None:
        """What DRBD did not tell of the values a verdict needs, None when all is there."""
        if self.role is None or self.disk is None or self.suspended is None:
            return "its own role, disk or I/O state"
        for peer in self.peers:
            if peer.connection is None or (peer.connected and (peer.disk is None or peer.replication is None)):
                return f"the state of {peer}"
        return None

    @property
    def stopped(self) -> bool:
        """No write of this node reaches its copy."""
        return bool(self.suspended) or self.failing or self.quorum is False

    @property
    def data_reachable(self) -> bool:
        """Up-to-date data can be read: from the own disk, or from a connected peer's."""
        return self.disk == "UpToDate" or any(peer.has_the_data for peer in self.peers)


@dataclass(frozen=True, slots=True)
class View:
    """How far the state can be trusted. complete: the initial state was seen whole. age: seconds since it was last
    known to be current, None when never. stale: older than its owner accepts."""

    complete: bool
    age: float | None = 0.0
    stale: bool = False

    @property
    def good(self) -> bool:
        return self.complete and not self.stale and self.age is not None


@dataclass(frozen=True, slots=True)
class Mount:
    """mounted: None when nobody could look. wrong: what mirror.judge has against what is mounted there, None when
    nothing. read_only: it was mounted or has remounted itself so. silent: seconds for which it has not answered."""

    mounted: bool | None
    wrong: str | None = None
    read_only: bool = False
    silent: float | None = None

    @property
    def good(self) -> bool:
        return self.mounted is True and self.wrong is None and not self.read_only and self.silent is None


@dataclass(frozen=True, slots=True)
class Facts:
    """About one storage on this node.

    drbd: None when the view is good and this node does not have the volume: the resource is down. config: the options
    in force, None when they are not known. fence_handler: a fence-peer handler is configured; None when not known.
    o2cb: the timeouts in the kernel, None when the cluster is not registered. own_handler: the handler is the package's,
    which asks the guard. corosync: None where there is no corosync.conf. guard: None when it does not run. other_hosts: of the
    resource as drbd.conf names them.
    """

    storage: str
    resource: str
    volume: int
    generation: Generation | None
    view: View
    drbd: Drbd | None
    config: ResourceConfig | None
    fence_handler: bool | None
    mount: Mount
    o2cb: Timeouts | None
    own_handler: bool = False
    corosync: CorosyncConf | None = None
    guard: Status | None = None
    other_hosts: tuple[str, ...] = ()


def drbd_facts(
    state: State,
    resource: str,
    volume: int,
    *,
    proc: ProcDrbd | None = None,
    loss: Callable[[int], Loss | None] = lambda peer_node_id: None,
) -> Drbd | None:
    """One volume out of DRBD's state; None when the state does not have it.

    proc: of 8.4. loss: peer node id -> what drbd.history knows of it.
    """
    own = next((found for found in state.resources if found.name == resource), None)
    device = next((found for found in state.devices if (found.resource, found.volume) == (resource, volume)), None)
    if own is None or device is None:
        return None
    of_minor = proc.devices.get(device.minor) if proc is not None and device.minor is not None else None
    suspended = own.suspended
    if of_minor is not None and of_minor.flags.suspended and not suspended:
        suspended = frozenset({"?"})
    volumes = {
        found.peer_node_id: found
        for found in state.peer_devices
        if (found.resource, found.volume) == (resource, volume)
    }
    peers = [
        _peer(found, volumes.get(found.peer_node_id), of_minor, loss)
        for found in state.connections
        if found.resource == resource
    ]
    return Drbd(
        role=own.role,
        disk=device.disk,
        suspended=suspended,
        failing=own.failing is True,
        quorum=device.quorum,
        client=device.client is True,
        peers=tuple(peers) or (_forgotten(loss),),
    )


def _peer(
    connection: Connection, of_volume: PeerDevice | None, proc: ProcDevice | None, loss: Callable[[int], Loss | None]
) -> Peer:
    return Peer(
        node_id=connection.peer_node_id,
        name=connection.name,
        connection=connection.state,
        role=connection.role,
        replication=of_volume.replication if of_volume else None,
        disk=of_volume.disk if of_volume else None,
        client=of_volume is not None and of_volume.client is True,
        paused=(of_volume.resync_suspended if of_volume else None) or frozenset(),
        out_of_sync=of_volume.out_of_sync if of_volume else None,
        progress=_progress(of_volume, proc),
        lost=loss(connection.peer_node_id) or UNHEARD_OF,
    )


def _forgotten(loss: Callable[[int], Loss | None]) -> Peer:
    """A volume without any connection is StandAlone: 8.4 forgets the peer then."""
    return Peer(0, None, "StandAlone", "Unknown", "Off", "DUnknown", lost=loss(0) or UNHEARD_OF)


def _progress(peer: PeerDevice | None, proc: ProcDevice | None) -> Progress:
    """/proc/drbd's where it has one (8.4), else what events2 tells (9)."""
    if proc is not None and proc.progress is not None:
        return Progress(proc.progress.percent, proc.progress.finish, proc.progress.stalled)
    return Progress(peer.done, peer.eta) if peer is not None else Progress()
