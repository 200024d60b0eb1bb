"""How much the service takes on, and how long it waits for whom."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """All times in seconds.

    idle_workers: kept ready. max_idle_workers: more than these are ended when they run out of work. busy_workers: calls
    in progress at once, of all storages, hung ones and those only clearing up not counted. storage_workers: the same
    for one storage, hung ones counted. processes: workers of any kind. waiting: calls to one storage that may wait for
    a worker. recycle: calls after which a worker is replaced. connections: at once; more wait in the socket's backlog.
    read, write: for a request to come and for a response to be taken. linger: for a refused client to stop sending.
    grace: at the end, for calls in progress.
    """

    idle_workers: int = 2
    max_idle_workers: int = 4
    busy_workers: int = 32
    storage_workers: int = 8
    processes: int = 128
    waiting: int = 256
    recycle: int = 500
    connections: int = 512
    read: float = 10.0
    write: float = 10.0
    linger: float = 1.0
    grace: float = 55.0
