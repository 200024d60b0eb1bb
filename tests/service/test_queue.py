"""Whose turn it is: quotas of long and short calls, and fairness between storages, without any process."""

from __future__ import annotations

import json

import pytest

from pvedrbdstor.service.job import Job
from pvedrbdstor.service.limits import Limits
from pvedrbdstor.service.protocol import Request
from pvedrbdstor.service.queue import Queue

LIMITS = Limits(busy_workers=8, storage_busy=4, storage_long=2, long_workers=3, long_timeout=60)
LONG = 61.0


def job(storage: str, timeout: float = 50.0, came: float = 0.0) -> Job:
    request = Request(id=1, method="echo", params={}, timeout=timeout, storage=storage)
    return Job(request, json.dumps(storage).encode(), lambda response: None, came=came)


def queue(*jobs: Job) -> Queue:
    made = Queue(LIMITS)
    for each in jobs:
        made.add(each)
    return made


def started(waiting: Queue, busy: list[Job], hung: list[Job] | None = None) -> list[Job]:
    """What is started beside ``busy`` until nothing more may be; ``busy`` grows by it."""
    found = []
    while (chosen := waiting.next(busy, hung or [])) is not None:
        waiting.remove(chosen)
        busy.append(chosen)
        found.append(chosen)
    return found


def test_calls_to_one_storage_start_in_the_order_they_came() -> None:
    first, second, third = job("a", came=1), job("a", LONG, came=2), job("a", came=3)
    assert started(queue(first, second, third), []) == [first, second, third]


def test_a_short_call_passes_long_ones_that_wait_for_their_quota() -> None:
    long = [job("a", LONG, came=n) for n in range(4)]
    short = job("a", came=9)
    waiting = queue(*long, short)
    assert started(waiting, []) == [*long[:2], short]
    assert waiting.waiting_with(long[3]) == 2 and waiting.waiting_with(short) == 0


def test_a_call_of_exactly_the_limit_is_a_short_one() -> None:
    assert len(started(queue(*(job("a", 60.0) for _ in range(4))), [])) == 4


def test_a_storage_has_no_more_calls_than_its_total_hung_ones_counted() -> None:
    waiting = queue(*(job("a") for _ in range(6)))
    assert len(started(waiting, [], hung=[job("a")])) == 3


def test_hung_calls_of_another_storage_do_not_count() -> None:
    assert len(started(queue(*(job("a") for _ in range(6))), [], hung=[job("b")] * 9)) == 4


def test_over_all_no_more_calls_are_busy_than_the_total() -> None:
    waiting = queue(*(job(name) for name in "abc" for _ in range(4)))
    assert len(started(waiting, [])) == 8


def test_over_all_long_calls_leave_room_for_short_ones() -> None:
    waiting = queue(*(job(name, LONG) for name in "abcd" for _ in range(2)), *(job(name) for name in "abcd"))
    kinds = [each.request.timeout == LONG for each in started(waiting, [])]
    assert kinds.count(True) == 3 and kinds.count(False) == 4


def test_the_storage_with_the_fewest_calls_in_progress_comes_first() -> None:
    crowd = [job("a", came=n) for n in range(8)]
    late = [job("b", came=100), job("b", came=101)]
    busy: list[Job] = [job("a"), job("a")]
    assert started(queue(*crowd, *late), busy)[:2] == late


def test_one_place_that_becomes_free_goes_to_the_storage_that_has_none() -> None:
    busy = [job("a") for _ in range(4)] + [job("b") for _ in range(3)]
    late = job("c", came=100)
    assert started(queue(job("b", came=1), late), busy) == [late]


@pytest.mark.parametrize("timeout", [50.0, LONG])
def test_what_is_removed_is_never_started(timeout: float) -> None:
    gone, stays = job("a", timeout), job("a", timeout)
    waiting = queue(gone, stays)
    waiting.remove(gone)
    waiting.remove(gone)
    assert started(waiting, []) == [stays] and not waiting


def test_all_that_waits_for_a_storage_can_be_taken_away_at_once() -> None:
    short, long, other = job("a"), job("a", LONG), job("b")
    waiting = queue(short, long, other)
    assert set(map(id, waiting.take_all("a"))) == {id(short), id(long)}
    assert started(waiting, []) == [other]
    assert waiting.take_all("a") == []
