"""What is measured on: folders full of images, and an image with data in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pvedrbdstor import native

GUESTS, DISKS = 200, 5
FIRST_GUEST = 1000
IMAGE_SIZE = 32 << 30  # bytes a guest sees
_MIB = 1 << 20


def new_storage(parent: Path, name: str) -> Path:
    """An empty storage."""
    path = parent / name
    (path / "images").mkdir(parents=True)
    return path


def fill_raw(storage: Path) -> None:
    """GUESTS x DISKS sparse raw images of IMAGE_SIZE."""
    for image in _image_paths(storage, "raw"):
        fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        os.truncate(fd, IMAGE_SIZE)
        os.close(fd)


def fill_qcow2(storage: Path) -> None:
    """GUESTS x DISKS qcow2 images of IMAGE_SIZE with preallocated metadata: one made by qemu-img, the others its reflinks."""
    model = storage / "model.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", str(model), str(IMAGE_SIZE)],
        check=True,
    )
    source = os.open(model, os.O_RDONLY)
    for image in _image_paths(storage, "qcow2"):
        folder = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.close(native.clone_file(source, folder, image.name, 0o640))
        os.close(folder)
    os.close(source)
    model.unlink()


def _image_paths(storage: Path, fmt: str) -> list[Path]:
    paths = []
    for vmid in range(FIRST_GUEST, FIRST_GUEST + GUESTS):
        folder = storage / "images" / str(vmid)
        folder.mkdir()
        paths += [folder / f"vm-{vmid}-disk-{number}.{fmt}" for number in range(DISKS)]
    return paths


def image_with_data(path: Path, size: int, data_mib: int) -> None:
    """A sparse raw image of ``size`` bytes with ``data_mib`` pieces of 1 MiB spread evenly over it, synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(_MIB)
    with path.open("xb") as file:
        file.truncate(size)
        for number in range(data_mib):
            os.pwrite(file.fileno(), block, number * (size // data_mib) // 4096 * 4096)
        os.fsync(file.fileno())
