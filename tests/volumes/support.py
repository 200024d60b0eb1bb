"""A storage on a plain folder, as the tests of volumes use it: calls, what can be seen of it, and what should not be there."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.volumes import images, listing, recovery, snapshots, transfer
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from pvedrbdstor.volumes.store import INTERNAL, SNAPSHOTS, Store

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Seen:
    """What a user can see of one volume: its size, a checksum of its contents, those of its snapshots, its protection."""

    size: int
    content: str
    snapshots: tuple[tuple[str, int, str], ...]
    immutable: bool


class Area:
    """A storage named `ha` in ``folder``; every call opens it anew, as a process of its own would."""

    def __init__(self, folder: Path, preallocation: str | None = None) -> None:
        self.folder = folder
        self.config = StorageConfig("ha", str(folder), "r0", preallocation=preallocation)

    def preallocating(self, mode: str | None) -> Area:
        """The same storage with another preallocation."""
        area = Area(self.folder)
        area.config = replace(self.config, preallocation=mode)
        return area

    def store(self) -> Store:
        return Store(self.config, os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def do(self, function: Callable[..., Any], *arguments: Any, **call: Any) -> Any:
        """Run ``function(store, call, *arguments)`` and what it leaves for after the answer."""
        circumstances = Call(**{"method": function.__name__, "storage": "ha", **call})
        try:
            with self.store() as store:
                return function(store, circumstances, *arguments)
        finally:
            circumstances.run_after()

    def alloc(self, vmid: int = 100, fmt: str = "raw", size: int = MIB, name: str | None = None) -> VolumeName:
        """A new image of ``size`` bytes."""
        volume = self.do(images.alloc_image, vmid, fmt, name, size)
        assert isinstance(volume, VolumeName)
        return volume

    def put(self, name: str, content: bytes = b"") -> Path:
        """A file as something else leaves it: ``name`` is relative to the storage; its folders are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def path(self, volume: VolumeName | str, snap: str | None = None) -> Path:
        name = parse_volume(str(volume))
        guest = self.folder / "images" / str(name.vmid)
        return guest / SNAPSHOTS / name.name / f"{snap}.raw" if snap else guest / name.name

    def write(self, volume: VolumeName | str, data: bytes, offset: int = 0) -> None:
        with self.path(volume).open("r+b") as image:
            image.seek(offset)
            image.write(data)

    def read(self, volume: VolumeName | str, length: int, offset: int = 0) -> bytes:
        with self.path(volume).open("rb") as image:
            image.seek(offset)
            return image.read(length)

    def send(self, volume: VolumeName, fmt: str = transfer.RAW, snap: str | None = None) -> bytes:
        """The stream that an export writes."""
        with os.fdopen(os.memfd_create("stream"), "w+b") as stream:
            self.do(transfer.export_image, volume, fmt, snap, fmt == transfer.QCOW2, stream.fileno())
            stream.seek(0)
            return stream.read()

    def receive(self, stream: bytes, target: VolumeName, allow_rename: bool = False, **call: Any) -> VolumeName:
        """Import ``stream`` in the format that fits the target's name."""
        fmt = transfer.QCOW2 if target.format == "qcow2" else transfer.RAW
        with os.fdopen(os.memfd_create("stream"), "w+b") as source:
            source.write(stream)
            source.seek(0)
            made = self.do(
                transfer.import_image, target, fmt, fmt == transfer.QCOW2, allow_rename, source.fileno(), **call
            )
        assert isinstance(made, VolumeName)
        return made

    def volids(self) -> list[str]:
        return [str(entry["volid"]) for entry in self.do(listing.list_images)]

    def view(self) -> dict[str, Seen]:
        """Everything a user can see."""
        return {volid.partition(":")[2]: self._see(parse_volume(volid.partition(":")[2])) for volid in self.volids()}

    def _see(self, volume: VolumeName) -> Seen:
        info = self.do(listing.size_info, volume)
        found = self.do(snapshots.snapshot_info, volume) if volume.format in ("raw", "qcow2") else {}
        taken = tuple(
            (name, int(entry["virtual-size"]), _digest(self.path(volume, name)) if volume.format == "raw" else "")
            for name, entry in sorted(found.items())
        )
        path = self.path(volume)
        return Seen(int(info["size"]), _digest(path), taken, is_immutable(path))

    def recover(self) -> dict[str, int]:
        return dict(self.do(recovery.recover))

    def leftovers(self, view: Mapping[str, Seen] | None = None) -> list[str]:
        """Every file and folder that no visible volume or snapshot accounts for; lock files are there to stay.

        view: what a user can see, where that is known already.
        """
        wanted = {"images", INTERNAL, f"{INTERNAL}/lock", f"{INTERNAL}/work"}
        for name, seen in (self.view() if view is None else view).items():
            path = self.path(name).relative_to(self.folder)
            wanted |= {str(path), str(path.parent)}
            if seen.snapshots and path.suffix == ".raw":
                folder = path.parent / SNAPSHOTS / path.name
                wanted |= {str(folder), str(folder.parent)}
                wanted |= {str(folder / f"{snap}.raw") for snap, _, _ in seen.snapshots}
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return sorted(p for p in found - wanted if not p.startswith(f"{INTERNAL}/lock/"))


def qemu_img(*arguments: str | Path) -> str:
    """Run qemu-img as an administrator or a `dir` storage does; its output."""
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def framed(data: bytes, size: int | None = None) -> bytes:
    """A stream as PVE's raw+size and qcow2+size have it: the size (by default that of the data) first."""
    return struct.pack("<Q", len(data) if size is None else size) + data


def qcow2_with_contents(area: Area) -> VolumeName:
    """A qcow2 image of 1 MiB full of `old!` in its snapshot `one` and of `new!` now."""
    path = area.put("images/100/vm-100-disk-0.qcow2")
    content = area.put("content")
    for text, options in ((b"old!", []), (b"new!", ["-n"])):
        content.write_bytes(text * (MIB // 4))
        qemu_img("convert", *options, "-f", "raw", "-O", "qcow2", content, path)
        if text == b"old!":
            qemu_img("snapshot", "-c", "one", path)
    content.unlink()
    return parse_volume("100/vm-100-disk-0.qcow2")


def _digest(path: Path) -> str:
    """A checksum of a sparse file's blocks that are not zero, and where they lie."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for offset, length in native.data_extents(file.fileno(), os.fstat(file.fileno()).st_size):
            for position in range(offset - offset % 4096, offset + length, 4096):
                block = os.pread(file.fileno(), 4096, position)
                if block.strip(b"\0"):
                    digest.update(position.to_bytes(8, "little") + block)
    return digest.hexdigest()[:16]


def is_immutable(path: Path) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        return bool(native.inode_flags(file.fileno()) & native.FS_IMMUTABLE_FL)


def set_immutable(path: Path, value: bool) -> None:
    with path.open("rb") as file:
        native.set_immutable(file.fileno(), value)
