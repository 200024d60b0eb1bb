"""The block devices of this node, and who uses them: sysfs and udev by pyudev, signatures by wipefs(8). Changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyudev

from pvedrbdstor import command
from pvedrbdstor.errors import Error
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.pve import guests
from pvedrbdstor.setup.facts import Disk

_SECTOR = 512  # of sysfs' sizes, whatever the disk's own
_WIPEFS_SECONDS = 20.0
_NO_DISKS = re.compile(r"(ram|zram|sr|fd|nbd|drbd|zd|rbd)[0-9]+.*")
_DEVICE_NAME = re.compile(r"/dev/[^\s,;]+")
_PARTITION = "partition"
Used = Mapping[tuple[int, int], tuple[str, ...]]
"""What the kernel's tables say: (major, minor) -> users in words."""


@dataclass(frozen=True)
class _Device:
    """One device of sysfs. folder: its own there. node: below /dev."""

    name: str
    folder: str
    node: str
    number: tuple[int, int]
    properties: Mapping[str, str]
    links: tuple[str, ...]


def look() -> tuple[Disk, ...]:
    """Disks, partitions and logical volumes. Raises OSError where the kernel's tables cannot be read."""
    used = _used()
    devices = [_device(found) for found in pyudev.Context().list_devices(subsystem="block") if found.device_node]
    shown = [device for device in devices if not _NO_DISKS.fullmatch(device.name) and _size(device)]
    named = _named_by_guests()
    return tuple(_disk(device, devices, used, named) for device in sorted(shown, key=lambda device: device.name))


def signatures(path: str) -> tuple[str, ...]:
    """What is on a device, by wipefs(8), which looks for more than blkid(8) does. Raises CommandFailed, CommandTimeout."""
    answer = command.run(["wipefs", "--no-act", "--json", path], timeout=_WIPEFS_SECONDS)
    try:
        found = json.loads(answer.stdout or "{}").get("signatures", [])
        words = {_signature(each) for each in found}
    except (ValueError, AttributeError, KeyError, TypeError):
        return ("something that wipefs does not tell in a form known here",)
    return tuple(sorted(words))


def is_claimed(path: str) -> bool:
    """Whether the kernel has given the device to someone: a mount, swap, LVM, md, DRBD, ZFS. Raises OSError for anything else."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == 16:  # EBUSY
            return True
        raise
    return False


def _signature(found: Mapping[str, str]) -> str:
    label = found.get("label")
    return f"{found['type']} '{label}'" if label else found["type"]


def _device(found: pyudev.Device) -> _Device:
    number = (os.major(found.device_number), os.minor(found.device_number))
    properties = {str(key): str(value) for key, value in found.properties.items()}
    links = tuple(sorted(str(link) for link in found.device_links))
    return _Device(str(found.sys_name), str(found.sys_path), str(found.device_node), number, properties, links)


def _disk(device: _Device, devices: list[_Device], used: Used, named: Mapping[str, tuple[str, ...]]) -> Disk:
    parts = [each for each in devices if each is not device and _is_part_of(each, device)]
    kind = _kind(device)
    path = _lv_path(device) or device.node
    names = {device.node, *device.links, path, f"/dev/mapper/{_text(device, 'dm/name')}" if kind == "lvm" else path}
    return Disk(
        path=path,
        names=tuple(sorted(names)),
        kind=kind,
        size=_size(device),
        logical_sector=_number(device, "queue/logical_block_size"),
        physical_sector=_number(device, "queue/physical_block_size"),
        identity=_identity(device),
        model=device.properties.get("ID_MODEL") or _text(device, "device/model"),
        serial=device.properties.get("ID_SERIAL_SHORT") or _serial(device),
        read_only=_text(device, "ro") == "1",
        signatures=tuple(word for each in (device, *parts) for word in _found_on(each, device)),
        users=(
            *(word for each in (device, *parts) for word in _users(each, device, used)),
            *(word for name in sorted(names) for word in named.get(name, ())),
        ),
    )


def _found_on(each: _Device, whole: _Device) -> tuple[str, ...]:
    try:
        words = signatures(each.node)
    except Error:
        words = ("what wipefs cannot read",)
    return words if each is whole else tuple(f"{word} (on {each.node})" for word in words)


def _users(each: _Device, whole: _Device, used: Used) -> Iterator[str]:
    where = "" if each is whole else f"{each.node}: "
    for holder in _listed(f"{each.folder}/holders"):
        name = _read(f"/sys/class/block/{holder}/dm/name")
        yield f"{where}it is below {f'/dev/mapper/{name}' if name else f'/dev/{holder}'}"
    for user in used.get(each.number, ()):
        yield f"{where}{user}"
    if not _listed(f"{each.folder}/holders") and each.number not in used:
        try:
            if is_claimed(each.node):
                yield f"{where}the kernel has given it to somebody"
        except OSError as error:
            yield f"{where}it cannot be opened ({error.strerror})"


def _is_part_of(part: _Device, whole: _Device) -> bool:
    return os.path.dirname(part.folder) == whole.folder and os.path.exists(f"{part.folder}/{_PARTITION}")


def _kind(device: _Device) -> str:
    uuid = _text(device, "dm/uuid") or ""
    if os.path.exists(f"{device.folder}/{_PARTITION}"):
        return "part"
    if uuid.startswith("LVM-"):
        return "lvm"
    if device.name.startswith(("dm-", "loop", "md")):
        return device.name.rstrip("0123456789").rstrip("-")
    return "disk"


def _lv_path(device: _Device) -> str | None:
    """/dev/GROUP/VOLUME of a logical volume: the device mapper's name has both with one '-' between, and '--' for each of theirs."""
    if not (_text(device, "dm/uuid") or "").startswith("LVM-"):
        return None
    group, dash, volume = re.sub(r"--", "\0", _text(device, "dm/name") or "").partition("-")
    return f"/dev/{group}/{volume}".replace("\0", "-") if dash and "-" not in volume else None


