"""This node's copy of the mirror: DRBD's device opened for reading past the page cache, and what DRBD says of it meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from pvedrbdstor import __version__, command, native
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, config, devices, generation, generation_ids, proc_drbd
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.errors import CommandFailed, CommandTimeout, NotOcfs2, VerifyRefused
from pvedrbdstor.ocfs2.superblock import READ_SIZE, parse_superblock
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.digesters import Digesters
from pvedrbdstor.verify.hello import Hello, patience_of
from pvedrbdstor.verify.state import NodeState
from pvedrbdstor.verify.wire import VERSION, Answer, Request

_TOOL_SECONDS = 10.0
PROC_DRBD = "/proc/drbd"
SYSFS = "/sys/block/drbd{minor}/stat"
INFLIGHT = "/sys/block/drbd{minor}/inflight"


class Copy(Protocol):
    """One node's copy, here or there."""

    hello: Hello

    def state(self) -> NodeState: ...

    def digest(self, asked: Request) -> Answer: ...

    def cancel(self) -> None: ...


class LocalCopy:
    """A context manager. verifying: DRBD's own verify may be running. Raises VerifyRefused where this node's reads would prove nothing,
    OSError, CommandFailed, CommandTimeout."""

    def __init__(self, storage: StorageConfig, *, verifying: bool = False) -> None:
        self.storage, self._verifying = storage, verifying
        self.node = socket.gethostname().partition(".")[0]
        self.minor = self._minor()
        self.check()
        self.path = devices.node(self.minor)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._digesters = Digesters(self.fd, self.path)
        try:
            self.hello = self._hello()
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> LocalCopy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._digesters.close()
        os.close(self.fd)

    def check(self) -> NodeState:
        """DRBD's state, in which this node's reads come from its own disk. Raises VerifyRefused."""
        state = self.state()
        if self._verifying and state.replication in states.VERIFY_STATES:
            return state
        found = states.obstacle(state, self.node, self.storage.id, self.storage.resource)
        if found is not None:
            raise VerifyRefused(storage=self.storage.id, cause=found.cause, remedy=found.remedy)
        return state

    def state(self) -> NodeState:
        """DRBD's words now. Raises CommandFailed, CommandTimeout."""
        proc = _read(PROC_DRBD)
        if generation.from_proc_drbd(proc) is Generation.V8_4:
            device = proc_drbd.parse(proc).devices.get(self.minor)
            state = states.of_proc(device) if device is not None else NodeState()
        else:
            line = commands.events2_now(self.storage.resource, statistics=True)
            text = command.run(line, timeout=_TOOL_SECONDS).stdout
            state = states.of_events(parse_now(text), self.storage.resource, self.storage.volume)
        state = states.with_stat(state, _read(SYSFS.format(minor=self.minor)))
        return replace(state, open_writes=open_writes(_read(INFLIGHT.format(minor=self.minor))))

    def digest(self, asked: Request) -> Answer:
        """Raises OSError; native.Cancelled after cancel()."""
        found = self._digesters.digest(asked)
        return Answer(asked.id, found.values, found.errors)

    def cancel(self) -> None:
        """End what is being read, and all that would be read later; from another thread or a signal's handler."""
        self._digesters.cancel()

    def _minor(self) -> int:
        line = commands.events2_now(self.storage.resource)
        answer = parse_now(command.run(line, timeout=_TOOL_SECONDS).stdout)
        minor = answer.minor_of(self.storage.resource, self.storage.volume)
        if minor is None:
            found = states.obstacle(NodeState(), self.node, self.storage.id, self.storage.resource)
            assert found is not None
            raise VerifyRefused(storage=self.storage.id, cause=found.cause, remedy=found.remedy)
        return minor

    def _hello(self) -> Hello:
        options = _options(self.storage, self.node)
        uuid = self._uuid()
        if self.storage.uuid not in (None, uuid):
            raise VerifyRefused(
                storage=self.storage.id,
                cause=f"{self.path} on {self.node} holds the file system {uuid}, and the storage is {self.storage.uuid}",
                remedy="Compare drbdocfs2-uuid and drbdocfs2-resource in /etc/pve/storage.cfg with what is there",
            )
        return Hello(
            version=VERSION,
            node=self.node,
            package=__version__,
            resource=self.storage.resource,
            volume=self.storage.volume,
            size=native.device_size(self.fd, self.path),
            sector=native.logical_sector_size(self.fd, self.path),
            uuid=uuid,
            generation=_generation(self.storage),
            read_balancing=options.read_balancing.get(self.storage.volume),
            patience=patience_of(options),
            verify_alg=next((net.verify_alg for net in options.nets if net.verify_alg), None),
        )

    def _uuid(self) -> str:
        """Of the file system on the device. Raises VerifyRefused."""
        with native.AlignedBuffer(READ_SIZE) as buffer:
            count = buffer.pread(self.fd, 0, path=self.path)
            try:
                return parse_superblock(bytes(buffer.view[:count]), self.path).uuid
            except NotOcfs2 as error:
                raise VerifyRefused(
                    storage=self.storage.id,
                    cause=error.message.partition(": ")[0] + f" ({error.fields['detail']})",
                    remedy=f"Look at 'blkid -p {self.path}' on {self.node}",
                ) from error


def _options(storage: StorageConfig, node: str) -> config.ResourceConfig:
    """In force. Raises VerifyRefused where DRBD's tools do not tell: `read-balancing` may have it read from the peer."""
    line = commands.show(storage.resource)
    try:
        found: Mapping[str, config.ResourceConfig] = config.parse_show(command.run(line, timeout=_TOOL_SECONDS).stdout)
        why = f"it does not name {storage.resource}"
    except (CommandFailed, CommandTimeout) as error:
        found, why = {}, error.message.rstrip(".")
    if storage.resource not in found:
        raise VerifyRefused(
            storage=storage.id,
            cause=f"'{' '.join(line)}' on {node} does not tell whether DRBD reads from its peer (`read-balancing`): {why}",
            remedy=f"See what it says on {node}",
        )
    return found[storage.resource]


def _generation(storage: StorageConfig) -> str | None:
    """DRBD's current data generation; while both nodes are connected and UpToDate it is the same."""
    try:
        text = command.run(["drbdadm", "get-gi", f"{storage.resource}/{storage.volume}"], timeout=_TOOL_SECONDS).stdout
    except (CommandFailed, CommandTimeout):
        return None
    found = generation_ids.parse(text)
    return f"{found.current:016X}" if found is not None else None


def open_writes(inflight: str) -> int | None:
    """The second number (block/genhd.c, part_inflight_show): `stat` has one for reads and writes together, and we
    read. None where it is not told."""
    words = inflight.split()
    return int(words[1]) if len(words) == 2 and words[1].isdecimal() else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 18)
    except OSError:
        return ""
