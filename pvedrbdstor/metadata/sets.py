"""Sets of files on this node's disk: written whole or not at all, read back and checked, the oldest removed.

A set is a folder NODE-DATE-TIME below FOLDER/STORAGE, with its manifest in it: everything else in it, with its SHA-256 sum.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pvedrbdstor import files

FOLDER = "/var/lib/pvedrbdstor/metadata"
MANIFEST = "manifest.json"
FORMAT = 1
KEEP = 5
TOTAL_MAX = 512 << 20
"""Bytes of all sets of a storage and node; the newest is kept however large it is."""
_NAME = re.compile(r"(?P<node>[A-Za-z0-9][A-Za-z0-9.-]{0,63})-\d{8}-\d{6}", re.ASCII)
_FILE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
_MANIFEST_MAX = 1 << 20
_AT_ONCE = 1 << 20


class Broken(Exception):
    """A folder is no set that can be relied on; the text says why."""


@dataclass(frozen=True, slots=True)
class Set:
    """path: its folder. manifest: as it was written, checked in what this module reads of it. bytes: of its files."""

    path: str
    manifest: Mapping[str, Any]
    bytes: int

    @property
    def at(self) -> float:
        """Seconds since 1970."""
        return float(self.manifest["at"])


def write(folder: str, node: str, now: float, fill: Callable[[str], Mapping[str, object]]) -> Set:
    """A new set below ``folder``; ``fill`` writes files into the folder it is given, and returns what else the manifest says.

    On the disk when this returns. Nothing is left where it fails. Raises what ``fill`` raises, and OSError.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name = f"{node}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}"
    new, path = f"{folder}/.new-{node}", f"{folder}/{name}"
    shutil.rmtree(new, ignore_errors=True)  # of one that was cut off
    try:
        os.mkdir(new, 0o700)
        said = fill(new)
        sums = {
            inner: {"sha256": _sum(f"{new}/{inner}", durable=True), "bytes": os.path.getsize(f"{new}/{inner}")}
            for inner in sorted(os.listdir(new))
        }
        manifest = {"format": FORMAT, "at": now, "node": node, **said, "files": sums}
        files.replace(f"{new}/{MANIFEST}", json.dumps(manifest, indent=1) + "\n", durable=True, mode=0o600)
        os.rename(new, path)
        files.sync_folder(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return read(path)


def read(path: str) -> Set:
    """Its manifest alone: no sum is checked. Raises Broken."""
    try:
        with open(f"{path}/{MANIFEST}", encoding="utf-8") as file:
            manifest = json.loads(file.read(_MANIFEST_MAX))
    except (OSError, ValueError, RecursionError) as error:
        raise Broken(f"{path}/{MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Broken(f"{path}/{MANIFEST} is of another version")
    at, named = manifest.get("at"), manifest.get("files")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1 << 40 or not isinstance(named, dict):
        raise Broken(f"{path}/{MANIFEST} does not tell when it was made and of which files")
    for name, entry in named.items():
        whole = isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and type(entry.get("bytes")) is int
        if not whole or not _FILE.fullmatch(name):
            raise Broken(f"{path}/{MANIFEST} has an entry that is no file with its sum")
    return Set(path, manifest, sum(entry["bytes"] for entry in named.values()))


def damaged(found: Set) -> list[str]:
    """What is wrong with its files, a line each; empty where all are as they were written."""
    wrong = []
    for name, entry in found.manifest["files"].items():
        try:
            if os.path.getsize(f"{found.path}/{name}") != entry["bytes"]:
                wrong.append(f"{name} has another length")
            elif _sum(f"{found.path}/{name}") != entry["sha256"]:
                wrong.append(f"{name} has another SHA-256 sum")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
    return wrong


def paths(folder: str, node: str | None = None) -> list[str]:
    """The sets below ``folder``, the newest first by their names; of one node, or of all. Raises OSError."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = [match for name in names if (match := _NAME.fullmatch(name)) and node in (None, match["node"])]
    return [f"{folder}/{match[0]}" for match in sorted(matches, key=lambda match: match[0][-15:], reverse=True)]


def prune(folder: str, node: str) -> list[str]:
    """Remove what is more than KEEP sets, or more than TOTAL_MAX bytes, of this node: their folders. Raises OSError."""
    removed, total = [], 0
    for count, path in enumerate(paths(folder, node)):
        total += sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
        if count > 0 and (count >= KEEP or total > TOTAL_MAX):
            shutil.rmtree(path)
            removed.append(path)
    return removed


def _sum(path: str, *, durable: bool = False) -> str:
    """durable: it is on the disk, too."""
    found = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        while part := file.read(_AT_ONCE):
            found.update(part)
        if durable:
            os.fsync(fd)
    return found.hexdigest()
