"""After a crash: remove what was being built, finish or undo what was begun. Cheap when there is nothing to do."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadName, Error, LockTimeout
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes.locks import guest_lock, try_lock
from pvedrbdstor.volumes.names import VolumeName, check_file_name, check_vmid
from pvedrbdstor.volumes.steps import discard_snapshots, has_snapshot_folder, move_snapshots, protect
from pvedrbdstor.volumes.store import INTERNAL, Store
from pvedrbdstor.volumes.tidy import remove_empty_folders
from pvedrbdstor.volumes.work import INTENT, NEW, TRASH, discard, parse_entry, purge_later, remove_tree

_PLAN_LIMIT = 4096
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass
class Report:
    """How many leftovers were removed, operations finished, operations undone; how many could not be dealt with."""

    removed: int = 0
    finished: int = 0
    undone: int = 0
    failed: int = 0


def recover(store: Store, call: Call) -> dict[str, int]:
    """Deal with every dead entry of work/; entries of live operations are left alone, and those of busy guests for later."""
    report = Report()
    try:
        work_fd = store.folder(f"{INTERNAL}/work")
    except FileNotFoundError:
        return asdict(report)
    # Unfinished files first: a second name of a template must go before its intent makes it immutable.
    for entry in sorted(os.listdir(work_fd), key=lambda entry: (not entry.startswith(NEW), entry)):
        call.check()
        parsed = parse_entry(entry)
        if parsed is None:
            continue
        kind, vmid = parsed
        if kind == TRASH:
            purge_later(store, call)
            _tidy(store, call, vmid)
            report.removed += 1
        else:
            _deal_with(store, call, work_fd, entry, vmid, report)
    return asdict(report)


def pending(store: Store, vmids: Collection[int], volume: VolumeName | None = None) -> list[str]:
    """The intents that concern one of these guests, or only this volume. With the guests' locks held, they are dead ones."""
    try:
        work_fd = store.folder(f"{INTERNAL}/work")
    except FileNotFoundError:
        return []
    entries = [entry for entry in os.listdir(work_fd) if (parse_entry(entry) or ("", 0))[0] == INTENT]
    return [entry for entry in entries if _concerns(work_fd, entry, vmids, volume)]


def _concerns(work_fd: int, entry: str, vmids: Collection[int], volume: VolumeName | None) -> bool:
    try:
        fd = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=work_fd)
    except FileNotFoundError:
        return False
    try:
        plan = _parse(os.pread(fd, _PLAN_LIMIT, 0))
    finally:
        os.close(fd)
    if plan is None:
        return False
    if volume is not None:
        named = {(plan.get("vmid"), plan.get("name")), (plan.get("target_vmid"), plan.get("target_name"))}
        return (volume.vmid, volume.name) in named
    return any(plan.get(key) in vmids for key in ("vmid", "target_vmid"))


