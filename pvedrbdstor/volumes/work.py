"""Work in progress: files being built, things on their way out, intents of operations with several steps.

All lie in .drbdocfs2/work. Whoever works on an entry holds flock() on it, so an entry that can be locked is a dead one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes.locks import acquire, open_lock, reflink_lock, try_lock
from pvedrbdstor.volumes.store import Store

NEW, TRASH, INTENT = "new", "trash", "intent"
IMAGE_MODE = 0o640
_ENTRY = re.compile(rf"({NEW}|{TRASH}|{INTENT})\.([1-9][0-9]{{0,8}})\.[0-9a-f]{{16}}", re.ASCII)
_TRIES = 20
_KEPT_SECONDS = 5.0
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class _TakenForDead(Exception):
    """A cleaner came between the making of an entry and its lock."""


@dataclass(frozen=True)
class Kept:
    """An entry that keeps what is about to be replaced, locked by whoever replaces it."""

    vmid: int
    entry: str


class Building:
    """A file under construction in work/, open for reading and writing, locked. Becomes visible by one step, or vanishes."""

    def __init__(self, store: Store, entry: str, fd: int) -> None:
        self.fd = fd
        self.entry = entry
        self._work = store.work()

    def publish(self, call: Call, folder_fd: int, name: str) -> None:
        """Give the synced file its name; atomic, and FileExistsError where the name is taken, also by another node.

        Whoever was told of a failure finds nothing of that name: a call that ends before this is over takes it back.
        """
        native.fsync(self.fd, name)
        reach("publish.synced")
        call.check()
        os.link(self.entry, name, src_dir_fd=self._work, dst_dir_fd=folder_fd, follow_symlinks=False)
        try:
            reach("publish.linked")
            os.unlink(self.entry, dir_fd=self._work)
            reach("publish.unlinked")
            native.fsync(folder_fd, name)
            call.check()
        except BaseException:
            _unlink_quietly(name, folder_fd)
            raise

    def replace(self, store: Store, call: Call, folder_fd: int, name: str, old: Kept) -> None:
        """Put the synced file in the place of an existing one, which was kept as ``old`` and then goes; atomic.

        A call that has ended by then changes nothing: its caller was told so, and may have a guest use the old file.
        """
        try:
            native.fsync(self.fd, name)
            reach("replace.synced")
            call.check()
            os.rename(self.entry, name, src_dir_fd=self._work, dst_dir_fd=folder_fd)
        except BaseException:
            _unlink_quietly(old.entry, self._work)
            raise
        try:
            call.check()  # the rename itself may have waited for the file system
        except BaseException:
            os.rename(old.entry, name, src_dir_fd=self._work, dst_dir_fd=folder_fd)
            raise
        reach("replace.renamed")
        native.fsync(folder_fd, name)
        discard(store, call, old.vmid, self._work, old.entry)
        reach("replace.old-gone")

    @contextmanager
    def shown_in(self, folder_fd: int) -> Iterator[str]:
        """A hidden second name in a guest's folder for as long as the block runs: there it finds what it is backed by."""
        name = f".{self.entry}"
        os.link(self.entry, name, src_dir_fd=self._work, dst_dir_fd=folder_fd, follow_symlinks=False)
        try:
            reach("building.shown")
            yield name
        finally:
            _unlink_quietly(name, folder_fd)

    def discard(self) -> None:
        """Remove what was not published; nothing happens when it was."""
        _unlink_quietly(self.entry, self._work)


@contextmanager
def building(store: Store, vmid: int) -> Iterator[Building]:
    """A new empty file for this guest, 0640."""
    with _owned(store, lambda: _create(store, vmid)) as item:
        yield item


@contextmanager
def reflinking(
    store: Store, call: Call, vmid: int, source_fd: int, path: str, mode: int = IMAGE_MODE
) -> Iterator[Building]:
    """A new file that shares all blocks of ``source_fd``. Raises LockTimeout, OSError."""
    with _owned(store, lambda: _reflink(store, call, vmid, source_fd, path, mode)) as item:
        yield item


@contextmanager
def _owned(store: Store, make: Callable[[], tuple[str, int]]) -> Iterator[Building]:
    entry, fd = _locked(make)
    item = Building(store, entry, fd)
    reach("building.created")
    try:
        yield item
    except BaseException:
        item.discard()
        raise
    finally:
        os.close(fd)


def _locked(make: Callable[[], tuple[str, int]]) -> tuple[str, int]:
    """Make an entry, which locks it; again if a cleaner took it for a dead one in the moment between."""
    for _ in range(_TRIES):
        try:
            return make()
        except _TakenForDead:
            continue
    raise OSError(errno.EBUSY, "recovery takes each new file for a dead one")


def _lock_new(fd: int) -> None:
    """Raises _TakenForDead."""
    if not (try_lock(fd) and os.fstat(fd).st_nlink):
        raise _TakenForDead


