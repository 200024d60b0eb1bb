"""What images there are and how large: directory entries and headers, never a process per image."""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadImage, BadName, SystemCallFailed, WrongMount
from pvedrbdstor.volumes import qcow2, vmdk
from pvedrbdstor.volumes.names import ImageFile, VolumeName, format_of, is_image_file, parent_image, parse_volume
from pvedrbdstor.volumes.store import Store

log = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SECTOR = 512
_UNREADABLE = (errno.EIO, errno.ESTALE, errno.EACCES)  # one bad image does not hide the others


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image. size: bytes a guest sees; used: bytes allocated (shared ones too); ctime: seconds since 1970.

    format is 'invalid' where the file is not what its name says, as PVE::Storage::Plugin::list_images has it.
    """

    file: ImageFile
    format: str
    size: int
    used: int
    ctime: int
    parent: str | None = None

    @property
    def volume(self) -> VolumeName:
        return VolumeName(self.file.vmid, self.file.name, parent_image(self.parent))


def list_images(
    store: Store, call: Call, vmid: int | None = None, volids: Sequence[str] | None = None
) -> list[dict[str, object]]:
    """All images, those of one guest, or exactly the named ones (which then decides alone, as in PVE)."""
    if volids is not None:
        wanted = set(volids)
        return [entry for entry in _listed(store, call, _guests_of(store, volids)) if entry["volid"] in wanted]
    return list(_listed(store, call, store.guest_numbers() if vmid is None else [vmid]))


def _guests_of(store: Store, volids: Iterable[str]) -> list[int]:
    guests = set()
    for volid in volids:
        storage, _, name = volid.partition(":")
        if storage != store.config.id:
            continue
        try:
            guests.add(parse_volume(name).vmid)
        except BadName:
            continue
    return list(guests)


def _listed(store: Store, call: Call, guests: Iterable[int]) -> Iterator[dict[str, object]]:
    prefix = store.config.id + ":"
    for info in images_of(store, call, guests):
        yield {
            "volid": f"{prefix}{info.volume}" if info.parent else f"{prefix}{info.file.vmid}/{info.file.name}",
            "format": info.format,
            "size": info.size,
            "vmid": info.file.vmid,
            "used": info.used,
            "parent": info.parent,
            "ctime": info.ctime,
        }


def images_of(store: Store, call: Call, guests: Iterable[int]) -> Iterator[ImageInfo]:
    """Every image of these guests, by guest and name. What vanishes meanwhile is left out."""
    try:
        images = store.images()
    except FileNotFoundError:
        return
    for vmid in sorted(guests):
        call.check()
        try:
            yield from _images_in(store, images, vmid)
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            log.warning(
                "Storage '%s': the folder of guest %s cannot be read (%s)", store.config.id, vmid, error.strerror
            )


def _images_in(store: Store, images: int, vmid: int) -> Iterator[ImageInfo]:
    for guest_fd, name in files_of(store, images, vmid):
        if is_image_file(name):
            try:
                info = image_info(guest_fd, ImageFile(vmid, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                log.warning("Storage '%s': %s/%s cannot be read (%s)", store.config.id, vmid, name, error.strerror)
                continue
            if info is not None:
                yield info


def files_of(store: Store, images: int, vmid: int) -> Iterator[tuple[int, str]]:
    """A guest's folder and each name in it, in order; none where there is no folder, or something else of its name."""
    try:
        guest_fd = store.open_folder(images, str(vmid))
    except (FileNotFoundError, WrongMount):
        return
    try:
        for name in sorted(os.listdir(guest_fd)):
            yield guest_fd, name
    except FileNotFoundError:  # removed after it was opened
        return
    finally:
        os.close(guest_fd)


