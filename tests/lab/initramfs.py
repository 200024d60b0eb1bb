"""A tiny initramfs: busybox, the guest's init, and a chosen set of kernel modules in loading order.

The archive is cpio's "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed:
unpacking it takes a guest longer than reading it.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab.errors import LabError

_FOLDERS = ("bin", "dev", "mod", "newroot", "proc", "ro", "rw", "sys")


class Archive:
    """Collects entries of a newc cpio archive in memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def folder(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def symlink(self, name: str, target: str) -> None:
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self) -> bytes:
        """The archive, closed by its trailer."""
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        raw_name = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw_name), 0)
        self._data += b"070701" + b"".join(b"%08x" % field for field in fields) + raw_name
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += b"\0" * (-len(self._data) % 4)


def build(
    modules_dir: Path, wanted: Iterable[str], init: Path, target: Path, programs: Mapping[str, Path] | None = None
) -> None:
    """Write the initramfs with ``init`` and the modules ``wanted`` (names; built-in ones are left out) to ``target``.

    ``programs`` are more executables: name in the archive -> file.

    ``modules_dir`` is a kernel's /lib/modules/VERSION with its modules.dep. Raises LabError when a module is neither
    there nor built in, or when busybox is missing.
    """
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        raise LabError("busybox is missing: apt-get install busybox-static")
    archive = Archive()
    for folder in _FOLDERS:
        archive.folder(folder)
    archive.file("bin/busybox", Path(busybox).read_bytes(), 0o755)
    archive.symlink("bin/sh", "busybox")
    archive.file("init", init.read_bytes(), 0o755)
    for name, program in (programs or {}).items():
        archive.file(name, program.read_bytes(), 0o755)
    names = []
    for path in loading_order(modules_dir, wanted):
        content = (modules_dir / path).read_bytes()
        name = os.path.basename(path)
        if name.endswith(".xz"):
            name, content = name.removesuffix(".xz"), lzma.decompress(content)
        archive.file(f"mod/{name}", content)
        names.append(name)
    archive.file("mod/order", "".join(f"{name}\n" for name in names).encode())
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    partial.write_bytes(archive.finish())
    partial.rename(target)


def loading_order(modules_dir: Path, wanted: Iterable[str]) -> list[str]:
    """Paths below ``modules_dir`` of the modules ``wanted`` and of what they need, dependencies first."""
    needs = _dependencies(modules_dir)
    by_name = {_module_name(path): path for path in needs}
    builtin = {_module_name(line) for line in (modules_dir / "modules.builtin").read_text().split()}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in reversed(needs[path]):
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        key = name.replace("-", "_")
        if key in by_name:
            add(by_name[key])
        elif key not in builtin:
            raise LabError(f"the kernel of {modules_dir} has no module {name}")
    return order


def _dependencies(modules_dir: Path) -> dict[str, list[str]]:
    """What modules.dep (depmod(8)) says: path of a module -> paths of the modules it needs."""
    needs = {}
    for line in (modules_dir / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path.strip()] = rest.split()
    return needs


def _module_name(path: str) -> str:
    return os.path.basename(path).split(".ko")[0].replace("-", "_")
