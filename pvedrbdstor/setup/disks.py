"""The block devices of this node, and who uses them: sysfs and udev by pyudev, signatures by wipefs(8). Changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import pyudev

from pvedrbdstor import command
from pvedrbdstor.errors import Error
from pvedrbdstor.setup import users as users_of
from pvedrbdstor.setup.facts import UDEV, Disk, Identity, is_device_name
from pvedrbdstor.setup.steps import printable
from pvedrbdstor.setup.users import Users, listed, read

_SECTOR = 512  # of sysfs' sizes, whatever the disk's own
_WIPEFS_SECONDS = 20.0
_NO_DISKS = re.compile(r"(ram|zram|sr|fd|nbd|drbd|zd|rbd)[0-9]+.*")
_PARTITION = "partition"
_LVM_MEMBER = "LVM2_member"


@dataclass(frozen=True)
class _Device:
    """One device of sysfs. folder: its own there. node: below /dev."""

    name: str
    folder: str
    node: str
    number: tuple[int, int]
    properties: Mapping[str, str]
    links: tuple[str, ...]


def look(users: Users | None = None) -> tuple[Disk, ...]:
    """Disks, partitions and logical volumes. users: who has them; None for those of whom the kernel and LVM know. Raises OSError."""
    users = users if users is not None else users_of.look()
    devices = [_device(found) for found in pyudev.Context().list_devices(subsystem="block") if found.device_node]
    shown = [device for device in devices if not _NO_DISKS.fullmatch(device.name) and _size(device)]
    found = [_disk(device, devices, users) for device in sorted(shown, key=lambda device: device.name)]
    return same_disks([disk for disk in found if is_device_name(disk.path)])


def same_disks(found: Iterable[Disk]) -> tuple[Disk, ...]:
    """Who has a disk by one path has it by all. Pure."""
    disks = tuple(found)
    return tuple(_with_others(disk, disks) for disk in disks)


def _with_others(disk: Disk, disks: Iterable[Disk]) -> Disk:
    own = Identity.parse(disk.identity)
    others = [other for other in disks if other is not disk and own.is_of_one_device(other.identity)]
    users = [f"{other.path}, the same disk: {user}" for other in others for user in other.users]
    drbd = [name for other in (disk, *others) for name in other.drbd]
    return replace(disk, users=(*disk.users, *users), drbd=tuple(dict.fromkeys(drbd)))


def identity(path: str) -> str | None:
    """Of the device that this name leads to now, in the words of Disk.identity. Raises OSError."""
    number = os.stat(path).st_rdev
    try:
        return _identity(_device(pyudev.Devices.from_device_number(pyudev.Context(), "block", number)))
    except pyudev.DeviceNotFoundError as error:
        raise FileNotFoundError(2, "There is no such device", path) from error


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
    """Whoever wrote to the disk has chosen the label."""
    label = found.get("label")
    return printable(f"{found['type']} '{label}'" if label else found["type"])


def _device(found: pyudev.Device) -> _Device:
    number = (os.major(found.device_number), os.minor(found.device_number))
    properties = {str(key): str(value) for key, value in found.properties.items()}
    links = tuple(sorted(str(link) for link in found.device_links))
    return _Device(str(found.sys_name), str(found.sys_path), str(found.device_node), number, properties, links)


def _disk(device: _Device, devices: list[_Device], users: Users) -> Disk:
    parts = [each for each in devices if each is not device and _is_part_of(each, device)]
    wholes = [each for each in devices if each is not device and _is_part_of(device, each)]
    on_it = {each.node: _found_on(each) for each in (device, *parts)}
    had = [
        user for each in (device, *parts) for user in (*_users(each, users), *_hidden(each, on_it[each.node], users))
    ]
    had += [user for each in (device, *parts) for user in _claimed(each, had)]
    had += [user for whole in wholes for user in _users(whole, users)]
    return Disk(
        path=_path(device),
        names=tuple(sorted(name for name in _names(device) if is_device_name(name))),
        kind=_kind(device),
        size=_size(device),
        logical_sector=_number(device, "queue/logical_block_size"),
        physical_sector=_number(device, "queue/physical_block_size"),
        identity=_identity(device),
        model=_printable(device.properties.get("ID_MODEL") or _text(device, "device/model")),
        serial=_printable(device.properties.get("ID_SERIAL_SHORT") or _serial(device)),
        read_only=_text(device, "ro") == "1",
        signatures=tuple(
            word if each is device else f"{word} (on {each.node})"
            for each in (device, *parts)
            for word in on_it[each.node]
        ),
        users=tuple(
            dict.fromkeys(
                printable(user.words if user.device is device else f"{user.device.node}: {user.words}") for user in had
            )
        ),
        drbd=tuple(
            dict.fromkeys(
                printable(name)
                for each in (device, *parts, *wholes)
                for name in users.drbd.of(each.number, _names(each))
            )
        ),
        udev=tuple(printable(f"{key}={device.properties[key]}") for key in UDEV if device.properties.get(key)),
    )


@dataclass(frozen=True)
class _User:
    """Somebody who has a device, or the disk that it is a part of."""

    device: _Device
    words: str


def _found_on(each: _Device) -> tuple[str, ...]:
    try:
        return signatures(each.node)
    except Error:
        return ("what wipefs cannot read",)


def _users(each: _Device, users: Users) -> Iterator[_User]:
    """But for those of which the kernel alone knows."""
    for holder in listed(f"{each.folder}/holders"):
        name = read(f"/sys/class/block/{holder}/dm/name")
        yield _User(each, f"it is below {f'/dev/mapper/{name}' if name else f'/dev/{holder}'}")
    for user in users.had.of(each.number, _names(each)):
        yield _User(each, user)
    if _kind(each) == "lvm" and (guest := users_of.guest_volume(_path(each))) is not None:
        yield _User(each, guest)


def _hidden(each: _Device, signatures: Iterable[str], users: Users) -> Iterator[_User]:
    """A physical volume that LVM does not tell of, as where its own filter hides it, may be part of a group."""
    if any(word.startswith(_LVM_MEMBER) for word in signatures) and each.number not in users.volumes:
        yield _User(each, "it is a physical volume of LVM, and 'pvs' does not tell of which volume group")


def _claimed(each: _Device, had: Iterable[_User]) -> Iterator[_User]:
    if any(user.device is each for user in had):
        return
    try:
        if is_claimed(each.node):
            yield _User(each, "the kernel has given it to somebody")
    except OSError as error:
        yield _User(each, f"it cannot be opened ({error.strerror})")


def _path(device: _Device) -> str:
    return _lv_path(device) or device.node


def _names(device: _Device) -> set[str]:
    path = _path(device)
    mapped = f"/dev/mapper/{_text(device, 'dm/name')}" if _kind(device) == "lvm" else path
    return {device.node, *device.links, path, mapped}


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
    parts = os.path.exists(f"{device.folder}/{_PARTITION}")
    whole = os.path.dirname(device.folder) if parts else device.folder
    told = device.properties
    return Identity(
        mapped=_text(device, "dm/uuid"),
        wwn=told.get("ID_WWN_WITH_EXTENSION")
        or told.get("ID_WWN")
        or read(f"{whole}/wwid")
        or read(f"{whole}/device/wwid"),
        serial=told.get("ID_SERIAL") or read(f"{whole}/serial"),
        part=_text(device, _PARTITION) if parts else None,
    ).words()


def _printable(text: str | None) -> str | None:
    return None if text is None else printable(text)


def _serial(device: _Device) -> str | None:
    return _text(device, "serial") or _text(device, "device/serial")


def _size(device: _Device) -> int:
    return _number(device, "size") * _SECTOR


def _number(device: _Device, file: str) -> int:
    text = _text(device, file)
    if text is None and os.path.exists(f"{device.folder}/{_PARTITION}"):
        text = read(f"{os.path.dirname(device.folder)}/{file}")
    return int(text) if text and text.isdecimal() else 0


def _text(device: _Device, file: str) -> str | None:
    return read(f"{device.folder}/{file}")


def size(path: str) -> int:
    """Bytes of a block device now. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)