def image_info(guest_fd: int, file: ImageFile) -> ImageInfo | None:
    """Describe one image by its inode and header; None for what is no image (a link, a device). Raises FileNotFoundError."""
    status = os.stat(file.name, dir_fd=guest_fd, follow_symlinks=False)
    used, ctime = status.st_blocks * _SECTOR, int(status.st_ctime)
    fmt = format_of(file.name)
    if stat.S_ISDIR(status.st_mode):
        return ImageInfo(file, "subvol", 0, 0, ctime) if fmt == "subvol" else None
    if not stat.S_ISREG(status.st_mode) or fmt == "subvol":
        return None
    raw_size = -(-status.st_size // _SECTOR) * _SECTOR
    if fmt == "raw":
        return ImageInfo(file, "raw", raw_size, used, ctime)
    try:
        size, parent = _header(guest_fd, file, fmt)
    except (BadImage, SystemCallFailed):
        return ImageInfo(file, "invalid", raw_size, used, ctime)
    return ImageInfo(file, fmt, size, used, ctime, parent)


def _header(guest_fd: int, file: ImageFile, fmt: str) -> tuple[int, str | None]:
    """Size in bytes and backing file from the header of a qcow2 or vmdk image. Raises BadImage."""
    fd = os.open(file.name, _OPEN, dir_fd=guest_fd)
    try:
        if fmt == "vmdk":
            return vmdk.read_size(fd, str(file)), None
        header = qcow2.read_header(fd, str(file))
        return header.size, header.backing_file
    finally:
        os.close(fd)


def size_info(store: Store, call: Call, volume: VolumeName) -> dict[str, object]:
    """Size, format, bytes used, parent and ctime of one volume. Raises VolumeMissing."""
    info = info_of(store, volume)
    return {"size": info.size, "format": info.format, "used": info.used, "parent": info.parent, "ctime": info.ctime}


def info_of(store: Store, volume: VolumeName) -> ImageInfo:
    """Describe one volume. Raises VolumeMissing."""
    with store.guest_of(volume) as guest_fd:
        try:
            info = image_info(guest_fd, ImageFile(volume.vmid, volume.name))
        except FileNotFoundError:
            info = None
    if info is None:
        raise store.missing(volume)
    return info


def refuse_invalid(info: ImageInfo) -> None:
    """Raise BadImage where the file is not what its name says."""
    if info.format == "invalid":
        fmt = format_of(info.file.name)
        detail = f"its header is damaged. Look at it with 'qemu-img info -f {fmt}', and restore it from a backup"
        raise BadImage(volume=info.file, format=fmt, detail=detail)


def children_of(store: Store, call: Call, base: VolumeName) -> list[str]:
    """The qcow2 files that are backed by this base image, however they name it; the only kind of dependence there is.

    Files of volume chains (snap-*.qcow2), which are no volumes, count too.
    """
    images = f"{store.config.path}/{store.config.images_dir}"
    target = f"{images}/{base.vmid}/{base.name}"
    return [
        str(file)
        for file, backing in _backed_files(store, call)
        if posixpath.normpath(f"{images}/{file.vmid}/{backing}" if backing[0] != "/" else backing) == target
    ]


def _backed_files(store: Store, call: Call) -> Iterator[tuple[ImageFile, str]]:
    """Every qcow2 file that has a backing file, and the name of that."""
    try:
        images = store.images()
    except FileNotFoundError:
        return
    for vmid in sorted(store.guest_numbers()):
        call.check()
        for guest_fd, name in files_of(store, images, vmid):
            backing = _backing_of(guest_fd, ImageFile(vmid, name)) if name.endswith(".qcow2") else None
            if backing:
                yield ImageFile(vmid, name), backing


def _backing_of(guest_fd: int, file: ImageFile) -> str | None:
    try:
        if stat.S_ISREG(os.stat(file.name, dir_fd=guest_fd, follow_symlinks=False).st_mode):
            return _header(guest_fd, file, "qcow2")[1]
    except (BadImage, FileNotFoundError):
        pass
    except (SystemCallFailed, OSError) as error:
        detail = f"it cannot be read ({error}), so what it is backed by is not known. Look at 'dmesg', and restore or remove it"
        raise BadImage(volume=file, format="qcow2", detail=detail) from error
    return None


def names_in(guest_fd: int) -> list[str]:
    """The names of all images in a guest's folder."""
    return [name for name in os.listdir(guest_fd) if is_image_file(name)]
