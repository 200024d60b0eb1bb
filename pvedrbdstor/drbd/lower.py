"""The disk below a DRBD device, and what makes a write safe on it, in the output of `drbdsetup show`. No I/O here.

The data of a device begins at the first byte of its lower disk, wherever DRBD's own metadata lie (drbd.conf(5), meta-disk): an offset
on the one is the same offset on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvedrbdstor.drbd import blocks


@dataclass(frozen=True, slots=True)
class LowerDisk:
    """path: of the block device. protocols: of each connection, `C` where a write is acknowledged when both disks have it; empty where
    none is told. flushes: whether DRBD empties the disk's own cache when the file system asks for it (disk-flushes, on by default)."""

    path: str
    protocols: tuple[str, ...]
    flushes: bool


def lower_disk(show: str, resource: str, volume: int) -> LowerDisk | None:
    """None where the volume has no disk on this node (Diskless), or the resource is down."""
    for block in blocks.parse(show).named("resource"):
        if not block.whole or block.words[1:2] != (resource,):
            continue
        for found in (part for host in block.named("_this_host") for part in host.named("volume")):
            path = found.value("disk")
            if found.words[1:2] != (str(volume),) or path is None or not path.startswith("/"):
                continue
            options = next(found.named("disk"), blocks.Block(("disk",)))
            return LowerDisk(path, _protocols(block), options.value("disk-flushes") != "no")
    return None


def _protocols(resource: blocks.Block) -> tuple[str, ...]:
    """8.4 has one connection, with its options beside the hosts; 9 has a block for each. `C` is the default, which is left out."""
    connections = list(resource.named("connection"))
    if not connections and not list(resource.named("_remote_host")):
        return ()
    owners = connections or [resource]
    return tuple(next(owner.named("net"), blocks.Block(("net",))).value("protocol") or "C" for owner in owners)
