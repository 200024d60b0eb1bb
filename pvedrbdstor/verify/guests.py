"""Which guests there are and whether they run, by Proxmox's own list, and which of their disks an image is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pvedrbdstor import command
from pvedrbdstor.errors import CommandFailed, CommandTimeout
from pvedrbdstor.pve.drives import find_drives
from pvedrbdstor.pve.guests import Sought, describe, find_references
from pvedrbdstor.verify.labels import label

_LIST = ["pvesh", "get", "/cluster/resources", "--type", "vm", "--output-format", "json"]
_SECONDS = 20.0
_LIST_LIMIT = 16 << 20
_KINDS = {"qemu": "VM", "lxc": "CT"}
_RUNS = ("running", "paused", "suspended", "prelaunch")


@dataclass(frozen=True, slots=True)
class Guest:
    """kind: VM or CT. node: where it is, and runs if it does. name: fit to be shown."""

    vmid: int
    kind: str
    runs: bool
    node: str = ""
    name: str = ""


def guests() -> dict[int, Guest] | None:
    """All of the cluster; None where Proxmox does not tell."""
    try:
        return parse(command.run(_LIST, timeout=_SECONDS, limit=_LIST_LIMIT).stdout)
    except (CommandFailed, CommandTimeout):
        return None


def parse(text: str) -> dict[int, Guest] | None:
    """The output of `pvesh get /cluster/resources --type vm`. A guest whose state is not told counts as one that
    runs."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    return {guest.vmid: guest for entry in found if isinstance(entry, dict) and (guest := _guest(entry))}


def _guest(entry: Mapping[str, object]) -> Guest | None:
    vmid, kind, state = entry.get("vmid"), _KINDS.get(str(entry.get("type"))), entry.get("status")
    if not isinstance(vmid, int) or kind is None:
        return None
    runs = state in _RUNS or state in (None, "unknown")
    return Guest(vmid, kind, runs, label(str(entry.get("node", ""))), label(str(entry.get("name", ""))))


def direct_disks(storages: Collection[str], path: str) -> frozenset[str]:
    """The `VMID/NAME` of the disks that QEMU writes with O_DIRECT (cache=none, the default, and directsync), by the VMs' configurations; none
    where those cannot be read. storages, path: the ids that the storage is known by, and where it is mounted."""
    found = set()
    try:
        for storage in storages:
            for drive in find_drives(storage, path):
                volume = drive.value.split(",")[0].removeprefix("file=")
                if drive.direct and not drive.pending:
                    found.add("/".join(volume.rpartition(":")[2].split("/")[-2:]))
    except OSError:
        return frozenset()
    return frozenset(found)


def uses(storages: Collection[str]) -> Callable[[str], str]:
    """A function that says of `VMID/NAME` which guests' configurations name it, in words; empty where none does or
    nobody knows.

    storages: the ids that the storage is known by.
    """

    def named_by(volname: str) -> str:
        try:
            return label(describe(find_references(Sought(frozenset(storages), volname)))[:200])
        except OSError:
            return ""

    return named_by
