"""How much the service takes on, and how long it waits for whom."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """All times in seconds.

    idle_workers: kept ready. max_idle_workers: more than these are ended when they run out of work. processes: workers
    of any kind.
    busy_workers: calls in progress at once, of all storages, hung ones and those only clearing up not counted.
    storage_busy: the same for one storage, hung ones counted. storage_hung: with so many hung calls a storage gets no
    more. long_timeout: a call whose caller waits longer than this is a long one. storage_long: long calls in progress at
    once for one storage, less than storage_busy so that short ones always find room; long_workers: for all storages.
    waiting: calls to one storage that may wait for a worker, long and short ones counted apart. recycle: calls after
    which a worker is replaced. connections: at once; more wait in the socket's backlog.
    read, write: for a request to come and for a response to be taken. linger: for a refused client to stop sending.
    grace: at the end, for calls in progress.
    """

    idle_workers: int = 2
    max_idle_workers: int = 4
    processes: int = 192
    busy_workers: int = 64
    storage_busy: int = 24
    storage_hung: int = 8
    long_timeout: float = 60.0
    storage_long: int = 6
    long_workers: int = 32
    waiting: int = 256
    recycle: int = 500
    connections: int = 512
    read: float = 10.0
    write: float = 10.0
    linger: float = 1.0
    grace: float = 55.0
