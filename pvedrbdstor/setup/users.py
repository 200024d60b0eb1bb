"""Who has a block device: guests, LVM, DRBD, mounts, programs that hold it open. Changes nothing.

An exclusive opening tells of the kernel's own users alone: QEMU opens a guest's disk without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pvedrbdstor import command
from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.blocks import Block
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.pve import guests, section_config
from pvedrbdstor.pve.section_config import Section

Number = tuple[int, int]
_LVM_SECONDS = 30.0
_ATTEMPTS = 3
_DEVICE_NAME = re.compile(r"/dev/[^\s,;]+")
_VOLID = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]*):([^\s,;/:]+)", re.ASCII)
_GUEST_VOLUME = re.compile(r"(?:snap_)?(?:vm|base)-([0-9]+)-.+")
_LOWER = ("disk", "meta-disk", "flexible-meta-disk")
_LVM_TYPES = ("lvm", "lvmthin")


@dataclass(frozen=True, slots=True)
class Named:
    """A device that somebody names, by any of its names."""

    name: str
    user: str


@dataclass(frozen=True, slots=True)
class Index:
    """Users by a device's name, and by its (major, minor)."""

    names: Mapping[str, tuple[str, ...]]
    numbers: Mapping[Number, tuple[str, ...]]

    def of(self, number: Number, names: Iterable[str]) -> tuple[str, ...]:
        found = [*self.numbers.get(number, ()), *(user for name in sorted(names) for user in self.names.get(name, ()))]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Users:
    """had: who has devices, in words. drbd: the names of the DRBD resources that have them in their configuration, which may be the one
    that a setup has just written. volumes: LVM's physical volumes -> their volume groups, foreign and partial ones too, empty for one
    without."""

    had: Index
    drbd: Index
    volumes: Mapping[Number, str]


def look(guests: Iterable[Named] = (), drbd: Iterable[Named] = ()) -> Users:
    """Raises OSError where the kernel's tables cannot be read, CommandFailed and CommandTimeout where LVM does not answer."""
    volumes = _physical_volumes()
    ours = [Named(name, f"it is a physical volume of LVM's volume group '{group}'") for name, group in volumes if group]
    kernel = (*_mounted(), *_swapped(), *_opened("/proc"), *_looped())
    known = {number: group for name, group in volumes if (number := number_of(name)) is not None}
    return Users(index((*guests, *ours), kernel), index(drbd), known)


def index(named: Iterable[Named], numbered: Iterable[tuple[Number, str]] = ()) -> Index:
    names: dict[str, list[str]] = {}
    numbers: dict[Number, list[str]] = {}
    for each in named:
        names.setdefault(each.name, []).append(each.user)
        if (number := number_of(each.name)) is not None:
            numbers.setdefault(number, []).append(each.user)
    for number, user in numbered:
        numbers.setdefault(number, []).append(user)
    return Index(
        {name: tuple(dict.fromkeys(users)) for name, users in names.items()},
        {number: tuple(dict.fromkeys(users)) for number, users in numbers.items()},
    )


