"""How the side to lose is preserved: the choice from facts, and the work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import copies, look, lvm, manifest, snapshot
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.manifest import Manifest
from pvedrbdstor.fencing.split.mounted import Mounted
from pvedrbdstor.fencing.split.plan import Refusal
from pvedrbdstor.fencing.split.side import FileState, Side
from pvedrbdstor.fencing.split.steps import Preserve, Step
from pvedrbdstor.sizes import format_size

_MARGIN_NS = 60 * 10**9
"""Clocks of two nodes, and a file whose writes were on their way when the copies parted."""


@dataclass(frozen=True, slots=True)
class Choice:
    """target: a snapshot's `VG/LV`, or the folder of the copies. size: bytes of a plain snapshot, else 0. needed: of copies."""

    how: Preserve
    target: str
    size: int = 0
    needed: int = 0


def choose(
    *,
    storage: str,
    stamp: str,
    volume: lvm.Volume | None,
    marked: Sequence[Range],
    folder: str | None,
    unfit: str | None,
    room: int,
    files: int | None,
    device: int,
    hints: bool,
) -> Choice | Refusal:
    """A snapshot unless a folder was named, and then the changed files, or all of the device where nothing is mounted.

    marked: what the resync will overwrite, if hints: both sides' bitmaps are known whole. unfit: what is against the folder. room:
    bytes free there. files: bytes of the changed files, None while they cannot be read. device: bytes of the lower device.
    """
    name_one = f"Name a folder on a local disk: '--preserve-to DIR', with {format_size(device if files is None else files)} of room"
    if folder is None:
        if volume is None:
            return Refusal("the lower device is no logical volume, so that no snapshot can be made of it", name_one)
        return _snapshot(volume, f"{volume.group}/{volume.name}-split-{stamp}", marked, hints, name_one)
    if unfit is not None:
        return Refusal(f"what will be lost cannot be preserved in {folder}: {unfit}", name_one)
    needed = device if files is None else files
    if room < needed:
        cause = f"{folder} has room for {format_size(room)}, and what will be lost needs {format_size(needed)}"
        return Refusal(cause, name_one)
    how = Preserve.DEVICE if files is None else Preserve.FILES
    return Choice(how, os.path.join(os.path.abspath(folder), f"{storage}-split-{stamp}"), needed=needed)


def _snapshot(volume: lvm.Volume, target: str, marked: Sequence[Range], hints: bool, else_: str) -> Choice | Refusal:
    if volume.pool:
        against = lvm.thin_unfit(volume, marked, hints=hints)
        if against is None:
            return Choice(Preserve.SNAPSHOT, target)
        cause = f"thin pool '{volume.group}/{volume.pool}' cannot hold a snapshot of what will be lost: {against}"
        return Refusal(cause, f"See to the pool, or preserve it elsewhere. {else_}")
    size = lvm.snapshot_size(volume, lvm.in_chunks(marked, lvm.CHUNK), hints=hints)
    if size is not None:
        return Choice(Preserve.SNAPSHOT, target, size)
    cause = f"volume group '{volume.group}' has only {format_size(volume.group_free)} free for a snapshot of what will be lost"
    if not hints:
        cause += f", and how much that is nobody knows, so that it needs {format_size(volume.full_snapshot)}"
    return Refusal(cause, f"Make room there, or preserve it elsewhere. {else_}")


def to_copy(own: Side, other: Side | None) -> tuple[FileState, ...]:
    """The files this side may have changed: by the bitmap, by their time, or because the other side does not have them so.

    Times tell of what lies on old blocks: a clone or a rollback is a reflink. Where nobody knows since when, the other side's times
    must do, and without those every file may have changed.
    """
    theirs = {file.path: file for file in other.files} if other is not None and other.mounted else None
    if not own.hint or (own.since is None and theirs is None):
        return own.files
    since = own.since * 1e9 - _MARGIN_NS if own.since is not None else None
    return tuple(
        file
        for file in own.files
        if file.changed
        or (since is not None and file.touched >= since)
        or (theirs is not None and not _is_so_there(file, theirs.get(file.path), by_time=since is None))
    )


def _is_so_there(file: FileState, other: FileState | None, *, by_time: bool) -> bool:
    if other is None or other.size != file.size:
        return False
    return not by_time or other.identity == file.identity


def is_there(journal: Journal) -> bool:
    """Whether what was preserved can still be had."""
    if journal.preserve is not Preserve.SNAPSHOT:
        return manifest.are_there(journal.target)
    return snapshot.is_there(journal.target)


