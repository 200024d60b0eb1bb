"""The files a qcow2 image reads from, one behind the other: none of them may lead out of the storage."""

from __future__ import annotations

import errno
import os
import posixpath

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes import qcow2
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.references import refuse_foreign_references
from pvedrbdstor.volumes.store import Store

_LONGEST = 200  # images in a chain; QEMU itself has no limit and follows a ring until its stack ends
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def refuse_foreign_chain(store: Store, volume: VolumeName, image_fd: int) -> None:
    """Raise BadImage where the image, or anything it is backed by, reads from outside the storage.

    What it is backed by may be missing: QEMU says so when it opens it. Raises OSError, WrongMount for a link on the way.
    """
    header = qcow2.read_header(image_fd, str(volume))
    root, folder = store.config.path, f"{store.config.images_dir}/{volume.vmid}"
    for _ in range(_LONGEST):
        refuse_foreign_references(header, volume, store.config.path)
        if header.backing_file is None:
            return
        path = posixpath.relpath(posixpath.join(root, folder, header.backing_file), root)
        if path.startswith("../"):
            detail = f"it is backed by '{posixpath.basename(path)}' outside the storage, by way of '{folder or '/'}'"
            raise BadImage(volume=volume, format="qcow2", detail=f"{detail}. Convert it: 'qemu-img convert -O qcow2'")
        following = None if header.backing_format == "raw" else _header_at(store, path, volume)
        if following is None:
            return
        header, folder = following, posixpath.dirname(path)
    raise BadImage(
        volume=volume, format="qcow2", detail=f"more than {_LONGEST} images lie behind it, or they form a ring"
    )


def _header_at(store: Store, path: str, volume: VolumeName) -> qcow2.Header | None:
    """The header of the file at ``path``; None where it is no qcow2 image, or not there."""
    try:
        folder = posixpath.dirname(path)
        fd = os.open(posixpath.basename(path), _OPEN, dir_fd=store.folder(folder) if folder else store.root_fd)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    try:
        return qcow2.read_header(fd, str(volume)) if qcow2.is_qcow2(os.pread(fd, 4, 0)) else None
    finally:
        os.close(fd)