def _identity(device: _Device) -> str | None:
    """The first of: the device mapper's UUID, a world wide name, udev's serial, the disk's own; with the partition's number."""
    parts = os.path.exists(f"{device.folder}/{_PARTITION}")
    number = _text(device, _PARTITION) if parts else None
    whole = os.path.dirname(device.folder) if parts else device.folder
    own = (
        _text(device, "dm/uuid"),
        device.properties.get("ID_WWN_WITH_EXTENSION") or device.properties.get("ID_WWN"),
        device.properties.get("ID_SERIAL"),
        _read(f"{whole}/wwid") or _read(f"{whole}/device/wwid") or _read(f"{whole}/serial"),
    )
    found = next((word for word in own if word), None)
    return f"{found} part {number}" if found and number else found


def _serial(device: _Device) -> str | None:
    return _text(device, "serial") or _text(device, "device/serial")


def _size(device: _Device) -> int:
    return _number(device, "size") * _SECTOR


def _named_by_guests() -> Mapping[str, tuple[str, ...]]:
    """Device names in guests' configurations, also of guests that do not run. Raises OSError where those cannot be read."""
    found: dict[str, list[str]] = {}
    if not os.path.isdir(guests.NODES):
        return {}
    for vmid, kind, path in guests.configurations(guests.NODES):
        for name in set(_DEVICE_NAME.findall(_read(path) or "")):
            found.setdefault(name, []).append(f"{kind} {vmid} names it in its configuration")
    return {name: tuple(users) for name, users in found.items()}


def _used() -> Used:
    """Mounts and swap. Of LVM, md and DRBD sysfs has the holders, or the kernel refuses an exclusive opening."""
    found: dict[tuple[int, int], list[str]] = {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            entry = mountinfo.parse_line(line.rstrip(b"\n"))
            if entry is not None:
                found.setdefault(entry.device, []).append(f"it is mounted on {entry.mount_point}")
    for path in [line.split()[0] for line in (_read("/proc/swaps") or "").splitlines()[1:] if line.startswith("/dev/")]:
        try:
            number = os.stat(path).st_rdev
        except OSError:
            continue
        found.setdefault((os.major(number), os.minor(number)), []).append("it is swap space")
    return {number: tuple(dict.fromkeys(users)) for number, users in found.items()}


def _number(device: _Device, file: str) -> int:
    text = _text(device, file)
    if text is None and os.path.exists(f"{device.folder}/{_PARTITION}"):
        text = _read(f"{os.path.dirname(device.folder)}/{file}")
    return int(text) if text and text.isdecimal() else 0


def _text(device: _Device, file: str) -> str | None:
    return _read(f"{device.folder}/{file}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20).strip() or None
    except OSError:
        return None


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def size(path: str) -> int:
    """Bytes of a block device now. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)
