"""What one node has that a setup is planned from. Nothing in this file does I/O; look.py fills it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.fencing.arbiter import Votes
from pvedrbdstor.setup import values

FORMAT = 1
"""Of the JSON that `pvedrbdstor setup facts --json` prints: nodes of two versions of the package never plan together."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device that could be a lower disk. size, sectors: bytes.

    path: the name people use (/dev/sdb, /dev/mirror/r0). names: all its names. kind: disk, part, lvm, or another of lsblk's words.
    identity: what stays the same when the machine boots, None where the device has nothing of that kind. signatures: what wipefs(8)
    finds on it and its partitions, in words. users: who has it, or a part of it, in words.
    """

    path: str
    names: tuple[str, ...]
    kind: str
    size: int
    logical_sector: int
    physical_sector: int
    identity: str | None = None
    model: str | None = None
    serial: str | None = None
    read_only: bool = False
    signatures: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """addresses: with the length of the network's prefix, 10.10.10.1/24. speed: Mbit/s, None where the driver does not tell."""

    name: str
    addresses: tuple[str, ...]
    mtu: int
    speed: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """One node. host: what `uname -n` prints. version: of this package.

    files: path -> content of what a setup may have to change, or to go by; those that are not there are left out. drbd: the
    version of the kernel's module, loaded or not; None without one. ocfs2: there is that module. missing: programs that a setup
    needs. lvm: LVM's are there. guard: it runs; votes: what it has from corosync. folders: below /mnt/pve, with the first names in
    each. groups: LVM's volume groups.
    """

    format: int
    version: str
    host: str
    kernel: str
    drbd: str | None
    ocfs2: bool
    packages: Mapping[str, str]
    missing: tuple[str, ...]
    lvm: bool
    guard: bool
    votes: Votes | None
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...]
    files: Mapping[str, str]
    folders: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...]

    @property
    def generation(self) -> Generation | None:
        if self.drbd is None:
            return None
        if self.drbd.startswith("8.4."):
            return Generation.V8_4
        return Generation.V9 if self.drbd.startswith("9.") else None

    def disk(self, name: str) -> Disk | None:
        """By any of its names."""
        return next((disk for disk in self.disks if name == disk.path or name in disk.names), None)


def as_json(facts: Facts) -> dict[str, Any]:
    return values.encode(facts)


def parse(text: str) -> Facts:
    """What the other node printed. Raises Malformed, also for another format."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise values.Malformed(f"it is no JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise values.Malformed("it is of another version of pvedrbdstor")
    return values.decode(Facts, data)
