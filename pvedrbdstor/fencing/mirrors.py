"""The state of every DRBD device of this node, by minor, in a way that waits for nothing: /proc/drbd of 8.4, events of 9."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pvedrbdstor.drbd import events2, generation, proc_drbd
from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.drbd.stream import Stream
from pvedrbdstor.fencing.rules import Mirror

_PROC = "/proc/drbd"
_PROC_MAX = 1 << 18
_WHOLE_REPLICATION = ("Established", "VerifyS", "VerifyT")


class Mirrors:
    """path: of /proc/drbd, in tests another. stream: DRBD 9's events."""

    def __init__(self, path: str = _PROC, stream: Stream | None = None) -> None:
        self._path = path
        self._stream = stream or Stream()
        self._state = State()

    def look(self, now: float) -> dict[str, Mirror] | None:
        """Minor, as text, to its state; None when that cannot be told now."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                text = os.read(file.fileno(), _PROC_MAX).decode(errors="replace")
        except FileNotFoundError:
            return {}
        except OSError:
            return None
        if generation.from_proc_drbd(text) is Generation.V9:
            return self._look_at_events(now)
        return of_proc(text)

    def close(self, now: float) -> None:
        self._stream.stop(now)

    def _look_at_events(self, now: float) -> dict[str, Mirror] | None:
        if self._stream.start(now):
            self._state = State()
        lines = self._stream.lines(now)
        if lines is None:
            return None
        for event in events2.parse_events(lines):
            self._state.apply(event)
        return of_state(self._state) if self._state.complete else None


def of_proc(text: str) -> dict[str, Mirror]:
    """What /proc/drbd of 8.4 says."""
    return {
        str(minor): Mirror(device.role, device.connection, device.disk, device.peer_disk, device.flags.suspended)
        for minor, device in proc_drbd.parse(text).devices.items()
    }


def of_state(state: State) -> dict[str, Mirror]:
    """What the events of 9 add up to; of several peers with a disk the one that is worst off, as this storage has one."""
    roles = {resource.name: resource for resource in state.resources}
    mirrors: dict[str, Mirror] = {}
    for device in state.devices:
        resource = roles.get(device.resource)
        if resource is None or device.minor is None:
            continue
        peers = {found.peer_node_id: found for found in state.peer_devices if _same_volume(found, device)}
        clients = {node_id for node_id, found in peers.items() if found.client is True}
        peers = {node_id: found for node_id, found in peers.items() if node_id not in clients}
        connections = [
            found
            for found in state.connections
            if found.resource == device.resource and found.peer_node_id not in clients
        ]
        lost = [found for found in connections if found.state != "Connected"]
        peer_disks = [peers[found.peer_node_id].disk for found in connections if found.peer_node_id in peers]
        replications = [found.replication for found in peers.values()]
        mirrors[str(device.minor)] = Mirror(
            role=resource.role or "Unknown",
            connection=_connection([found.state for found in lost], replications, bool(connections)),
            disk=device.disk or "DUnknown",
            peer_disk=_worst(peer_disks),
            suspended=bool(resource.suspended),
        )
    return mirrors


def _same_volume(peer: events2.PeerDevice, device: events2.Device) -> bool:
    return (peer.resource, peer.volume) == (device.resource, device.volume)


def _connection(lost: list[str | None], replications: list[str | None], any_connection: bool) -> str:
    """In 8.4's words: a lost connection's state, else the replication's."""
    if lost or not any_connection:
        return (lost[0] if lost else None) or "StandAlone"
    odd = next((found for found in replications if found not in _WHOLE_REPLICATION), None)
    return "Connected" if odd is None and replications else odd if odd not in (None, "Off") else "WFReportParams"


def _worst(disks: Sequence[str | None]) -> str:
    return next((disk or "DUnknown" for disk in disks if disk != "UpToDate"), "UpToDate" if disks else "DUnknown")
