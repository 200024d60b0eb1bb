"""What one node has that a setup is planned from. Nothing in this file does I/O; look.py fills it in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.fencing.arbiter import Votes
from pvedrbdstor.setup import values
from pvedrbdstor.setup.steps import printable

FORMAT = 3
"""Of the JSON that `pvedrbdstor setup facts --json` prints: nodes of two versions of the package never plan together."""

_HOST = re.compile(r"[A-Za-z0-9.-]{1,63}")
_DEVICE_NAME = re.compile(r"/dev/[A-Za-z0-9._+:@/-]+")
_NO_WWN = re.compile(r"(?:0x|eui\.|naa\.|nvme\.)?.?[0-]{8,}")  # 0 and nothing else, behind a kind of name at most
_GROUP_LENGTH = len("LVM-") + 32
_MULTIPATH = "mpath-3"
_SLOT = "QEMU_HARDDISK_drive-"  # a serial that QEMU makes up of the slot


def is_host_name(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def is_device_name(text: str) -> bool:
    """A path that can stand in files and on command lines as it is."""
    return _DEVICE_NAME.fullmatch(text) is not None and ".." not in text.split("/")


_NO_SERIAL = re.compile(r"[\W0_]*|\(?null\)?|none|n/?a|unknown|default.*|to be filled.*", re.IGNORECASE)
"""What drivers and firmware say who know none: many disks share it."""
UDEV = ("ID_WWN_WITH_EXTENSION", "ID_WWN", "ID_SERIAL", "ID_PART_ENTRY_UUID", "PARTN")
"""Properties of udev that name a device for good. Its 60-persistent-storage.rules set the first four, for a partition those of its disk as well;
the last is the kernel's own."""


def is_no_wwn(text: str) -> bool:
    """One that many disks have, as it says nothing."""
    return _NO_WWN.fullmatch(text) is not None


def is_no_serial(text: str) -> bool:
    return _NO_SERIAL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same when the machine boots. mapped: the device mapper's UUID. wwn: a world wide name, of the whole disk.
    serial: as udev has it, with the model. part: a partition's number."""

    mapped: str | None = None
    wwn: str | None = None
    serial: str | None = None
    part: str | None = None

    def words(self) -> str | None:
        """In one line, such as `wwn=0x5000c500 serial=MODEL_123 part=1`; None where there is nothing but the part."""
        wwn = None if self.wwn is None or is_no_wwn(self.wwn) else self.wwn
        serial = None if self.serial is None or is_no_serial(self.serial) else self.serial
        known = {"mapped": self.mapped, "wwn": wwn, "serial": serial}
        found = {key: printable("_".join(value.split())) for key, value in known.items() if value and value.strip()}
        if found and self.part:
            found["part"] = self.part
        return " ".join(f"{key}={value}" for key, value in found.items()) or None

    @classmethod
    def parse(cls, words: str | None) -> Identity:
        pairs = (word.partition("=") for word in (words or "").split(" "))
        found = {key: value for key, _, value in pairs if key in ("mapped", "wwn", "serial", "part") and value}
        return cls(**found)

    def is_of_one_disk(self, other: str | None) -> bool:
        """Whether both are of the same disk, or volume group, whatever the part. One without a world wide name is known by its serial."""
        theirs = Identity.parse(other)
        if self.mapped or theirs.mapped:
            return self._origin is not None and self._origin == theirs._origin
        if self.wwn and theirs.wwn:
            return self.wwn == theirs.wwn
        return bool(self.serial) and self.serial == theirs.serial and _SLOT not in str(self.serial)

    def is_of_one_device(self, other: str | None) -> bool:
        theirs = Identity.parse(other)
        return self.is_of_one_disk(other) and (self.mapped, self.part) == (theirs.mapped, theirs.part)

    @property
    def _origin(self) -> str | None:
        """What a device of the device mapper was made from: LVM's UUID begins with the group's, multipath's is a world wide name."""
        if self.mapped is None:
            return self.wwn
        if self.mapped.startswith("LVM-"):
            return self.mapped[:_GROUP_LENGTH]
        return f"0x{self.mapped.removeprefix(_MULTIPATH)}" if self.mapped.startswith(_MULTIPATH) else self.mapped


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device that could be a lower disk. size, sectors: bytes.

    path: the name people use (/dev/sdb, /dev/mirror/r0). names: all its names. kind: disk, part, lvm, or another of lsblk's words.
    identity: the words of its Identity, None where the device has nothing of that kind. udev: what udev itself tells of UDEV, as `ID_WWN=0x5`;
    identity may be from elsewhere. signatures: what wipefs(8) finds on it and
    its partitions, in words. users: who has it, a part of it or the disk that it is a part of, in words; drbd: the DRBD resources that
    have one of those in their configuration. All text is printable.
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
    drbd: tuple[str, ...] = ()
    udev: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """What a DRBD resource has taken."""

    name: str
    minors: tuple[int, ...]
    ports: tuple[int, ...]


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
    each. groups: LVM's volume groups. resources: of drbdadm's and of the kernel's, where they are others than those in files.
    drbd_problem, guests_problem: why DRBD's resources, or the disks that guests use, cannot be told, in a clause; None where they can.
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
    resources: tuple[Resource, ...] = ()
    drbd_problem: str | None = None
    guests_problem: str | None = None

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
    found = values.decode(Facts, data)
    _check(found)
    return found


def _check(facts: Facts) -> None:
    """What is written into files, command lines and terminals on both nodes."""
    if not is_host_name(facts.host):
        raise values.Malformed(f"Facts.host is {facts.host!r}")
    for disk in facts.disks:
        for name in (disk.path, *disk.names):
            if not is_device_name(name):
                raise values.Malformed(f"a device's name is {name!r}")
        told = (
            disk.kind,
            disk.identity or "",
            disk.model or "",
            disk.serial or "",
            *disk.signatures,
            *disk.users,
            *disk.drbd,
            *disk.udev,
        )
        if not all(text.isprintable() for text in told):
            raise values.Malformed(f"what it tells of {disk.path} is not printable")
    words = (
        facts.version,
        facts.kernel,
        *facts.missing,
        facts.drbd or "",
        facts.drbd_problem or "",
        facts.guests_problem or "",
        *facts.groups,
    )
    if not all(text.isprintable() for text in (*words, *(name for names in facts.folders.values() for name in names))):
        raise values.Malformed("what it tells of the node is not printable")