def _open_new(entry: str, work_fd: int, mode: int) -> int:
    """A new entry, open and locked. Raises _TakenForDead."""
    fd = os.open(entry, _CREATE, mode, dir_fd=work_fd)
    try:
        _lock_new(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _create(store: Store, vmid: int) -> tuple[str, int]:
    entry = _entry(NEW, vmid)
    fd = _open_new(entry, store.work(), IMAGE_MODE)
    os.fchmod(fd, IMAGE_MODE)
    return entry, fd


def _reflink(store: Store, call: Call, vmid: int, source_fd: int, path: str, mode: int) -> tuple[str, int]:
    entry = _entry(NEW, vmid)
    with reflink_lock(store, call):
        return entry, native.clone_file(source_fd, store.work(), entry, mode, path, _lock_new)


# --- on the way out ----------------------------------------------------------------------------------------------


def discard(store: Store, call: Call, vmid: int, folder_fd: int, name: str) -> None:
    """Take a file or folder of a guest out of sight by one rename; its blocks are given back after the caller has its answer.

    Where the file system is too full even for that, it is removed at once.
    """
    entry = _entry(TRASH, vmid)
    try:
        os.rename(name, entry, src_dir_fd=folder_fd, dst_dir_fd=store.work())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        remove_tree(folder_fd, name)
    else:
        purge_later(store, call)


def keep_for_removal(store: Store, call: Call, vmid: int, folder_fd: int, name: str, fd: int) -> Kept:
    """Give a file that is about to be replaced, open as ``fd``, a second name: replacing it then frees no blocks at once,
    and can be taken back. Found dead, only that name goes. Raises LockTimeout."""
    acquire(fd, call, f"'{name}'", _KEPT_SECONDS)  # recovery has it for a moment at most, by another name
    entry = _entry(NEW, vmid)
    os.link(name, entry, src_dir_fd=folder_fd, dst_dir_fd=store.work(), follow_symlinks=False)
    return Kept(vmid, entry)


def purge_later(store: Store, call: Call) -> None:
    """Empty the trash once the answer was sent. One process in the whole cluster does so at a time, for all others."""
    if any(isinstance(task, _Purge) for task in call.after):
        return
    call.after.append(_Purge(os.dup(store.work()), open_lock(store, "purge")))


class _Purge:
    """Removes what lies in the trash until nothing does, unless somebody is at it already."""

    def __init__(self, work_fd: int, lock_fd: int) -> None:
        self._work_fd = work_fd
        self._lock_fd = lock_fd

    def __call__(self) -> None:
        try:
            while try_lock(self._lock_fd) and (found := _trash(self._work_fd)):
                for entry in found:
                    remove_tree(self._work_fd, entry)
        finally:
            os.close(self._lock_fd)
            os.close(self._work_fd)


def _trash(work_fd: int) -> list[str]:
    return [entry for entry in os.listdir(work_fd) if (parse_entry(entry) or ("", 0))[0] == TRASH]


def remove_tree(parent: int, name: str) -> None:
    """Remove a file, or a folder with all that is in it; another node may be doing the same."""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            _unlink(parent, name, mode)
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for child in os.listdir(fd):
                remove_tree(fd, child)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _unlink(parent: int, name: str, mode: int) -> None:
    """unlink(2), and once more without the immutable flag, which a file that has another name keeps."""
    try:
        os.unlink(name, dir_fd=parent)
    except PermissionError:
        if not stat.S_ISREG(mode):
            raise
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            native.set_immutable(fd, False, name)
            os.unlink(name, dir_fd=parent)
            if os.fstat(fd).st_nlink:
                native.set_immutable(fd, True, name)
        finally:
            os.close(fd)


# --- intents -----------------------------------------------------------------------------------------------------


@contextmanager
def intent(store: Store, vmid: int, data: dict[str, object], *, even_if_full: bool = False) -> Iterator[None]:
    """Leave word of an operation of several steps while it runs; a crash leaves the word for recovery to act upon.

    An ordinary failure leaves it too: whether the committing step was done is for recovery to see. ``even_if_full``
    goes on without a word where the file system has no room for one.
    """
    try:
        entry, fd = _write_intent(store, vmid, json.dumps(data).encode() + b"\n")
    except OSError as error:
        if not even_if_full or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        yield
        return
    try:
        reach("intent.written")
        yield
        _unlink_quietly(entry, store.work())
    finally:
        os.close(fd)


def _write_intent(store: Store, vmid: int, text: bytes) -> tuple[str, int]:
    """The entry, written and locked. Nothing was done yet, so a failure leaves none."""
    work_fd = store.work()

    def create() -> tuple[str, int]:
        name = _entry(INTENT, vmid)
        return name, _open_new(name, work_fd, 0o600)

    entry, fd = _locked(create)
    try:
        os.write(fd, text)
        native.fsync(fd, entry)
        native.fsync(work_fd, entry)
    except BaseException:
        _unlink_quietly(entry, work_fd)
        os.close(fd)
        raise
    return entry, fd


def _entry(kind: str, vmid: int) -> str:
    return f"{kind}.{vmid}.{os.urandom(8).hex()}"


def parse_entry(entry: str) -> tuple[str, int] | None:
    """What an entry of work/ is, and which guest's; None for what is none of ours."""
    match = _ENTRY.fullmatch(entry)
    return (match[1], int(match[2])) if match else None


def _unlink_quietly(entry: str, work_fd: int) -> None:
    try:
        os.unlink(entry, dir_fd=work_fd)
    except FileNotFoundError:
        pass
