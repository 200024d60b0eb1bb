"""What this node's writes go to: the mount, DRBD's words on it, and the disk below, whose cache decides what a power failure takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.drbd.disk_cache import write_cache
from pvedrbdstor.drbd.lower import lower_disk
from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.mirror.mount import open_store
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify.copy import LocalCopy
from pvedrbdstor.verify.write_path.facts import Ground
from pvedrbdstor.verify.write_path.probe import Node
from pvedrbdstor.volumes.store import Store

_TOOL_SECONDS = 10.0


def node_of(config: StorageConfig, nodes: str) -> Node:
    """This node. nodes: the folder with the guests' configurations."""
    return Node(config.id, config.path, own_name(), lambda: _store(config), lambda: look(config), nodes)


def own_name() -> str:
    return socket.gethostname().partition(".")[0]


def look(config: StorageConfig) -> tuple[Mapping[str, object], Ground]:
    """Raises VerifyRefused where DRBD does not replicate, WritePathUnchecked, OSError, CommandFailed, CommandTimeout."""
    with LocalCopy(config) as copy:
        words = hellos.as_json(copy.hello)
    text = command.run(commands.show(config.resource), timeout=_TOOL_SECONDS).stdout
    lower = lower_disk(text, config.resource, config.volume)
    if lower is None:
        raise WritePathUnchecked(
            storage=config.id,
            cause=f"DRBD on {own_name()} does not tell the disk below {config.resource}",
            remedy=f"Look at 'drbdsetup show {config.resource}' there",
        )
    return words, Ground(lower.path, lower.protocols, lower.flushes, write_cache(lower.path))


def _store(config: StorageConfig) -> Store:
    """The verified mount, writable; the caller closes it. Raises NotMounted, WrongMount, ReadOnlyStorage."""
    with open_store(config, write=True) as store:
        return Store(config, os.dup(store.root_fd))
