"""How the side to lose is preserved: the choice from facts, and the work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import CommandFailed, CommandTimeout, SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import copies, look, lvm, manifest
from pvedrbdstor.fencing.split.compare import shown
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.manifest import Manifest
from pvedrbdstor.fencing.split.mounted import Mounted
from pvedrbdstor.fencing.split.plan import Refusal
from pvedrbdstor.fencing.split.side import FileState, Side
from pvedrbdstor.fencing.split.steps import Preserve, Step

_LVM_SECONDS = 120.0
DEVICES = "/dev"
_FULL = 80.0
"""Per cent of a plain snapshot, from where it may overflow before anybody looks again."""
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
    changed: int,
    folder: str | None,
    unfit: str | None,
    room: int,
    files: int | None,
    device: int,
    hints: bool,
) -> Choice | Refusal:
    """A snapshot unless a folder was named, and then the changed files, or all of the device where nothing is mounted.

    changed: bytes that the resync will overwrite, if hints: both sides' bitmaps are known whole. unfit: what is against the folder. room: bytes free there. files: bytes of the
    changed files, None while they cannot be read. device: bytes of the lower device.
    """
    name_one = (
        f"Name a folder on a local disk: '--preserve-to DIR', with {shown(device if files is None else files)} of room"
    )
    if folder is None:
        if volume is None:
            return Refusal("the lower device is no logical volume, so that no snapshot can be made of it", name_one)
        return _snapshot(volume, f"{volume.group}/{volume.name}-split-{stamp}", changed, hints, name_one)
    if unfit is not None:
        return Refusal(f"what will be lost cannot be preserved in {folder}: {unfit}", name_one)
    needed = device if files is None else files
    if room < needed:
        cause = f"{folder} has room for {shown(room)}, and what will be lost needs {shown(needed)}"
        return Refusal(cause, name_one)
    how = Preserve.DEVICE if files is None else Preserve.FILES
    return Choice(how, os.path.join(os.path.abspath(folder), f"{storage}-split-{stamp}"), needed=needed)


def _snapshot(volume: lvm.Volume, target: str, changed: int, hints: bool, else_: str) -> Choice | Refusal:
    if volume.pool:
        against = lvm.thin_unfit(volume, changed, hints=hints)
        if against is None:
            return Choice(Preserve.SNAPSHOT, target)
        cause = f"thin pool '{volume.group}/{volume.pool}' cannot hold a snapshot of what will be lost: {against}"
        return Refusal(cause, f"See to the pool, or preserve it elsewhere. {else_}")
    size = lvm.snapshot_size(volume, changed, hints=hints)
    if size is not None:
        return Choice(Preserve.SNAPSHOT, target, size)
    cause = (
        f"volume group '{volume.group}' has only {shown(volume.group_free)} free for a snapshot of what will be lost"
    )
    if not hints:
        cause += f", and how much that is nobody knows, so that it needs {shown(volume.full_snapshot)}"
    return Refusal(cause, f"Make room there, or preserve it elsewhere. {else_}")


def to_copy(own: Side, other: Side | None) -> tuple[FileState, ...]:
    """The files this side may have changed: by the bitmap, by their time, or because the other side does not have them so."""
    if not own.hint:
        return own.files
    theirs = {file.path: file for file in other.files} if other is not None and other.mounted else None
    since = (own.since * 1e9 if own.since is not None else own.at * 1e9) - _MARGIN_NS
    return tuple(
        file
        for file in own.files
        if file.changed
        or file.touched >= since
        or (theirs is not None and (file.path not in theirs or theirs[file.path].size != file.size))
    )


def volume_of(device: str) -> lvm.Volume | None:
    """The logical volume that a device is; None for anything else, and where there is no LVM."""
    answer = _lvs(lvm.ask(device))
    volume = lvm.parse(answer) if answer is not None else None
    if volume is None or not volume.pool:
        return volume
    pool = _lvs(lvm.ask_pool(volume))
    return replace(volume, thin=lvm.parse_pool(pool) if pool is not None else None)


def _lvs(line: list[str]) -> str | None:
    try:
        answer = command.run(line, timeout=_LVM_SECONDS, check=False)
    except (CommandFailed, CommandTimeout):
        return None
    return answer.stdout if answer.status == 0 else None


def is_there(journal: Journal) -> bool:
    """Whether what was preserved can still be had."""
    if journal.preserve is not Preserve.SNAPSHOT:
        return manifest.are_there(journal.target)
    answer = _lvs(lvm.ask_snapshot(journal.target))
    return answer is not None and lvm.is_sound(answer)


def danger(journal: Journal, origin: int) -> str | None:
    """What threatens, or has spoilt, what is preserved while the resync overwrites this side, in words; None where nothing does.

    origin: bytes of the lower device: a plain snapshot that is as large may fill up, and never overflows.
    """
    if journal.preserve is not Preserve.SNAPSHOT:
        return None
    answer = _lvs(lvm.ask_snapshot(journal.target))
    if answer is None or not lvm.is_sound(answer):
        return f"snapshot {journal.target} is lost: it has overflowed, or is not active any more"
    filled = lvm.filled(answer)
    if filled is not None and filled >= _FULL and journal.size < lvm.full_snapshot(origin):
        return f"snapshot {journal.target} is {filled:.0f} % full, and is lost when it overflows"
    return None


def snapshot(journal: Journal, device: str) -> None:
    """Make it, unless a try before a crash did. Raises SplitStepFailed, CommandFailed, CommandTimeout."""
    if is_there(journal):
        return
    volume = volume_of(device)
    if volume is None:
        raise _failed(journal, Step.SNAPSHOT, f"{device} is no logical volume any more")
    if volume.pool and (against := lvm.thin_unfit(volume, 0, hints=True)) is not None:
        raise _failed(journal, Step.SNAPSHOT, f"thin pool '{volume.group}/{volume.pool}': {against}")
    name = journal.target.partition("/")[2]
    command.run(lvm.create(volume, name, journal.size), timeout=_LVM_SECONDS)


def copy_files(journal: Journal, config: StorageConfig, progress: copies.Progress) -> Journal:
    """Copy what this side has changed by now. What an earlier try has copied, and nobody has changed since, is there already.

    The file system is read-only by now: what was to be copied cannot have gone, and nothing may change until all is copied.
    Raises SplitRefused, SplitStepFailed, NotAnswering, OSError.
    """
    own = look.look(config, with_digests=False)
    present = {file.path: file for file in own.files}
    gone = sorted(set(journal.files) - present.keys())
    if not own.mounted or gone:
        detail = (
            f"{gone[0]} is not there any more" if own.mounted else f"{config.path} is not mounted, or does not answer"
        )
        raise _failed(journal, Step.COPY, detail)
    wanted = sorted({*journal.files, *(file.path for file in to_copy(own, None))})
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
    _check_room(journal, size)
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
            if not is_there(journal):
                return f"{journal.target} is not there, or not whole"
            return _snapshot_differs(journal.target, device, size, progress)
        case _:
            found = manifest.read_manifest(journal.target)
            if found is None or found.device is None:
                return f"{journal.target} has no image on record"
            if found.device.size != size:
                return f"the image in {journal.target} has {found.device.size} bytes, and the device has {size}"
            if copies.digest_of(device, size, progress) != found.device.digest:
                return f"{device} has other data than when it was copied to {journal.target}"
            return None


def _snapshot_differs(target: str, device: str, size: int, progress: copies.Progress) -> str | None:
    place = f"{DEVICES}/{target}"
    if not os.path.exists(place):
        command.run(lvm.activate(target), timeout=_LVM_SECONDS)
    at = copies.first_difference(place, device, size, progress)
    return None if at is None else f"{device} has other data than {target}, from byte {at} on"


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


def _check_room(journal: Journal, needed: int) -> None:
    """Of a folder that is there."""
    free = copies.room(journal.target)
    if free < needed:
        cause = f"{journal.target} has room for {shown(free)}, and what will be lost needs {shown(needed)}"
        remedy = f"Make room there and run 'pvedrbdstor split-brain resolve {journal.storage}' again"
        raise SplitRefused(storage=journal.storage, cause=cause, remedy=remedy)