def copy_files(journal: Journal, config: StorageConfig, progress: copies.Progress) -> Journal:
    """Copy what this side has changed by now. What an earlier try has copied, and nobody has changed since, is there already.

    The file system is read-only by now: nothing may change until all is copied. What was removed here since the plan was made is not
    there to be lost. Raises SplitRefused, SplitStepFailed, NotAnswering, OSError.
    """
    own = look.look(config, with_digests=False)
    if not own.mounted:
        raise _failed(journal, Step.COPY, f"{config.path} is not mounted, or does not answer")
    present = {file.path: file for file in own.files}
    since = own.since if own.since is not None else journal.began
    later = to_copy(replace(own, since=since), None)
    wanted = sorted({*(path for path in journal.files if path in present), *(file.path for file in later)})
    copies.prepare(journal.target)
    copied = {
        path: found
        for path, found in manifest.noted(journal.target).items()
        if path in present and found.identity == present[path].identity
    }
    _check_room(journal, sum(present[path].used for path in wanted if path not in copied))
    with Mounted(config) as mount:
        for path in wanted:
            if path not in copied:
                copied[path] = mount.copy(path, journal.target, progress)
                manifest.note(journal.target, path, copied[path])
    if (changed := _changed_meanwhile(config, present)) is not None:
        raise _failed(
            journal, Step.COPY, f"{changed} while files were copied. Find out what writes to {config.path} here"
        )
    manifest.write_manifest(journal.target, Manifest({path: copied[path] for path in wanted}))
    return replace(journal, files=tuple(wanted))


def _changed_meanwhile(config: StorageConfig, before: Mapping[str, FileState]) -> str | None:
    """What has changed on the mount, in words; None where nothing has."""
    with Mounted(config) as mount:
        if not mount.read_only:
            return f"{config.path} has become writable"
        after = {file.path: file for file in mount.walk((), ())}
    for path in sorted({*before, *after}):
        if path not in after:
            return f"{path} has gone"
        if path not in before:
            return f"{path} has come"
        if before[path].identity != after[path].identity:
            return f"{path} has changed"
    return None


def copy_device(journal: Journal, device: str, progress: copies.Progress, *, size: int | None = None) -> Journal:
    """size: bytes of DRBD's data on the lower device (look.data_size()); None: all of it, with metadata that lie on it.

    Raises SplitRefused, OSError.
    """
    size = device_size(device) if size is None else size
    copies.prepare(journal.target)
    _check_room(journal, size, _INSTEAD_OF_FILES if journal.preserve is Preserve.FILES else "")
    copied = copies.copy_device(device, size, journal.target, progress)
    manifest.write_manifest(journal.target, Manifest(device=copied))
    return replace(journal, preserve=Preserve.DEVICE)


def check(journal: Journal, progress: copies.Progress) -> None:
    """Raises SplitStepFailed where what was preserved is not what it should be. A copy that is wrong is forgotten, so that taking
    the step that made it again makes it anew."""
    if not is_there(journal):
        raise _failed(journal, Step.CHECK, f"{journal.target} is not there, or not whole")
    if journal.preserve is Preserve.SNAPSHOT:
        return
    if (path := copies.wrong(journal.target, progress)) is not None:
        manifest.forget(journal.target, path)
        detail = f"the copy of {path} in {journal.target} does not read as it was written. Look at 'dmesg'"
        raise _failed(journal, Step.CHECK, detail)
    if (missing := _not_copied(journal)) is not None:
        raise _failed(journal, Step.CHECK, f"{journal.target} has no copy of {missing}")


def _not_copied(journal: Journal) -> str | None:
    """The first of what was to be preserved that the manifest does not name."""
    found = manifest.read_manifest(journal.target) or Manifest()
    if journal.preserve is Preserve.DEVICE:
        return None if found.device is not None else manifest.DEVICE_FILE
    return next((path for path in journal.files if path not in found.files), None)


def differs_from_device(journal: Journal, device: str, size: int, progress: copies.Progress) -> str | None:
    """In what the snapshot, or the image, is not the first ``size`` bytes of the lower device, in words; None where they are equal.

    Both are read past the page cache. Raises ValueError for copies of files, which say nothing of a device; OSError.
    """
    match journal.preserve:
        case Preserve.FILES:
            raise ValueError("copies of files cannot be compared with a device")
        case Preserve.SNAPSHOT:
            return snapshot.differs(journal.target, device, size, progress)
        case _:
            found = manifest.read_manifest(journal.target)
            if found is None or found.device is None:
                return f"{journal.target} has no image on record"
            if found.device.size != size:
                return f"the image in {journal.target} has {found.device.size} bytes, and the device has {size}"
            if copies.digest_of(device, size, progress) != found.device.digest:
                return f"{device} has other data than when it was copied to {journal.target}"
            return None


def device_size(device: str) -> int:
    """Bytes. Raises OSError."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def stamp(seconds: float, clock: Callable[[float], time.struct_time] = time.localtime) -> str:
    """For names: digits and one dash."""
    return time.strftime("%Y%m%d-%H%M%S", clock(seconds))


def _failed(journal: Journal, step: Step, detail: str) -> SplitStepFailed:
    return SplitStepFailed(storage=journal.storage, step=step.value, detail=detail)


_INSTEAD_OF_FILES = (
    ". The files alone, which need less, can be copied only while the storage is mounted here: give this resolution up ('--abandon', "
    "which says how to mount by hand), mount it, and begin again"
)


def _check_room(journal: Journal, needed: int, otherwise: str = "") -> None:
    """Of a folder that is there. otherwise: what else can be done."""
    free = copies.room(journal.target)
    if free < needed:
        cause = f"{journal.target} has room for {format_size(free)}, and what will be lost needs {format_size(needed)}"
        remedy = f"Make room there and run 'pvedrbdstor split-brain resolve {journal.storage}' again{otherwise}"
        raise SplitRefused(storage=journal.storage, cause=cause, remedy=remedy)
