"""What is on a device, to the byte where it matters: only what the plan has shown is ever wiped. Changes nothing.

The words of wipefs(8) are not enough: an ext4 made anew since has the same. So the plan keeps each signature with its place and UUID, and
a digest of both ends of the device and of each partition, where file systems, LVM and md keep what changes with use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pvedrbdstor import command
from pvedrbdstor.setup import disks
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import Kind, NotNow, Step

HOURS = 24
"""How long a plan that wipes something may be carried out."""
_END = 1 << 20  # bytes
_WIPEFS_SECONDS = 20.0
_BACKUP = "--backup"  # wipefs keeps what it overwrites in root's home
_KEYS = ("offset", "type", "uuid", "label")


def record(path: str) -> str:
    """The device and its partitions as JSON, in an order of its own; by the partitions' numbers, as names change at a boot. Raises
    CommandFailed, CommandTimeout, OSError, and NotNow where it is not understood."""
    node = os.path.realpath(path)
    found = {"": _one(node), **{number: _one(part) for number, part in _partitions(node).items()}}
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def identity(path: str) -> str | None:
    """What names the device for good, now, as in facts. Raises NotNow where there is no such device."""
    try:
        return disks.identity(path)
    except (OSError, ValueError) as error:
        raise NotNow(f"{path} is no block device here. Nothing was done to it.") from error


def wiping(plan: Plan) -> Mapping[str, str]:
    """node -> device, of what the plan wipes."""
    return {step.node: step.about["device"] for step in plan.steps if step.kind is Kind.WIPE}


def sealed(plan: Plan, records: Mapping[str, str], planned: int) -> Plan:
    """The plan with what was found on each device that it wipes, and when that was (seconds since 1970)."""
    return replace(plan, steps=tuple(_sealed(step, records, planned) for step in plan.steps))


def same(shown: str, here: str, again: bool) -> bool:
    """Whether nothing is there but what was shown. again: a wipe was begun, which may have come to any place."""
    if shown == here:
        return True
    try:
        before, now = _signatures(shown), _signatures(here)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return again and now < before


def _sealed(step: Step, records: Mapping[str, str], planned: int) -> Step:
    if step.kind is not Kind.WIPE:
        return step
    about = {**step.about, "exact": records[step.node], "planned": str(planned)}
    return replace(step, about=about, commands=tuple(_kept(words) for words in step.commands))


def _kept(words: tuple[str, ...]) -> tuple[str, ...]:
    return words if words[0] != "wipefs" or _BACKUP in words else (words[0], _BACKUP, *words[1:])


def _signatures(text: str) -> set[tuple[str, ...]]:
    found: dict[str, Any] = json.loads(text)
    return {(part, *(str(word) for word in each)) for part, there in found.items() for each in there["signatures"]}


def _one(node: str) -> dict[str, Any]:
    said = command.run(["wipefs", "--no-act", "--json", node], timeout=_WIPEFS_SECONDS).stdout
    try:
        listed = json.loads(said).get("signatures", []) if said.strip() else []
        signatures = sorted([str(each.get(key) or "") for key in _KEYS] for each in listed)
    except (ValueError, AttributeError) as error:
        raise NotNow(
            f"wipefs does not tell in a form known here what is on {node}: look with 'wipefs {node}'."
        ) from error
    return {"signatures": signatures, "ends": _ends(node)}


def _ends(node: str) -> str:
    """A digest of the first and the last MiB. Each partition has its own, as it has a page cache of its own."""
    found = hashlib.sha256()
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        for offset in (0, max(0, size - _END)):
            found.update(os.pread(fd, _END, offset))
    finally:
        os.close(fd)
    return f"{size} {found.hexdigest()}"


def _partitions(node: str) -> dict[str, str]:
    """number -> device."""
    folder = os.path.realpath(f"/sys/class/block/{os.path.basename(node)}")
    found = {}
    for name in sorted(os.listdir(folder)):
        try:
            with open(f"{folder}/{name}/partition", encoding="ascii") as file:
                number = file.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if re.fullmatch("[0-9]+", number):
            found[number] = f"/dev/{name.replace('!', '/')}"
    return found
