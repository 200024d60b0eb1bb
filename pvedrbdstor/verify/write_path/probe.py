"""One node's part: it makes the probe, writes it, and reads the other node's, through the mount and below DRBD.

The probes lie in work/ as files being built, locked, so that whoever finds one dead removes it (volumes.recovery).
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from pvedrbdstor import command, native
from pvedrbdstor.errors import CommandFailed, CommandTimeout, WritePathUnchecked
from pvedrbdstor.pve.drives import Drive, find_drives
from pvedrbdstor.verify.write_path import engines, pattern
from pvedrbdstor.verify.write_path.engines import Mode, Result
from pvedrbdstor.verify.write_path.facts import Ground
from pvedrbdstor.verify.write_path.pattern import BLOCK
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.work import NEW, Building, building, parse_entry

OWNER = 1
"""The guest that a probe is filed under; none has that number (PVE: 100 and more)."""
QEMU_SECONDS = 40.0
_CHUNK = 64 * BLOCK
_DRIVES = 16  # in one answer, which has room for 64 KiB
_OPEN = os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Node:
    """What a probe stands on. open_store: the verified mount, writable. look: DRBD's words and the disk below it; raises Error where writes
    would prove nothing. nodes: the folder with the guests' configurations."""

    storage: str
    path: str
    name: str
    open_store: Callable[[], Store]
    look: Callable[[], tuple[Mapping[str, object], Ground]]
    nodes: str


