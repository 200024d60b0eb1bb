"""What a folder of copies says of itself: the record of each copy that is whole, and the manifest once all of them are.

FOLDER/files/PATH or FOLDER/device.img, FOLDER/MANIFEST.json, and FOLDER/copied.jsonl before that.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pvedrbdstor.files import replace, sync_folder

MANIFEST = "MANIFEST.json"
FILES = "files"
DEVICE_FILE = "device.img"
RECORD = "copied.jsonl"


@dataclass(frozen=True, slots=True)
class Copied:
    """size: bytes. digest: of the content, holes and zeroes being the same. inode, modified, status_changed (ns since 1970): of
    the file that was copied, 0 of a device."""

    size: int
    digest: str
    inode: int = 0
    modified: int = 0
    status_changed: int = 0

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """As FileState has it."""
        return (self.inode, self.size, self.modified, self.status_changed)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder has copies of. files: by their paths on the storage."""

    files: Mapping[str, Copied] = field(default_factory=dict)
    device: Copied | None = None

    def places(self, folder: str) -> Iterator[tuple[str, str, Copied]]:
        """(what it is a copy of, where it lies, what it should be)."""
        if self.device is not None:
            yield DEVICE_FILE, os.path.join(folder, DEVICE_FILE), self.device
        for path, copied in self.files.items():
            yield path, path_of(folder, path), copied


def path_of(folder: str, path: str) -> str:
    """Where the copy of a file of the storage lies: below a folder of its own, so that no name can be that of something of ours."""
    return os.path.join(folder, FILES, path)


def keep(folder: str) -> None:
    """Every folder's entries on the disk, those above the folder of the copies, which may be new, as well. Raises OSError."""
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(inner)
    sync_folder(os.path.dirname(os.path.abspath(folder)))


def write_manifest(folder: str, manifest: Manifest) -> None:
    """After everything that it names is on the disk with its name. Raises OSError."""
    keep(folder)
    document = {
        "device": asdict(manifest.device) if manifest.device is not None else None,
        "files": {path: asdict(found) for path, found in sorted(manifest.files.items())},
    }
    replace(f"{folder}/{MANIFEST}", json.dumps(document, indent=1), durable=True)


def read_manifest(folder: str) -> Manifest | None:
    """None where there is none, or none of ours."""
    try:
        with open(f"{folder}/{MANIFEST}", encoding="utf-8") as file:
            document = json.load(file)
        device = document["device"]
        return Manifest(
            files={str(path): copied_from(found) for path, found in document["files"].items()},
            device=copied_from(device) if device is not None else None,
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def note(folder: str, path: str, copied: Copied | None) -> None:
    """Write down a copy that is whole, so that another try need not make it again; None: it is not. Raises OSError."""
    line = json.dumps({"path": path, "copied": asdict(copied) if copied is not None else None})
    with open(os.path.join(folder, RECORD), "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")  # the first newline ends what a crash may have cut off
        file.flush()
        os.fsync(file.fileno())


def noted(folder: str) -> dict[str, Copied]:
    """The copies that are on record and there, by size. What a crash has cut off in the record is passed over."""
    found: dict[str, Copied] = {}
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            path, copied = str(entry["path"]), entry["copied"]
            found.pop(path, None)
            if copied is not None:
                found[path] = copied_from(copied)
        except (KeyError, TypeError, ValueError):
            continue
    return {path: copied for path, copied in found.items() if _has_size(path_of(folder, path), copied.size)}


def forget(folder: str, path: str) -> None:
    """A copy that is not what it should be: the next try makes it again. Raises OSError."""
    note(folder, path, None)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, MANIFEST))


def are_there(folder: str) -> bool:
    """Whether all that the manifest names is there, by size."""
    manifest = read_manifest(folder)
    return manifest is not None and all(_has_size(place, found.size) for _, place, found in manifest.places(folder))


def _has_size(place: str, size: int) -> bool:
    try:
        return os.stat(place).st_size == size
    except OSError:
        return False


def copied_from(found: Mapping[str, Any]) -> Copied:
    """Raises KeyError, TypeError, ValueError for what asdict() of none gave."""
    return Copied(
        size=int(found["size"]),
        digest=str(found["digest"]),
        inode=int(found["inode"]),
        modified=int(found["modified"]),
        status_changed=int(found["status_changed"]),
    )
