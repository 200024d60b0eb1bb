"""What storage.cfg says of one storage, as a value; checked, because it also comes over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.errors import BadConfig, BadRequest

_ID = re.compile(r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]")  # PVE::JSONSchema parse_storage_id
_PATH = re.compile(r"/[-/a-zA-Z0-9_.@]+")  # PVE::Storage::DirPlugin check_config
_RESOURCE = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9_.+]{0,127}")
_TAKEN_OTHERWISE = re.compile(r"all|[0-9]+")
"""What drbdadm and drbdsetup take for every resource there is, also where one has that name, and for the minor of a device."""
_UUID = re.compile(r"[0-9A-F]{32}")
_DIR_MAX = 1024
_PREALLOCATIONS = ("off", "metadata", "falloc", "full")


@dataclass(frozen=True)
class StorageConfig:
    """One `drbdocfs2` storage.

    path: the mount point. resource, volume: the DRBD device that must be mounted there. uuid: the OCFS2 UUID (32 upper
    case hex digits) that must be found, or None where storage.cfg does not name one. images_dir: where the images lie,
    relative to path. preallocation: PVE's word, or None for PVE's default.
    """

    id: str
    path: str
    resource: str
    volume: int = 0
    uuid: str | None = None
    images_dir: str = "images"
    preallocation: str | None = None

    @classmethod
    def from_wire(cls, data: object) -> StorageConfig:
        """Build from the `storage` object of a request. Raises BadRequest or BadConfig."""
        if not isinstance(data, Mapping):
            raise BadRequest(detail="'storage' is missing or not an object")
        storage_id = data.get("id")
        if not isinstance(storage_id, str) or not _ID.fullmatch(storage_id):
            raise BadRequest(detail="'storage.id' is not a storage name")
        volume = data.get("volume")
        volume = 0 if volume is None else volume
        if not isinstance(volume, int) or isinstance(volume, bool) or not 0 <= volume <= 65535:
            raise BadConfig(storage=storage_id, detail="the DRBD volume must be a number from 0 to 65535")
        return cls(
            id=storage_id,
            path=_path(storage_id, data.get("path")),
            resource=_resource(storage_id, data.get("resource")),
            volume=volume,
            uuid=_optional(
                storage_id, data.get("uuid"), _UUID, "drbdocfs2-uuid is not an OCFS2 UUID (32 upper case hex digits)"
            ),
            images_dir=relative_dir(storage_id, data.get("images_dir") or "images"),
            preallocation=_preallocation(storage_id, data.get("preallocation")),
        )


def relative_dir(storage_id: str, value: object) -> str:
    """A folder below the mount point, as one of `content-dirs` names it. Raises BadConfig."""
    if not isinstance(value, str):
        raise BadConfig(storage=storage_id, detail="a content folder is not text")
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if not parts or any(part == ".." or part.startswith(".drbdocfs2") for part in parts):
        raise BadConfig(storage=storage_id, detail=f"the content folder {value[:64]!r} does not lie below the storage")
    if not value.isprintable() or len(value) > _DIR_MAX:
        raise BadConfig(storage=storage_id, detail=f"the content folder {value[:64]!r} is no name for a folder")
    return "/".join(parts)


def _path(storage_id: str, value: object) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value) or ".." in value.split("/") or not value.strip("/"):
        raise BadConfig(storage=storage_id, detail="path must be absolute, of letters, digits and - _ . @ only")
    return "/" + "/".join(part for part in value.split("/") if part)


def _resource(storage_id: str, value: object) -> str:
    name = _matching(storage_id, value, _RESOURCE, "drbdocfs2-resource is not a DRBD resource name")
    if is_taken_otherwise(name):
        detail = f"drbdocfs2-resource '{name[:16]}' is a name that DRBD's programs take for something else. Give the resource another one"
        raise BadConfig(storage=storage_id, detail=detail)
    return name


def is_taken_otherwise(resource: str) -> bool:
    """Whether DRBD's programs take a resource's name for something else: `drbdadm down all` takes every mirror down."""
    return _TAKEN_OTHERWISE.fullmatch(resource) is not None


def _matching(storage_id: str, value: object, pattern: re.Pattern[str], detail: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadConfig(storage=storage_id, detail=detail)
    return value


def _optional(storage_id: str, value: object, pattern: re.Pattern[str], detail: str) -> str | None:
    return None if value is None else _matching(storage_id, value, pattern, detail)


def _preallocation(storage_id: str, value: object) -> str | None:
    if value is not None and value not in _PREALLOCATIONS:
        raise BadConfig(storage=storage_id, detail=f"preallocation must be one of {', '.join(_PREALLOCATIONS)}")
    return None if value is None else str(value)
