"""The service under measurement: the real server and its workers, with a clock on what each call spends on the disk.

For every call its worker writes one line of JSON to a file: the method, all its seconds, and how many of them went into
syncing for durability and into the reflink itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror import mount
from pvedrbdstor.service.methods import Dispatcher, OpenStore
from pvedrbdstor.volumes.store import Store

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class CallCost:
    """Seconds one call took inside its worker, of which ``sync`` in fsync and fdatasync, ``reflink`` in the ioctl."""

    method: str
    seconds: float
    sync: float
    reflink: float


class _Clock:
    """Adds up the seconds spent in the functions it was put on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on(self, function: Callable[P, R]) -> Callable[P, R]:
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class MeasuringDispatcher:
    """The real dispatcher, each call of which leaves its cost in the file ``record``.

    Making one puts the clocks into pvedrbdstor.native of this process, and with it of the workers forked from it.
    """

    def __init__(self, record: Path, open_store: OpenStore | None = None) -> None:
        self._dispatcher = Dispatcher() if open_store is None else Dispatcher(open_store)
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._sync, self._reflink = _Clock(), _Clock()
        native.fsync = self._sync.on(native.fsync)
        native.fdatasync = self._sync.on(native.fdatasync)
        native.reflink_fd = self._reflink.on(native.reflink_fd)
        native.ocfs2_reflink = self._reflink.on(native.ocfs2_reflink)

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        self._sync.seconds = self._reflink.seconds = 0.0
        started = time.perf_counter()
        try:
            return self._dispatcher.dispatch(method, params, call, stream)
        finally:
            cost = [method, time.perf_counter() - started, self._sync.seconds, self._reflink.seconds]
            os.write(self._record, json.dumps(cost).encode() + b"\n")


class Costs:
    """Reads what a MeasuringDispatcher recorded, in order."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._read = 0

    def since_last(self) -> list[CallCost]:
        """The calls recorded since the last time; a caller that has its answer finds its call here."""
        with self._record.open("rb") as file:
            file.seek(self._read)
            lines = file.readlines()
        self._read += sum(map(len, lines))
        return [CallCost(*json.loads(line)) for line in lines]


@contextmanager
def open_unjudged(config: StorageConfig) -> Iterator[Store]:
    """Open a storage as the service does, asking the kernel the same; only the verdict (OCFS2, DRBD) is left out."""
    fd = os.open(config.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.gather(fd, config)
    except BaseException:
        os.close(fd)
        raise
    with Store(config, fd) as store:
        yield store
