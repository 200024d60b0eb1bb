"""The folder a storage lies in, through one open directory descriptor: nothing here looks a path up from the root again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from pvedrbdstor import native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import VolumeMissing, WrongMount
from pvedrbdstor.volumes.names import VolumeName, is_guest_folder

INTERNAL = ".drbdocfs2"
SNAPSHOTS = ".snapshots"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Store:
    """One storage, opened. Owns ``root_fd``, the verified mount, until closed.

    Folders are opened component by component without following links, so that no name leaves the storage.
    """

    def __init__(self, config: StorageConfig, root_fd: int) -> None:
        self.config = config
        self.root_fd = root_fd
        self._device = os.fstat(root_fd).st_dev
        self._opened: dict[str, int] = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor of this storage."""
        for fd in (*self._opened.values(), self.root_fd):
            os.close(fd)
        self._opened.clear()

    def capacity(self) -> native.StatFs:
        """Sizes and type of the file system (statfs(2))."""
        return native.fstatfs(self.root_fd, self.config.path)

    def folder(self, relative: str, *, create: bool = False, mode: int = 0o755) -> int:
        """A descriptor, owned by the store, of a folder below the root. Raises FileNotFoundError, WrongMount."""
        if relative in self._opened:
            return self._opened[relative]
        fd = os.dup(self.root_fd)
        try:
            for part in relative.split("/"):
                fd = self._step(fd, part, create=create, mode=mode)
        except BaseException:
            os.close(fd)
            raise
        self._opened[relative] = fd
        return fd

    def _step(self, parent: int, name: str, *, create: bool, mode: int) -> int:
        """Open ``name`` below ``parent`` and close the latter; on failure ``parent`` stays open."""
        if create:
            make_folder(parent, name, mode)
        fd = self.open_folder(parent, name)
        os.close(parent)
        return fd

    def open_folder(self, parent: int, name: str) -> int:
        """Open a folder for the caller to close; refuses links and other file systems. Raises WrongMount."""
        try:
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._strange(name, "something that is not a folder") from error
            raise
        if os.fstat(fd).st_dev != self._device:
            os.close(fd)
            raise self._strange(name, "another file system")
        return fd

    def _strange(self, name: str, found: str) -> WrongMount:
        return WrongMount(
            storage=self.config.id,
            path=f"the folder '{name}' below {self.config.path}",
            found=found,
            expected="a plain folder of this storage",
            remedy="Move it away, or name another folder in 'content-dirs'",
        )

    def images(self, *, create: bool = False) -> int:
        return self.folder(self.config.images_dir, create=create)

    def locks(self) -> int:
        return self.folder(f"{INTERNAL}/lock", create=True, mode=0o700)

    def work(self) -> int:
        return self.folder(f"{INTERNAL}/work", create=True, mode=0o700)

    @contextmanager
    def guest(self, vmid: int, *, create: bool = False) -> Iterator[int]:
        """The folder of a guest's images. Raises FileNotFoundError where it does not exist."""
        images = self.images(create=create)
        if create:
            make_folder(images, str(vmid), 0o755)
        fd = self.open_folder(images, str(vmid))
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def guest_of(self, volume: VolumeName) -> Iterator[int]:
        """The folder of a volume that should exist. Raises VolumeMissing."""
        try:
            images = self.images()
            fd = self.open_folder(images, str(volume.vmid))
        except FileNotFoundError:
            raise self.missing(volume) from None
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def image(self, guest_fd: int, volume: VolumeName, flags: int = os.O_RDONLY) -> Iterator[int]:
        """An image file, opened. Raises VolumeMissing, also for what is not a regular file."""
        fd = self.open_image(guest_fd, volume, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_image(self, guest_fd: int, volume: VolumeName, flags: int = os.O_RDONLY) -> int:
        """Open an image for the caller to close. Raises VolumeMissing, WrongMount for links and devices."""
        try:
            fd = os.open(volume.name, flags | _FILE, dir_fd=guest_fd)
        except FileNotFoundError:
            raise self.missing(volume) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._not_a_file(volume) from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._not_a_file(volume)
        return fd

    def _not_a_file(self, volume: VolumeName) -> WrongMount:
        return WrongMount(
            storage=self.config.id,
            path=f"the name '{volume}'",
            found="a link, folder or device",
            expected="an image file",
            remedy="Move it away, or copy the image itself to this place",
        )

    def guest_numbers(self) -> list[int]:
        """The guests that have a folder here, in no order."""
        try:
            images = self.images()
        except FileNotFoundError:
            return []
        return [int(name) for name in os.listdir(images) if is_guest_folder(name)]

    def missing(self, volume: VolumeName) -> VolumeMissing:
        return VolumeMissing(volume=volume, storage=self.config.id)


def make_folder(parent: int, name: str, mode: int) -> None:
    """mkdir, whatever the umask, unless something of that name is there already."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def remove_folder_if_empty(parent: int, name: str) -> None:
    """rmdir; nothing happens while it has content or when it is already gone."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
            raise
