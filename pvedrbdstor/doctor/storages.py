"""What one storage tells: its verdict, its mount point, its file system on the device, its images. Reads only, within bounds."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Mapping
from contextlib import ExitStack

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.answers import Answers
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import NotMounted, WrongMount
from pvedrbdstor.mirror.gather import mounted_at
from pvedrbdstor.mirror.live.current import current_verdict
from pvedrbdstor.mirror.live.view import verdict_as_json
from pvedrbdstor.mirror.mount import mirror, open_store
from pvedrbdstor.mirror.status import read_superblock
from pvedrbdstor.ocfs2 import journal
from pvedrbdstor.ocfs2.inodes import BadBlock
from pvedrbdstor.space.foreign import foreign
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.space import Space
from pvedrbdstor.volumes.listing import ImageInfo, images_of
from pvedrbdstor.volumes.names import is_chain_file
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.survey import survey

MAP_SECONDS = 1.0
IMAGES_SECONDS = 1.5
"""For the map of clusters, and for the images' extents: what could not be looked at by then is told."""
ENOUGH = 256 << 20
"""Bytes of free space in one piece after which no more of the map is read."""
_LISTING_SECONDS = 5.0
_NAMES_SHOWN = 4
_PATHS_SHOWN = 50


def verdict(config: StorageConfig) -> dict[str, object]:
    found, source = current_verdict(config)
    return {**verdict_as_json(found), "source": source}


# --- questions, as work of a Helper ----------------------------------------------------------------------------------


def ask_folder(wire: Mapping[str, object]) -> dict[str, object]:
    """The mount point as it is without the mount; nothing of it while something is mounted there."""
    config, told = StorageConfig.from_wire(wire), Answers()
    told.take(f"folder:{config.id}", lambda: _folder(config.path))
    return told.as_json()


def _folder(path: str) -> dict[str, object]:
    if mounted_at(path) is not None:
        return {"mounted": True}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"mounted": False, "there": False}
    try:
        names = sorted(os.listdir(fd))
        try:
            immutable: bool | None = bool(native.inode_flags(fd, path) & native.FS_IMMUTABLE_FL)
        except OSError:  # a file system without such flags
            immutable = None
    finally:
        os.close(fd)
    return {"mounted": False, "there": True, "immutable": immutable, "count": len(names), "names": names[:_NAMES_SHOWN]}


def ask_superblock(wire: Mapping[str, object]) -> dict[str, object]:
    config, told = StorageConfig.from_wire(wire), Answers()
    told.take(f"superblock:{config.id}", lambda: _superblock(config))
    return told.as_json()


def _superblock(config: StorageConfig) -> dict[str, object] | None:
    """None where it is not mounted here: then the device need not be readable."""
    try:
        with mirror(config) as opened:
            minor = opened.facts.device[1]
            native.fstatfs(opened.root_fd)  # lets the other node bring its map of clusters to the disk
    except (NotMounted, WrongMount):
        return None
    found = read_superblock(minor)
    values: dict[str, object] = {
        "size": found.size,
        "block_size": found.block_size,
        "cluster_size": found.cluster_size,
        "slots": found.slots,
        "features": sorted(found.features),
    }
    with ExitStack() as stack:
        reader = stack.enter_context(Reader(devices.node(minor)))
        try:
            space = Space(found, [reader.read], ())
            journals = [space.size_of(f"journal:{slot:04d}") for slot in range(found.slots)]
            values["journals"] = [size for size in journals if size is not None]
            begins = [space.start_of(f"journal:{slot:04d}", journal.SIZE) for slot in range(found.slots)]
            values["journal_features"] = [journal.features(begin) for begin in begins]
            values.update(_largest_hole(space, found.size))
        except BadBlock as error:
            values["problem"] = str(error)
    return values


def _largest_hole(space: Space, size: int) -> dict[str, object]:
    """`free`: bytes. `largest_free`: bytes of the largest piece seen; `map_read`: whether all was looked at that was needed to say so.
    `problem`: of the first group of clusters that is not right. Raises OSError: a disk that cannot be read is nothing for fsck."""
    known = len(space.remarks)
    largest, behind, whole = 0, 0, True
    deadline = time.monotonic() + MAP_SECONDS
    for start, length in space.in_use():
        largest, behind = max(largest, start - behind), start + length
        if largest >= ENOUGH:
            break
        if time.monotonic() > deadline:
            whole = False
            break
    else:
        largest = max(largest, size - behind)
    if space.unread:
        raise space.unread[0]
    found: dict[str, object] = {"free": space.free, "largest_free": largest, "map_read": whole}
    return found | ({"problem": space.remarks[known]} if len(space.remarks) > known else {})


def ask_volumes(wire: Mapping[str, object]) -> dict[str, object]:
    config, told = StorageConfig.from_wire(wire), Answers()
    told.take(f"volumes:{config.id}", lambda: _volumes(config))
    return told.as_json()


def _volumes(config: StorageConfig) -> dict[str, object] | None:
    """None where it is not mounted here."""
    call = Call("doctor", config.id, timeout=_LISTING_SECONDS)
    try:
        with open_store(config) as store:
            found = list(images_of(store, call, store.guest_numbers()))
            interrupted = survey(store, call)["interrupted"]
            return {
                "images": [
                    {"vmid": info.file.vmid, "name": info.file.name, "size": info.size, "used": info.used}
                    | ({} if info.parent is None else {"parent": info.parent})
                    for info in found
                ],
                "interrupted": interrupted,
                **_foreign(store, call),
                **_fragments(store, found),
            }
    except (NotMounted, WrongMount):
        return None


def _foreign(store: Store, call: Call) -> dict[str, object]:
    """What no volume is in guests' folders, by its path, layers of a chain last: how many, and the first of them."""
    found = foreign(store, call)
    files = sorted(found.files, key=lambda path: is_chain_file(posixpath.basename(path)))
    return {
        "foreign": {"count": len(files), "first": files[:_PATHS_SHOWN]},
        "lone": {"count": len(found.snapshots), "first": list(found.snapshots[:_PATHS_SHOWN])},
        "layers": sum(is_chain_file(posixpath.basename(path)) for path in files),
    }


def _fragments(store: Store, found: list[ImageInfo]) -> dict[str, object]:
    """Pieces of each image, the largest image first, for as long as there is time: asking costs a cluster lock and a call for 256 of them."""
    deadline = time.monotonic() + IMAGES_SECONDS
    pieces: dict[str, int] = {}
    left: list[str] = []
    waiting = sorted(found, key=lambda info: -info.used)
    for info in waiting:
        name = f"{info.file.vmid}/{info.file.name}"
        if time.monotonic() > deadline:
            left.append(name)
            continue
        with ExitStack() as stack:
            try:
                guest_fd = stack.enter_context(store.guest_of(info.volume))
                fd = os.open(
                    info.file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=guest_fd
                )
                stack.callback(os.close, fd)
                pieces[name], whole = _pieces(fd, deadline)
            except OSError:
                continue  # it has gone meanwhile
        left += [] if whole else [name]
    return {"pieces": pieces, "not_looked_at": len(left), "left": left[:_NAMES_SHOWN]}


def _pieces(fd: int, deadline: float) -> tuple[int, bool]:
    """Runs that lie apart from the one before them on the device, and whether all were seen by the deadline."""
    count, end = 0, -1
    for extent in native.fiemap(fd):
        count += extent.physical != end
        end = extent.physical + extent.length
        if time.monotonic() > deadline:
            return count, False
    return count, True
