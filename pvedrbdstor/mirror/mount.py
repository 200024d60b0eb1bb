"""Open the mirror: one descriptor of its root, verified, through which all later work goes.

Every check asks about that descriptor (fstat, fstatfs, its line of mountinfo), never about the path again, so that
nothing mounted or unmounted meanwhile can come between the check and the work.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from pvedrbdstor import command, native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, devices
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.errors import NotMounted, ReadOnlyStorage, SystemCallFailed, WrongMount
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.mirror.judge import MountFacts, judge
from pvedrbdstor.volumes.store import Store

_ASK_DRBD_SECONDS = 2
_KNOWN_MAX = 64

_OwnerKey = tuple[int, int, tuple[int, int], str, int]
_known_owners: dict[_OwnerKey, int] = {}


@dataclass(frozen=True, slots=True)
class Mirror:
    """A verified mirror. root_fd belongs to whoever called open_mirror()."""

    config: StorageConfig
    root_fd: int
    facts: MountFacts

    def check_writable(self) -> None:
        """Raise ReadOnlyStorage where the file system is mounted, or remounted itself, read-only."""
        if self.facts.read_only:
            raise ReadOnlyStorage(storage=self.config.id, path=self.config.path)


def open_mirror(config: StorageConfig) -> Mirror:
    """Open and verify the root of the storage; the caller closes root_fd.

    Raises NotMounted, WrongMount, SystemCallFailed, and CommandFailed or CommandTimeout when DRBD's tools, which are
    only asked where udev has made no link, do not answer within 2 s.
    """
    fd = _open_root(config)
    try:
        facts = gather(fd, config)
        judge(facts, config)
    except OSError as error:
        os.close(fd)
        raise _failed("Looking at the mount", config, error) from error
    except BaseException:
        os.close(fd)
        raise
    return Mirror(config, fd, facts)


@contextmanager
def mirror(config: StorageConfig) -> Iterator[Mirror]:
    """open_mirror() for the time of a with statement."""
    opened = open_mirror(config)
    try:
        yield opened
    finally:
        os.close(opened.root_fd)


@contextmanager
def open_store(config: StorageConfig, *, write: bool = False) -> Iterator[Store]:
    """The volumes of a verified mirror. Raises what open_mirror() does and, with `write`, ReadOnlyStorage."""
    opened = open_mirror(config)
    with Store(config, opened.root_fd) as store:
        if write:
            opened.check_writable()
        yield store


def gather(fd: int, config: StorageConfig) -> MountFacts:
    """Ask the kernel about the opened folder, and DRBD for the resource's minor number where that decides."""
    status = os.fstat(fd)
    file_system = native.fstatfs(fd, config.path)
    mount = _mount_of(fd)
    facts = MountFacts(
        mount=mount,
        opened_path=os.readlink(f"/proc/self/fd/{fd}"),
        device=(os.major(status.st_dev), os.minor(status.st_dev)),
        fs_magic=file_system.type,
        fs_name=file_system.name,
        fsid=file_system.fsid,
        read_only=file_system.read_only,
    )
    if mount is None or not facts.worth_asking:
        return facts
    key = (mount.mnt_id, status.st_dev, facts.fsid, config.resource, config.volume)
    return replace(facts, resource_minor=_owner(key, facts.device[1]))


def _owner(key: _OwnerKey, mounted_minor: int) -> int | None:
    """The minor number of the key's resource and volume.

    Remembered, for this process, once it is the mounted one: DRBD cannot take a minor from its resource while it is
    mounted. A link of udev's is believed when it agrees with the mount; when not it may be stale, and DRBD is asked.
    """
    if key in _known_owners:
        return _known_owners[key]
    resource, volume = key[3:]
    minor = _linked_minor(resource, volume)
    if minor != mounted_minor:
        minor = _minor_from_drbd(resource, volume)
    if minor == mounted_minor:
        if len(_known_owners) >= _KNOWN_MAX:
            _known_owners.clear()
        _known_owners[key] = minor
    return minor


def _linked_minor(resource: str, volume: int) -> int | None:
    """What udev's link says; None without a link to a DRBD device."""
    for link in devices.by_res_links(resource, volume):
        with suppress(OSError):
            status = os.stat(link)
            if stat.S_ISBLK(status.st_mode) and os.major(status.st_rdev) == devices.MAJOR:
                return os.minor(status.st_rdev)
    return None


def _minor_from_drbd(resource: str, volume: int) -> int | None:
    answer = command.run(commands.events2_now(resource), timeout=_ASK_DRBD_SECONDS)
    return parse_now(answer.stdout).minor_of(resource, volume)


def _mount_of(fd: int) -> mountinfo.MountEntry | None:
    mnt_id = mountinfo.mnt_id_of(_read(f"/proc/self/fdinfo/{fd}").decode())
    return None if mnt_id is None else mountinfo.find(_read("/proc/self/mountinfo"), mnt_id)


def _read(path: str) -> bytes:
    """A file of /proc, whole; without a file object, which would cost as much as all of the rest."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while part := os.read(fd, 65536):
            content += part
        return content
    finally:
        os.close(fd)


def _open_root(config: StorageConfig) -> int:
    try:
        return os.open(config.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotMounted(storage=config.id, path=config.path, resource=config.resource) from None
    except NotADirectoryError:
        raise WrongMount(
            storage=config.id,
            path=config.path,
            found="a file",
            expected="a mount point",
            remedy="Move it away, make a folder there and mount the file system on it",
        ) from None
    except OSError as error:
        raise _failed("Opening", config, error) from error


def _failed(operation: str, config: StorageConfig, error: OSError) -> SystemCallFailed:
    return SystemCallFailed(
        operation=operation,
        path=f"{config.path} (storage '{config.id}')",
        reason=error.strerror,
        remedy="Look at 'dmesg' for messages of OCFS2 and DRBD",
    )
