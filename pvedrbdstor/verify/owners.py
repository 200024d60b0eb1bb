"""What a file of the storage is, by its path. Pure; names are a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pvedrbdstor.volumes.names import MADE_FORMATS, format_of, is_guest_folder
from pvedrbdstor.volumes.store import INTERNAL, SNAPSHOTS


class Kind(StrEnum):
    IMAGE = "image"
    SNAPSHOT = "snapshot"
    CONTENT = "content"
    WORK = "work"


@dataclass(frozen=True, slots=True)
class Owner:
    """path: relative to the storage. what: a word for people. image: for a snapshot the path of its image, else its
    own."""

    path: str
    kind: Kind
    what: str
    vmid: int | None = None
    image: str = ""
    snapshot: str = ""

    @property
    def format(self) -> str:
        """What its name says; raw for all that is no qcow2 or vmdk, whose inside can be looked at in no other way."""
        found = format_of(self.path)
        return found if found in MADE_FORMATS else "raw"


_CONTENT = {
    ("dump",): "backup",
    ("template", "iso"): "ISO image",
    ("template", "cache"): "container template",
    ("snippets",): "snippet",
    ("import",): "import",
}


def owner_of(path: str, images_dir: str = "images") -> Owner:
    parts = tuple(path.split("/"))
    if parts[0] == INTERNAL:
        return Owner(path, Kind.WORK, "work in progress")
    images = tuple(images_dir.split("/"))
    if parts[: len(images)] == images and len(parts) > len(images) + 1 and is_guest_folder(parts[len(images)]):
        vmid, rest = int(parts[len(images)]), parts[len(images) + 1 :]
        if len(rest) == 1:
            return Owner(path, Kind.IMAGE, "image", vmid, path)
        if len(rest) == 3 and rest[0] == SNAPSHOTS and rest[2].endswith(".raw"):
            image = "/".join((*images, parts[len(images)], rest[1]))
            return Owner(path, Kind.SNAPSHOT, "snapshot", vmid, image, rest[2].removesuffix(".raw"))
    for folder, what in _CONTENT.items():
        if parts[: len(folder)] == folder and len(parts) > len(folder):
            return Owner(path, Kind.CONTENT, what)
    return Owner(path, Kind.CONTENT, "file")