def number_of(path: str) -> Number | None:
    """None for what is no block device here."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None


# --- guests ------------------------------------------------------------------------------------------------------


def of_guests(storage_cfg: str) -> list[Named]:
    """Devices in the configurations of the cluster's guests, also of those that do not run. Raises OSError where one, or the folder
    of them all, cannot be read: then nothing is known."""
    for attempt in range(_ATTEMPTS):
        try:
            return list(_in_configurations(storage_cfg))
        except FileNotFoundError:  # a guest that migrates moves from one node's folder to another's
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _in_configurations(storage_cfg: str) -> Iterator[Named]:
    sections = section_config.parse(storage_cfg)
    for vmid, kind, path in list(guests.configurations(guests.NODES)):
        with open(path, encoding="utf-8", errors="replace") as file:
            for name in sorted(named_in(file.read(), sections)):
                yield Named(name, f"{kind} {vmid} names it in its configuration")
    for section in sections.values():
        pool, group = section.properties.get("thinpool"), section.properties.get("vgname")
        if section.type == "lvmthin" and pool and group:
            yield Named(f"/dev/{group}/{pool}", f"it is the thin pool of storage '{section.id}'")


def named_in(text: str, sections: Mapping[str, Section]) -> set[str]:
    """The devices that one configuration names, by path or as a volume of a storage on LVM or iSCSI. Pure."""
    found = set(_DEVICE_NAME.findall(text))
    for storage, volume in _VOLID.findall(text):
        section = sections.get(storage)
        if section is None:
            continue
        group = section.properties.get("vgname")
        if section.type in _LVM_TYPES and group:
            found.add(f"/dev/{group}/{volume}")
        elif section.type == "iscsi" and volume.count(".") >= 3:  # CHANNEL.ID.LUN.NAME
            found.add(f"/dev/disk/by-id/{volume.split('.', 3)[3]}")
    return found


def guest_volume(path: str) -> str | None:
    """By its name alone: of a logical volume that Proxmox made for a guest, which guest, in words. Pure."""
    found = _GUEST_VOLUME.fullmatch(path.rpartition("/")[2])
    return f"its name is that of a volume of guest {found[1]}" if found else None


# --- DRBD --------------------------------------------------------------------------------------------------------


def of_drbd(texts: Iterable[str], host: str) -> list[Named]:
    """The lower disks and metadata disks of resources, with their names, as files, `drbdadm dump` or `drbdsetup show` have them. Pure."""
    found = [
        Named(name, block.words[1])
        for text in texts
        for block in blocks.parse(text).named("resource")
        if len(block.words) >= 2
        for name in _lower(block, host)
    ]
    return list(dict.fromkeys(found))


def _lower(block: Block, host: str) -> Iterator[str]:
    for option in _LOWER:
        if (value := block.value(option)) and value.startswith("/dev/"):
            yield value
    for inner in block.blocks:
        if inner.words[:1] != ("on",) or host in inner.words[1:]:
            yield from _lower(inner, host)


# --- LVM ---------------------------------------------------------------------------------------------------------


def _physical_volumes() -> list[tuple[str, str]]:
    """(device, volume group or ''), but for those that LVM's filters hide."""
    if shutil.which("pvs", path=command.PATH) is None:
        return []
    answer = command.run(["pvs", "--reportformat", "json", "-o", "pv_name,vg_name"], timeout=_LVM_SECONDS)
    return physical_volumes(answer.stdout)


def physical_volumes(text: str) -> list[tuple[str, str]]:
    """What `pvs` told in JSON. Raises OSError for anything else. Pure."""
    try:
        rows = [row for report in json.loads(text)["report"] for row in report["pv"]]
        return [(str(row["pv_name"]), str(row["vg_name"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"'pvs' did not answer in a form known here ({error!r})") from error


# --- the kernel's tables -----------------------------------------------------------------------------------------


def _mounted() -> Iterator[tuple[Number, str]]:
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            entry = mountinfo.parse_line(line.rstrip(b"\n"))
            if entry is not None:
                yield entry.device, f"it is mounted on {entry.mount_point}"


def _swapped() -> Iterator[tuple[Number, str]]:
    for line in (read("/proc/swaps") or "").splitlines()[1:]:
        if line.startswith("/dev/") and (number := number_of(line.split()[0])) is not None:
            yield number, "it is swap space"


def _opened(proc: str) -> Iterator[tuple[Number, str]]:
    """By which programs, but for this one. Only what looks like a device is asked: a look at a file of a dead NFS server hangs."""
    for pid in listed(proc):
        if not pid.isdecimal() or int(pid) == os.getpid():
            continue
        for fd in listed(f"{proc}/{pid}/fd"):
            path = f"{proc}/{pid}/fd/{fd}"
            try:
                target = os.readlink(path)
            except OSError:  # it has closed it, or has ended
                continue
            if not target.startswith("/dev/") and (not target.startswith("/") or target.count("/") > 1):
                continue
            if (number := number_of(path)) is not None:
                yield number, f"'{read(f'{proc}/{pid}/comm') or '?'}', process {pid}, has it open"


def _looped() -> Iterator[tuple[Number, str]]:
    """Loop devices over block devices: the kernel holds those open for nobody's process."""
    for name in listed("/sys/block"):
        file = read(f"/sys/block/{name}/loop/backing_file") if name.startswith("loop") else None
        if file is not None and (number := number_of(file)) is not None:
            yield number, f"it is below /dev/{name}"


def read(path: str) -> str | None:
    """What sysfs or procfs has, without white space around it; None where it has nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20).strip() or None
    except OSError:
        return None


def listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
