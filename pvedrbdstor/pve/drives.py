"""How guests use their disks on a storage: QEMU's cache and aio modes, from their configurations, with Proxmox's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pvedrbdstor.pve import guests

_DRIVE = re.compile(r"(?:ide|sata|scsi|virtio)[0-9]{1,2}", re.ASCII)
_SECTION = re.compile(r"\[(.+)\]\s*", re.ASCII)
_LINE = re.compile(r"([a-z]+[0-9]*):\s*(.*?)\s*", re.ASCII)
_ATTEMPTS = 3
CACHE, AIO = "none", "io_uring"
"""What a drive has that says nothing (PVE::QemuServer, drive_uses_cache_direct and print_drive_commandline_full)."""
DIRECT = frozenset({"none", "directsync"})
"""The cache modes that are O_DIRECT (QEMU, block.c, bdrv_parse_cache_mode)."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk of a VM. value: as the configuration has it. pending: in force after the VM's next start."""

    vmid: int
    key: str
    value: str
    cache: str
    aio: str
    pending: bool = False

    @property
    def direct(self) -> bool:
        return self.cache in DIRECT

    @property
    def cached(self) -> dict[str, str]:
        """The options with which QEMU's writes go through the page cache. Native AIO gives way: QEMU refuses to start with it and without O_DIRECT
        (block/file-posix.c, raw_open_common)."""
        return {"cache": "writeback", **({"aio": AIO} if self.aio == "native" else {})}

    def changed(self, **options: str) -> str:
        """The value with other options, for `qm set`."""
        kept = [word for word in self.value.split(",") if word.partition("=")[0] not in options]
        return ",".join([*kept, *(f"{name}={value}" for name, value in options.items())])


def drives_in(text: str, vmid: int, storage: str, path: str) -> list[Drive]:
    """Those of one configuration that lie on the storage, mounted at ``path``; none of a template, which never runs. Pure.

    What a snapshot remembers is in force nowhere.
    """
    found: list[Drive] = []
    section = ""
    for line in text.split("\n"):
        if title := _SECTION.fullmatch(line):
            section = title[1]
        elif section not in ("", "PENDING") or (pair := _LINE.fullmatch(line)) is None:
            continue
        elif pair[1] == "template" and pair[2] == "1":
            return []
        elif _DRIVE.fullmatch(pair[1]) and (drive := _drive(pair[1], pair[2], vmid, storage, path)):
            found.append(replace(drive, pending=bool(section)))
    return found


def find_drives(storage: str, path: str, nodes: str = guests.NODES) -> list[Drive]:
    """Of the whole cluster, by guest. Raises OSError when a folder or file cannot be read: then nothing is known."""
    for attempt in range(_ATTEMPTS):
        try:
            return sorted(_search(storage, path, nodes), key=lambda drive: (drive.vmid, drive.key, drive.pending))
        except FileNotFoundError:  # a guest that migrates moves from one node's folder to another's
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _search(storage: str, path: str, nodes: str) -> Iterator[Drive]:
    for vmid, kind, file in list(guests.configurations(nodes)):
        if kind == "VM":
            with open(file, encoding="utf-8", errors="replace") as opened:
                yield from drives_in(opened.read(), vmid, storage, path)


def _drive(key: str, value: str, vmid: int, storage: str, path: str) -> Drive | None:
    words = value.split(",")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    volume = options.get("file", words[0])
    if options.get("media") == "cdrom" or not volume.startswith((f"{storage}:", f"{path}/")):
        return None
    return Drive(vmid, key, value, options.get("cache", CACHE), options.get("aio", AIO))