class Probe:
    """A context manager that leaves no file behind. Every method but close() answers one question with a JSON object."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stack = ExitStack()
        self._files: list[Building] = []
        self._token = ""
        self._blocks = 0
        self._fd = self._lower_fd = -1
        self._for_qemu: Building | None = None
        self._store: Store | None = None
        self._guests: list[Drive] | None = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, object]:
        """Raises Error, OSError; ValueError, KeyError or TypeError for what is no question."""
        match asked.get("do"):
            case "hello":
                return self._hello()
            case "look":
                self._node.look()
                return {}
            case "prepare":
                return self._prepare(int(asked["blocks"]))
            case "write":
                return self._write(int(asked["index"]))
            case "lower":
                return {"digest": self._read_lower(int(asked["offset"]))}
            case "read":
                return {"digests": self._read(str(asked["name"]), int(asked["blocks"]))}
            case "engine":
                return self._engine(Mode(str(asked["aio"]), str(asked["cache"])))
            case "drives":
                return {"drives": self._drives(int(asked["start"]))}
            case "remove":
                self.close()
                return {}
        raise ValueError(f"'{asked.get('do')}' is nothing that can be asked")

    def close(self) -> None:
        """Remove the files and close everything."""
        for file in self._files:
            file.discard()
        self._files.clear()
        self._stack.close()

    def _hello(self) -> dict[str, object]:
        words, ground = self._node.look()
        self._store = self._stack.enter_context(self._node.open_store())
        self._lower_fd = os.open(ground.lower, os.O_RDONLY | _OPEN)
        self._stack.callback(os.close, self._lower_fd)
        return {"hello": dict(words), "ground": asdict(ground)}

    def _prepare(self, blocks: int) -> dict[str, object]:
        """A probe of so many blocks that have their places on the disk, written with what will be written over."""
        if not 0 < blocks <= pattern.BLOCKS_MAX:
            raise ValueError(f"{blocks} blocks")
        file = self._new()
        self._token, self._blocks = secrets.token_hex(16), blocks
        for index in range(blocks):
            os.pwrite(file.fd, pattern.block(self._token, index, pattern.BEFORE), index * BLOCK)
        native.fsync(file.fd, file.entry)
        self._fd = os.open(file.entry, os.O_RDWR | os.O_DSYNC | _OPEN, dir_fd=self._opened().work())
        self._stack.callback(os.close, self._fd)
        return {"name": file.entry, "token": self._token, "places": self._places(file)}

    def _places(self, file: Building) -> list[int]:
        """Where each block lies on the device, in bytes. Raises WritePathUnchecked."""
        places: dict[int, int] = {}
        for extent in native.fiemap(file.fd, 0, self._blocks * BLOCK, sync=True, path=file.entry):
            if extent.logical >= self._blocks * BLOCK:  # allocated ahead of need
                break
            if not extent.located or extent.unwritten or extent.shared or extent.physical % BLOCK:
                raise self._unchecked("the probe has no places of its own on the disk", "Look at 'dmesg'")
            for at in range(0, extent.length, BLOCK):
                places[extent.logical + at] = extent.physical + at
        missing = [index for index in range(self._blocks) if index * BLOCK not in places]
        if missing:
            raise self._unchecked(f"{len(missing)} blocks of the probe have no place on the disk", "Look at 'dmesg'")
        return [places[index * BLOCK] for index in range(self._blocks)]

    def _write(self, index: int) -> dict[str, object]:
        """Write a block over, past the page cache and through to the disk: acknowledged when this returns."""
        if not 0 <= index < self._blocks:
            raise ValueError(f"block {index}")
        with native.AlignedBuffer(BLOCK) as buffer:
            buffer.view[:] = pattern.block(self._token, index, pattern.AFTER)
            began = time.perf_counter()
            buffer.pwrite(self._fd, index * BLOCK, path="the probe")
            return {"seconds": time.perf_counter() - began}

    def _read_lower(self, offset: int) -> str:
        """A block of the disk below DRBD, which nothing above it has cached."""
        with native.AlignedBuffer(BLOCK) as buffer:
            if buffer.pread(self._lower_fd, offset, path="the disk below DRBD") != BLOCK:
                raise OSError(errno.EIO, "it ends before the block", "the disk below DRBD")
            return pattern.digest(buffer.view)

    def _read(self, name: str, blocks: int) -> list[str]:
        """The blocks of any node's probe, through the mount of this one, past the page cache."""
        if (parse_entry(name) or ("", 0)) != (NEW, OWNER):
            raise ValueError(f"'{name}' is no probe")
        fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._opened().work())
        found: list[str] = []
        try:
            with native.AlignedBuffer(_CHUNK) as buffer:
                while len(found) < blocks and (count := buffer.pread(fd, len(found) * BLOCK, path="the probe")):
                    found += pattern.digests(buffer.view[:count])
        finally:
            os.close(fd)
        return found[:blocks]

    def _engine(self, mode: Mode) -> dict[str, object]:
        """Let QEMU write to a file of its own in this mode: the file's name, and what it says of it."""
        if mode not in engines.MODES:
            raise ValueError(f"{mode} is no mode")
        file = self._for_qemu = self._for_qemu or self._new()
        os.ftruncate(file.fd, 0)
        os.ftruncate(file.fd, engines.SIZE)
        os.pwrite(file.fd, bytes(engines.SIZE // 2), 0)
        native.fsync(file.fd, file.entry)
        result, detail = _qemu_io(engines.command(mode, file.entry), self._opened().work())
        return {"name": file.entry, "result": result.value, "detail": detail}

    def _drives(self, start: int) -> list[dict[str, object]]:
        """Some of the guests' disks, from the one of that number."""
        if self._guests is None:
            self._guests = find_drives(self._node.storage, self._node.path, self._node.nodes)
        return [asdict(drive) for drive in self._guests[start : start + _DRIVES]]

    def _new(self) -> Building:
        file = self._stack.enter_context(building(self._opened(), OWNER))
        self._files.append(file)
        return file

    def _opened(self) -> Store:
        if self._store is None:
            raise ValueError("nothing was asked to be opened")
        return self._store

    def _unchecked(self, cause: str, remedy: str) -> WritePathUnchecked:
        return WritePathUnchecked(
            storage=self._node.storage, cause=f"{cause} of {self._node.name}", remedy=f"{remedy} there"
        )


def _qemu_io(argv: Iterable[str], work_fd: int) -> tuple[Result, str]:
    try:
        done = command.run(list(argv), timeout=QEMU_SECONDS, cwd=f"/proc/self/fd/{work_fd}", check=False)
    except CommandTimeout:
        return Result.SILENT, f"qemu-io was not done after {QEMU_SECONDS:.0f} s"
    except CommandFailed as error:
        return Result.UNTRIED, f"qemu-io (package pve-qemu-kvm): {error.fields['output']}"
    return engines.judge(done.status, f"{done.stderr}\n{done.stdout}")
