"""Which other files a qcow2 image reads from, and which of them it may. Pure."""

from __future__ import annotations

import posixpath

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes.names import VolumeName, parent_image
from pvedrbdstor.volumes.qcow2 import Header


def refuse_foreign_references(header: Header, volume: VolumeName, storage_path: str) -> None:
    """Raise BadImage where the image has a data file, or is backed by anything but a file below ``storage_path``."""
    if header.external_data:
        raise _bad(
            volume,
            f"it keeps its data in another file ({_shown(header.data_file)}). Convert it: 'qemu-img convert -O qcow2'",
        )
    backing = header.backing_file
    if backing is None or parent_image(backing) is not None:
        return
    if ":" in backing.partition("/")[0]:
        raise _bad(
            volume, f"it is backed by {_shown(backing)}, which is not a file. Convert it: 'qemu-img convert -O qcow2'"
        )
    if backing.startswith("/") and posixpath.normpath(backing).startswith(storage_path + "/"):
        return
    if not backing.startswith("/") and "/" not in backing:
        return
    raise _bad(
        volume,
        f"it is backed by {_shown(backing)}, which lies outside the storage. Convert it: 'qemu-img convert -O qcow2'",
    )


def refuse_references(header: Header, volume: VolumeName) -> None:
    """Raise BadImage where the image depends on any other file; for images that come from elsewhere."""
    if header.external_data or header.data_file is not None:
        raise _bad(volume, "it keeps its data in another file, which did not come along. Convert it before sending it")
    if header.backing_file is not None:
        raise _bad(
            volume, "it is backed by another image, which did not come along. Make a full copy before sending it"
        )


def _bad(volume: VolumeName, detail: str) -> BadImage:
    return BadImage(volume=volume, format="qcow2", detail=detail)


def _shown(name: str | None) -> str:
    text = (name or "unnamed")[:80]
    return "'" + "".join(c if c.isprintable() else "?" for c in text) + "'"
