"""Which guests' configurations name a volume: a text search in /etc/pve/nodes/*/{qemu-server,lxc}/*.conf."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

NODES = "/etc/pve/nodes"
_KINDS = {"qemu-server": "VM", "lxc": "CT"}
_FILE = re.compile(r"([1-9][0-9]{2,8})\.conf")
_SECTION = re.compile(r"\[(.+)\]\s*", re.ASCII)
_LINE = re.compile(r"([^\s:#][^\s:]*):\s*(.*)", re.ASCII)
_TOKENS = re.compile(r"[,;\s\0]+", re.ASCII)
_ATTEMPTS = 3


@dataclass(frozen=True)
class Sought:
    """A volume, by all the names a guest's configuration may call it.

    storages: the storage ids under which it is known. volname: `VMID/NAME`, or `BASE-VMID/BASE/VMID/NAME` for a linked
    clone; both mean the same file. path: its absolute path, which root may write into a configuration, or None.
    """

    storages: frozenset[str]
    volname: str
    path: str | None = None

    def is_named_by(self, token: str) -> bool:
        """Whether one whole word of a value, such as `ha:100/vm-100-disk-0.raw`, means this volume."""
        storage, colon, volname = token.partition(":")
        if colon and storage in self.storages and _own_name(volname) == _own_name(self.volname):
            return True
        return self.path is not None and token == self.path


@dataclass(frozen=True)
class Reference:
    """One line of a guest's configuration that names the volume; section: a snapshot's name, or None."""

    vmid: int
    kind: str
    section: str | None
    key: str

    def __str__(self) -> str:
        return self.key if self.section is None else f"{self.key} in {_section_title(self.section)}"


def find_references(sought: Sought, nodes: str = NODES) -> list[Reference]:
    """Every reference to the volume in the configurations of the whole cluster.

    Looks again when a file vanishes meanwhile: a guest that migrates moves from one node's folder to another's. Raises
    OSError when a folder or file cannot be read: then nothing is known.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return sorted(_search(sought, nodes), key=lambda found: found.vmid)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1 or not os.path.isdir(nodes):
                raise
    raise AssertionError("the last attempt returns or raises")


def references_in(sought: Sought, text: str) -> list[tuple[str | None, str]]:
    """(section or None, key) of every line of one configuration that names the volume; pure."""
    found: list[tuple[str | None, str]] = []
    section: str | None = None
    for line in text.split("\n"):
        if title := _SECTION.fullmatch(line):
            section = title[1]
        elif (pair := _LINE.fullmatch(line)) and pair[1] != "description" and _names(pair[2], sought):
            found.append((section, pair[1]))
    return found


def describe(references: Iterable[Reference]) -> str:
    """For a message: `VM 100 (scsi0, scsi0 in snapshot 'before'), CT 200 (rootfs)`."""
    guests: dict[str, list[str]] = {}
    for reference in references:
        guests.setdefault(f"{reference.kind} {reference.vmid}", []).append(str(reference))
    return ", ".join(f"{guest} ({', '.join(uses)})" for guest, uses in guests.items())


def _search(sought: Sought, nodes: str) -> Iterator[Reference]:
    for vmid, kind, path in list(configurations(nodes)):
        with open(path, encoding="utf-8", errors="replace") as file:
            for section, key in references_in(sought, file.read()):
                yield Reference(vmid, kind, section, key)


def configurations(nodes: str) -> Iterator[tuple[int, str, str]]:
    """(vmid, kind, path) of every guest's configuration file; a node without one of the folders has no such guests."""
    for node in sorted(os.listdir(nodes)):
        for folder, kind in _KINDS.items():
            for name in _names_in(os.path.join(nodes, node, folder)):
                if file := _FILE.fullmatch(name):
                    yield int(file[1]), kind, os.path.join(nodes, node, folder, name)


def _names_in(folder: str) -> Collection[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _names(value: str, sought: Sought) -> bool:
    """Whether a word of the value, or what follows a word's first `=`, means the volume."""
    return any(
        sought.is_named_by(token) or sought.is_named_by(token.partition("=")[2]) for token in _TOKENS.split(value)
    )


def _own_name(volname: str) -> list[str]:
    """The `VMID/NAME` at the end of a volname: what is before it, for a linked clone, is its base."""
    return volname.split("/")[-2:]


def _section_title(section: str) -> str:
    """PVE's own sections are in capitals (PENDING) or begin with `special:`; any other is a snapshot."""
    if section == "PENDING":
        return "pending changes"
    return section if section.startswith("special:") else f"snapshot '{section}'"
