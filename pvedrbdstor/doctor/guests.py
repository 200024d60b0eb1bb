"""Which guests there are, which volumes their configurations name, and how they use their disks. Never the configurations themselves: these
hold passwords."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict

from pvedrbdstor.doctor.answers import Answers
from pvedrbdstor.pve import guests
from pvedrbdstor.pve.drives import drives_in

_ATTEMPTS = 3
_LINE = re.compile(r"([^\s:#][^\s:]*):\s*(.*)", re.ASCII)
_SECTION = re.compile(r"\[(.+)\]\s*", re.ASCII)
_WORDS = re.compile(r"[,;\s\0]+", re.ASCII)
_PASSED_OVER = ("description", "parent")


def ask_guests(question: Mapping[str, object]) -> dict[str, object]:
    """As work of a Helper: /etc/pve may hang."""
    told = Answers()
    ids = question["ids"]
    assert isinstance(ids, list)
    told.take(
        f"guests:{ids[0]}", lambda: _guests(str(question["nodes"]), str(question["path"]), [str(id_) for id_ in ids])
    )
    return told.as_json()


def _guests(nodes: str, path: str, ids: list[str]) -> dict[str, object]:
    """Looks again when a file vanishes meanwhile: a guest that migrates moves from one node's folder to another's."""
    for attempt in range(_ATTEMPTS):
        try:
            return _read(nodes, path, ids)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1 or not os.path.isdir(nodes):
                raise
    raise AssertionError("the last attempt returns or raises")


def _read(nodes: str, path: str, ids: list[str]) -> dict[str, object]:
    """vmids: of all guests. named: `VMID/NAME` of each volume that is named, with the guest and key. drives: as pve.drives has them."""
    vmids, named, drives = [], [], []
    for vmid, kind, file in list(guests.configurations(nodes)):
        with open(file, encoding="utf-8", errors="replace") as opened:
            text = opened.read()
        vmids.append(vmid)
        named += [
            {"vmid": vmid, "kind": kind, "key": key, "volume": volume} for key, volume in volumes_in(text, ids, path)
        ]
        if kind == "VM":
            drives += [asdict(drive) for drive in {d for id_ in ids for d in drives_in(text, vmid, id_, path)}]
    return {"vmids": vmids, "named": named, "drives": drives}


def volumes_in(text: str, ids: list[str], path: str) -> list[tuple[str, str]]:
    """(key, `VMID/NAME`) of every volume of the storage that a configuration names, in any section; pure.

    ids: that the storage is known by. path: of it, as root may name a file in a configuration.
    """
    found: list[tuple[str, str]] = []
    section = ""
    for line in text.split("\n"):
        if title := _SECTION.fullmatch(line):
            section = f" in {title[1]}"
        elif (pair := _LINE.fullmatch(line)) and pair[1] not in _PASSED_OVER:
            for word in _WORDS.split(pair[2]):
                volume = _volume(word, ids, path) or _volume(word.partition("=")[2], ids, path)
                if volume is not None:
                    found.append((pair[1] + section, volume))
    return found


def _volume(word: str, ids: list[str], path: str) -> str | None:
    """`VMID/NAME`: what stands before it is the base of a linked clone."""
    storage, colon, name = word.partition(":")
    parts = name.split("/")
    if colon and storage in ids and len(parts) >= 2 and parts[-2].isdecimal() and parts[-1]:
        return "/".join(parts[-2:])
    if word.startswith(f"{path}/"):
        parts = word[len(path) + 1 :].split("/")
        if len(parts) == 3 and parts[1].isdecimal():
            return "/".join(parts[1:])
    return None