def _deal_with(store: Store, call: Call, work_fd: int, entry: str, vmid: int, report: Report) -> None:
    """Act on one entry if nobody alive holds it; it goes last, so that whoever is killed here is followed by another.

    A failure is counted and leaves the entry for the next time. On a read-only file system nothing can be done: OSError.
    """
    try:
        fd = _open(entry, work_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EROFS:
            raise
        report.failed += 1
        return
    try:
        if not try_lock(fd) or os.fstat(fd).st_nlink == 0:
            return
        if entry.startswith(NEW):
            _remove_shown(store, entry)
            reach("recovery.hidden-name-gone")
            outcome = "removed"
            _tidy(store, call, vmid)
            _let_go(store, call, vmid, work_fd, entry)
        else:
            outcome = "finished" if _carry_out(store, call, os.pread(fd, _PLAN_LIMIT, 0)) else "undone"
            reach("recovery.carried-out")
            _tidy(store, call, vmid)
            os.unlink(entry, dir_fd=work_fd)
        reach("recovery.entry-gone")
    except FileNotFoundError:  # its owner was done with it before we locked it
        return
    except (Error, OSError):
        report.failed += 1
        return
    finally:
        os.close(fd)
    setattr(report, outcome, getattr(report, outcome) + 1)


def _open(entry: str, work_fd: int) -> int:
    """For writing, which a read-only file system refuses; a second name of a template, which is immutable, for reading."""
    try:
        return os.open(entry, os.O_RDWR | _OPEN, dir_fd=work_fd)
    except PermissionError:
        return os.open(entry, os.O_RDONLY | _OPEN, dir_fd=work_fd)


def _let_go(store: Store, call: Call, vmid: int, work_fd: int, entry: str) -> None:
    """Have an unfinished file removed once the caller has its answer. A second name of a template cannot be renamed."""
    try:
        discard(store, call, vmid, work_fd, entry)
    except PermissionError:
        remove_tree(work_fd, entry)


def _remove_shown(store: Store, entry: str) -> None:
    """Remove the hidden second name that a file being built may have in its guest's folder."""
    parsed = parse_entry(entry)
    if parsed is None:
        return
    try:
        with store.guest(parsed[1]) as guest_fd:
            os.unlink(f".{entry}", dir_fd=guest_fd)
    except FileNotFoundError:
        pass


def _tidy(store: Store, call: Call, vmid: int) -> None:
    """Remove the folders that an operation may have left empty; a busy guest's are left to whoever is busy with it."""
    try:
        with guest_lock(store, call, vmid, wait=0.0):
            remove_empty_folders(store, vmid)
    except LockTimeout:
        pass


def _carry_out(store: Store, call: Call, text: bytes) -> bool:
    """Finish the operation if its committing step was done (True), else make sure that nothing of it shows (False)."""
    plan = _parse(text)
    if plan is None:
        return False
    volume = _volume(plan, "vmid", "name")
    if plan.get("do") == "free":
        return _finish_free(store, call, volume)
    if plan.get("do") == "template":
        return _finish_template(store, call, volume)
    if plan.get("do") == "rename":
        return _finish_rename(store, call, volume, _volume(plan, "target_vmid", "target_name"))
    raise BadName(name=str(plan.get("do")), what="intent", detail="this version does not know it")


def _parse(text: bytes) -> Mapping[str, object] | None:
    """A plan, or None where the crash came before it was written whole, and so before anything was done."""
    if not text.endswith(b"\n"):
        return None
    try:
        plan = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return plan if isinstance(plan, dict) else None


def _volume(plan: Mapping[str, object], vmid: str, name: str) -> VolumeName:
    return VolumeName(check_vmid(plan.get(vmid)), check_file_name(str(plan.get(name))))


def _finish_free(store: Store, call: Call, volume: VolumeName) -> bool:
    """The image gone: its snapshots follow it. Still there: a template gets its protection back."""
    with guest_lock(store, call, volume.vmid, wait=0.0):
        try:
            with store.guest(volume.vmid) as guest_fd:
                if _exists(guest_fd, volume.name):
                    if volume.is_base:
                        protect(store, guest_fd, volume)
                    return False
                if has_snapshot_folder(store, guest_fd, volume.name):
                    discard_snapshots(store, call, volume.vmid, guest_fd, volume.name)
        except FileNotFoundError:
            pass
    return True


def _finish_template(store: Store, call: Call, base: VolumeName) -> bool:
    with guest_lock(store, call, base.vmid, wait=0.0):
        try:
            with store.guest(base.vmid) as guest_fd:
                if not _exists(guest_fd, base.name):
                    return False
                protect(store, guest_fd, base)
                native.fsync(guest_fd, str(base))
        except FileNotFoundError:
            return False
    return True


def _finish_rename(store: Store, call: Call, volume: VolumeName, target: VolumeName) -> bool:
    """The image moved: its snapshots follow it. Still at its old name: nothing was done but making folders."""
    with guest_lock(store, call, volume.vmid, target.vmid, wait=0.0):
        moved = False
        try:
            with store.guest(volume.vmid) as source_fd, store.guest(target.vmid) as target_fd:
                moved = not _exists(source_fd, volume.name) and _exists(target_fd, target.name)
                if moved:
                    move_snapshots(store, source_fd, target_fd, volume.name, target.name)
                    native.fsync(target_fd, str(target))
                    native.fsync(source_fd, str(volume))
        except FileNotFoundError:
            pass
        remove_empty_folders(store, target.vmid)
    return moved


def _exists(folder_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
