"""Which calls wait for a worker, and whose turn it is: quotas and fairness, without a process or a clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from pvedrbdstor.service.job import Job
from pvedrbdstor.service.limits import Limits


@dataclass(frozen=True)
class _Lane:
    """Calls that wait for the same thing: those to one storage, long and short ones apart."""

    storage: str
    long: bool


class Queue:
    """Jobs that wait for a worker. Long ones have a quota of their own, so that short ones need not wait for them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes: dict[_Lane, deque[Job]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def waiting_with(self, job: Job) -> int:
        """How many jobs wait for the same as ``job`` does."""
        return len(self._lanes.get(self._lane(job), ()))

    def add(self, job: Job) -> None:
        self._lanes.setdefault(self._lane(job), deque()).append(job)

    def remove(self, job: Job) -> None:
        """Forget ``job`` if it waits here."""
        lane = self._lane(job)
        jobs = self._lanes.get(lane)
        if jobs is not None and job in jobs:
            jobs.remove(job)
            if not jobs:
                del self._lanes[lane]

    def jobs(self) -> list[Job]:
        """All that wait, in no order."""
        return [job for jobs in self._lanes.values() for job in jobs]

    def take_all(self, storage: str) -> list[Job]:
        """Every job that waits for ``storage``, in no order; none waits any more."""
        return [job for long in (False, True) for job in self._lanes.pop(_Lane(storage, long), ())]

    def next(self, busy: Iterable[Job], hung: Iterable[Job]) -> Job | None:
        """The job to start now, if one may start beside those that are ``busy`` or ``hung``. It stays here.

        The storage with the fewest busy calls comes first, so that none starves beside one with many; within a storage
        the first to come, of those there is room for.
        """
        lanes = Counter(self._lane(job) for job in busy)
        storages: Counter[str] = Counter()
        for lane, count in lanes.items():
            storages[lane.storage] += count
        stuck = Counter(job.request.storage for job in hung)
        if lanes.total() >= self._limits.busy_workers:
            return None
        long_room = sum(count for lane, count in lanes.items() if lane.long) < self._limits.long_workers

        def has_room(lane: _Lane) -> bool:
            if lane.long and not (long_room and lanes[lane] < self._limits.storage_long):
                return False
            return storages[lane.storage] + stuck[lane.storage] < self._limits.storage_busy

        candidates = [lane for lane in self._lanes if has_room(lane)]
        if not candidates:
            return None
        chosen = min(candidates, key=lambda lane: (storages[lane.storage], self._lanes[lane][0].came))
        return self._lanes[chosen][0]

    def _lane(self, job: Job) -> _Lane:
        return _Lane(job.request.storage, job.request.timeout > self._limits.long_timeout)
