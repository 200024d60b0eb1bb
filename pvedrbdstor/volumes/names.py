"""Names: Proxmox's volume names of disk images, guest numbers, snapshot names. Pure; everything that comes in is hostile.

The grammar is that of PVE::Storage::Plugin::parse_volname and parse_name_dir, narrowed to printable ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pvedrbdstor.errors import BadName, BadSize, FormatNotOffered, NoFreeName

FORMATS = ("raw", "qcow2", "vmdk", "subvol")
OFFERED_FORMATS = ("raw", "qcow2")
MADE_FORMATS = (*OFFERED_FORMATS, "vmdk")  # the last only where PVE asks for it, to unpack an OVA
MAX_DISKS_PER_GUEST = 1024  # PVE::Storage::Plugin::MAX_VOLUMES_PER_GUEST
MAX_VMID = 999_999_999
_NAME_MAX = 255  # bytes, of every file system in question

_VMID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_FILE = re.compile(r"[!-.0-~]+\.(raw|qcow2|vmdk|subvol)", re.ASCII)
_OWNED = re.compile(r"(?:vm|base|subvol|basevol)-([0-9]+)-", re.ASCII)
_SNAPSHOT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}", re.ASCII)
_PARENT = re.compile(r"\.\./([1-9][0-9]{0,8})/([!-.0-~]+\.(?:raw|qcow2|vmdk))", re.ASCII)


@dataclass(frozen=True)
class ImageFile:
    """A file below images/: the guest it belongs to and its name there."""

    vmid: int
    name: str

    def __str__(self) -> str:
        return f"{self.vmid}/{self.name}"


@dataclass(frozen=True)
class VolumeName:
    """A volume name of PVE: `100/vm-100-disk-0.raw`, or with the base it is backed by `90/base-90-disk-0.raw/100/...`."""

    vmid: int
    name: str
    base: ImageFile | None = None

    def __str__(self) -> str:
        return f"{self.base}/{self.vmid}/{self.name}" if self.base else f"{self.vmid}/{self.name}"

    @property
    def format(self) -> str:
        return format_of(self.name)

    @property
    def is_base(self) -> bool:
        return self.name.startswith("base-")

    def renamed(self, vmid: int, name: str) -> VolumeName:
        return VolumeName(vmid, name, self.base)


def parse_volume(text: object) -> VolumeName:
    """Parse a volume name of an image. Raises BadName."""
    if not isinstance(text, str):
        raise BadName(name=_shown(text), what="volume name", detail="it is not text")
    parts = text.split("/")
    if len(parts) == 2:
        return VolumeName(check_vmid(parts[0]), check_file_name(parts[1]))
    if len(parts) == 4:
        base = ImageFile(check_vmid(parts[0]), check_file_name(parts[1]))
        return VolumeName(check_vmid(parts[2]), check_file_name(parts[3]), base)
    raise BadName(name=_shown(text), what="volume name", detail="it must look like 100/vm-100-disk-0.raw")


def check_vmid(value: object) -> int:
    """A guest number, from a number or its digits. Raises BadName."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VMID:
        return value
    if isinstance(value, str) and _VMID.fullmatch(value):
        return int(value)
    raise BadName(name=_shown(value), what="guest number", detail=f"it must be a number from 1 to {MAX_VMID}")


def check_file_name(name: str) -> str:
    """The file name of an image, with one of PVE's extensions. Raises BadName."""
    problem = _problem_with(name)
    if problem:
        raise BadName(name=_shown(name), what="image name", detail=problem)
    return name


def _problem_with(name: str) -> str | None:
    if len(name) > _NAME_MAX:
        return f"it has {len(name)} characters, {_NAME_MAX} are possible"
    if name.startswith("."):
        return "it begins with a dot"
    if not _FILE.fullmatch(name):
        return "it must be of printable ASCII without spaces and slashes and end in .raw, .qcow2, .vmdk or .subvol"
    if is_chain_file(name):
        return "it is the name of a snapshot file of a volume chain, not of a volume"
    return None


def is_image_file(name: str) -> bool:
    """Whether a file of this name below images/<vmid>/ is a volume."""
    return _FILE.fullmatch(name) is not None and _problem_with(name) is None


