"""Save what a last resort needs of one mounted storage: the map of its files, its superblock, the texts that describe what lies below it.

Reads the mirror, and writes to a folder elsewhere. The mount is looked at in a process of its own, which may hang without us (cli.session).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pvedrbdstor import __version__, files
from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import MetadataNotSaved, SystemCallFailed
from pvedrbdstor.metadata import places, sets, texts
from pvedrbdstor.mirror.mount import mirror
from pvedrbdstor.mirror.status import read_head
from pvedrbdstor.native import IOPRIO_CLASS_IDLE
from pvedrbdstor.ocfs2.superblock import parse_superblock
from pvedrbdstor.verify import priority

LOCK = "/run/pvedrbdstor/metadata.lock"
SUPERBLOCK = "superblock.bin"
GUESTS_FIRST = priority.Priority(nice=19, policy=os.SCHED_BATCH, io_class=IOPRIO_CLASS_IDLE)


@dataclass(frozen=True, slots=True)
class Saved:
    """found: the new set. removed: folders of sets that made room for it."""

    found: sets.Set
    removed: tuple[str, ...]


class Looker:
    """As the dispatcher of a session: writes the map and the superblock, and returns what the manifest says of the file system."""

    def dispatch(self, _method: str, params: Mapping[str, Any], call: Call, stream: int | None = None) -> object:
        """params: `storage`, and `folder`, which is there and empty. Raises what open_mirror() and places.write() do, NotOcfs2."""
        config, folder = StorageConfig.from_wire(params["storage"]), str(params["folder"])
        priority.take(GUESTS_FIRST)
        try:
            return self._look(config, folder, call)
        except OSError as error:
            remedy = "See that it can be written to and has room"
            reason = error.strerror or str(error)
            raise SystemCallFailed(operation="Writing", path=folder, reason=reason, remedy=remedy) from error

    def _look(self, config: StorageConfig, folder: str, call: Call) -> dict[str, object]:
        with mirror(config) as opened:
            if os.stat(folder).st_dev == os.fstat(opened.root_fd).st_dev:
                raise MetadataNotSaved(
                    storage=config.id,
                    cause=f"{folder} lies on the storage itself, and would be lost with it",
                    remedy="Name a folder on another disk",
                )
            minor = opened.facts.device[1]
            block = _write_superblock(minor, f"{folder}/{SUPERBLOCK}")
            written = places.write(opened.root_fd, f"{folder}/{places.NAME}", config.id, call.advance)
        return {"minor": minor, **block, "map": asdict(written)}


def save(config: StorageConfig, section: str, node: str, now: float, below: str, look: Any) -> Saved:
    """A new set below BELOW/STORAGE. look: called with the folder, does what Looker does. section: of storage.cfg.

    Raises MetadataNotSaved, SystemCallFailed, and what ``look`` raises. Nothing is left of a set that failed.
    """
    folder = f"{below}/{config.id}"

    def fill(new: str) -> dict[str, object]:
        seen = look(new)
        missing = texts.write(config, seen["minor"], section, new)
        about: dict[str, object] = {
            "storage": config.id,
            "resource": config.resource,
            "volume": config.volume,
            "path": config.path,
        }
        about["images_dir"] = config.images_dir
        return {**about, "version": __version__, "kernel": os.uname().release, **seen, "missing": missing}

    try:
        with files.only_one(LOCK):
            found = sets.write(folder, node, now, fill)
            return Saved(found, tuple(sets.prune(folder, node)))
    except files.Held as error:
        cause = f"process {error.pid or 'unknown'} saves metadata at this moment"
        raise MetadataNotSaved(storage=config.id, cause=cause, remedy="Wait until it has ended") from error
    except OSError as error:
        remedy = "See that it can be written to and has room"
        reason = error.strerror or str(error)
        raise SystemCallFailed(operation="Writing", path=folder, reason=reason, remedy=remedy) from error
    except sets.Broken as error:
        remedy = "Look at the disk it is on"
        raise SystemCallFailed(operation="Checking", path=folder, reason=str(error), remedy=remedy) from error


def _write_superblock(minor: int, path: str) -> dict[str, object]:
    """What the device begins with, as a file; and what it says. Raises NotOcfs2, SystemCallFailed, OSError of the file."""
    data, size = read_head(minor)
    found = parse_superblock(data, devices.node(minor))
    with open(path, "xb") as file:
        file.write(data)
    return {
        "device_bytes": size,
        "uuid": found.uuid,
        "label": found.label,
        "bytes": found.size,
        "block_size": found.block_size,
        "cluster_size": found.cluster_size,
        "slots": found.slots,
        "features": sorted(found.features),
    }
