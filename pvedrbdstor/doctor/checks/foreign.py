"""What lies in guests' folders and is no volume: nobody sees it but who looks for it, and nothing frees it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.checks.volumes import shown
from pvedrbdstor.doctor.facts import Look, counted, number
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.errors import NoFreeName
from pvedrbdstor.verify.owners import owner_of
from pvedrbdstor.volumes.names import first_free_name, is_chain_file, is_image_file

FOREIGN = Entry(
    "volume-foreign",
    (Severity.HINT,),
    "files in guests' folders that are no volumes, or snapshots without their image, which nothing lists or frees",
)
ENTRIES = (FOREIGN,)
_SAFE = re.compile(r"[\w./@%+:=,-]+", re.ASCII)
"""A path that a shell takes as it is."""


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        found = look.here.mapping(f"volumes:{storage.id}")
        count, paths = _told(found.get("foreign"))
        if count:
            yield _files(storage, count, paths, number(found.get("layers")) or 0, _names(found))
        count, paths = _told(found.get("lone"))
        if count:
            yield _snapshots(storage, count, paths)


def _files(
    storage: StorageConfig, count: int, paths: list[str], layers: int, names: Mapping[int, list[str]]
) -> Finding:
    return FOREIGN.found(
        f"{counted(count, 'file')} in guests' folders on '{storage.id}' that {'is no volume' if count == 1 else 'are no volumes'}: {shown(paths)}",
        "They take space that no list of volumes shows, no backup has them, and no volume that is freed takes them along.",
        _of_layers(storage, paths) if layers == count else _of_files(storage, paths, layers, names),
        storage=storage.id,
    )


def _of_files(storage: StorageConfig, paths: list[str], layers: int, names: Mapping[int, list[str]]) -> str:
    path = next(
        (path for path in paths if _usable(storage, path) and not is_chain_file(posixpath.basename(path))), None
    )
    if path is None:
        return _in_words(storage)
    full, vmid = f"{storage.path}/{path}", owner_of(path, storage.images_dir).vmid or 0
    kept = f"{storage.path}/{storage.images_dir}/{vmid}/{_free_name(storage, vmid, names)}"
    chain = f". Leave {counted(layers, 'layer')} of volume chains among them alone (snap-...qcow2): an image may read from it"
    return (
        f"Look whose it is: 'ls -l {full}'. If it is a disk's image, give it a name that Proxmox lists, with the ending that 'qemu-img info {full}' tells: "
        f"'mv --no-clobber {full} {kept}', then 'qm disk rescan --vmid {vmid}' ('pct rescan --vmid {vmid}' for a container). Move what else is needed to "
        f"another place; what is nobody's 'rm --interactive {full}' removes for good{chain if layers else ''}"
    )


def _of_layers(storage: StorageConfig, paths: list[str]) -> str:
    path = next((path for path in paths if _usable(storage, path)), None)
    if path is None:
        return _in_words(storage)
    return (
        "They are layers of volume chains, of which this type of storage knows nothing and from which an image may read: remove none before the disk was "
        f"made one image, by 'qm disk move' to another storage and back. What it reads from itself 'qemu-img info {storage.path}/{path}' tells"
    )


def _snapshots(storage: StorageConfig, count: int, paths: list[str]) -> Finding:
    return FOREIGN.found(
        f"{counted(count, 'snapshot')} on '{storage.id}' without an image: {shown(paths)}",
        "The image was moved or removed by hand, or freed on a full storage. They take space that no list of volumes shows, and no backup has them.",
        _of_snapshots(storage, paths),
        storage=storage.id,
    )


def _of_snapshots(storage: StorageConfig, paths: list[str]) -> str:
    owners = (owner_of(path, storage.images_dir) for path in paths if _usable(storage, path))
    owner = next(
        (each for each in owners if each.image.endswith(".raw") and is_image_file(posixpath.basename(each.image))), None
    )
    if owner is None:
        return _in_words(storage)
    full, image = f"{storage.path}/{owner.path}", f"{storage.path}/{owner.image}"
    return (
        f"Look when it was taken, and which others are beside it: 'ls -l {posixpath.dirname(full)}'. Make the one that is the most worth the image again, by a "
        f"new name for it: 'mv --no-clobber {full} {image}', then 'qm disk rescan --vmid {owner.vmid}' ('pct rescan --vmid {owner.vmid}' for a container) has "
        "Proxmox list it. The others are freed with it: what is nobody's 'pvedrbdstor volume free --help' removes for good"
    )


def _in_words(storage: StorageConfig) -> str:
    """Where no name of them is fit for a command line."""
    return (
        f"What they hold 'pvedrbdstor space {storage.id}' tells. Look at them in their folders, move what is needed to another place, and remove what is "
        "nobody's; mind the odd letters in their names"
    )


def _usable(storage: StorageConfig, path: str) -> bool:
    return _SAFE.fullmatch(f"{storage.path}/{path}") is not None


def _free_name(storage: StorageConfig, vmid: int, names: Mapping[int, list[str]]) -> str:
    try:
        return first_free_name(names.get(vmid, ()), vmid, "raw", storage.id)
    except NoFreeName:
        return f"vm-{vmid}-disk-NUMBER.raw"


def _names(found: Mapping[str, object]) -> dict[int, list[str]]:
    """Of the images, by guest."""
    names: dict[int, list[str]] = {}
    images = found.get("images")
    for image in images if isinstance(images, list) else ():
        if (
            isinstance(image, dict)
            and isinstance(name := image.get("name"), str)
            and (vmid := number(image.get("vmid")))
        ):
            names.setdefault(vmid, []).append(name)
    return names


def _told(found: object) -> tuple[int, list[str]]:
    """How many, and the first of them."""
    told = found if isinstance(found, dict) else {}
    first = told.get("first")
    paths = [path for path in first if isinstance(path, str)] if isinstance(first, list) else []
    return number(told.get("count")) or 0, paths