def is_chain_file(name: str) -> bool:
    """Whether it is the name of a layer of a volume chain, which an image may read from (PVE, snapshot-as-volume-chain)."""
    return name.startswith("snap-") and name.endswith(".qcow2")


def is_guest_folder(name: str) -> bool:
    return _VMID.fullmatch(name) is not None


def format_of(name: str) -> str:
    """The format that an image's file name says: what follows the last dot."""
    return name.rpartition(".")[2]


def check_new_name(name: object, vmid: int, fmt: str, *, base: bool = False) -> str:
    """The name of an image to be made for this guest. Raises BadName when extension or guest number do not fit.

    base: whether it may be a template's, which comes into being as one when it is imported.
    """
    if not isinstance(name, str):
        raise BadName(name=_shown(name), what="image name", detail="it is not text")
    check_file_name(name)
    if format_of(name) != fmt:
        raise BadName(name=name, what="image name", detail=f"a {fmt} image must end in .{fmt}")
    owner = _OWNED.match(name)
    if owner and int(owner[1]) != vmid:
        raise BadName(
            name=name, what="image name", detail=f"it names guest {owner[1]}, but the image is for guest {vmid}"
        )
    if name.startswith("base-") and not base:
        raise BadName(
            name=name, what="image name", detail="'base-' is for templates; make the image, then turn it into one"
        )
    return name


def check_format(fmt: object, storage: str) -> str:
    """A format that can be allocated here. Raises FormatNotOffered."""
    if fmt not in MADE_FORMATS:
        raise FormatNotOffered(format=_shown(fmt), storage=storage, offered=" or ".join(OFFERED_FORMATS))
    return str(fmt)


def check_snapshot(name: object) -> str:
    """The name of a snapshot (PVE's pve-configid, somewhat wider). Raises BadName."""
    if not isinstance(name, str) or not is_snapshot(name):
        detail = "it must begin with a letter and go on with letters, digits, - and _, at most 80 in all, and not be 'current'"
        raise BadName(name=_shown(name), what="snapshot name", detail=detail)
    return name


def is_snapshot(name: str) -> bool:
    """Whether a snapshot can have this name."""
    return _SNAPSHOT.fullmatch(name) is not None and name != "current"


def check_size(value: object, unit: int = 1) -> int:
    """A size in bytes from a positive whole number of ``unit`` bytes. Raises BadSize."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadSize(detail=f"The size {_shown(value)!r} is not a whole number")
    if value <= 0:
        raise BadSize(detail=f"The size {_shown(value)} is not above zero. Name the size the disk shall have")
    if value * unit >= 1 << 63:
        raise BadSize(detail=f"The size {_shown(value)} is beyond what any file system holds")
    return value * unit


def first_free_name(taken: Iterable[str], vmid: int, fmt: str, storage: str) -> str:
    """The first unused `vm-<vmid>-disk-<n>.<fmt>`; a template's `base-` name uses its number up, as in PVE."""
    pattern = re.compile(rf"(?:vm|base)-{vmid}-disk-([0-9]+)\.{fmt}", re.ASCII)
    used = {int(match[1]) for match in map(pattern.fullmatch, taken) if match}
    for number in range(MAX_DISKS_PER_GUEST):
        if number not in used:
            return f"vm-{vmid}-disk-{number}.{fmt}"
    raise NoFreeName(vmid=vmid, count=MAX_DISKS_PER_GUEST, storage=storage)


def parent_image(backing_file: str | None) -> ImageFile | None:
    """The image a relative backing file name means, as PVE writes it: `../<vmid>/<file>`; None for any other name."""
    match = _PARENT.fullmatch(backing_file) if backing_file else None
    return ImageFile(int(match[1]), match[2]) if match and is_image_file(match[2]) else None


def _shown(value: object) -> str:
    """A hostile value as short printable text for a message."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # a number of more digits than Python writes out (sys.set_int_max_str_digits)
        text = f"a {type(value).__name__} too long to show"
    printable = "".join(c if " " <= c <= "~" else "?" for c in text[:64])
    return printable + ("..." if len(text) > 64 else "")
