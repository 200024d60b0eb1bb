"""A call in progress: its deadline, its caller, its progress, and what is left for after the answer."""

from __future__ import annotations

import time

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.errors import CallerGone, DeadlineExceeded


def test_time_runs_from_the_beginning_and_never_below_zero() -> None:
    assert 9.9 < Call("status", "ha", timeout=10).seconds_left() <= 10
    assert Call("status", "ha", timeout=10, started=time.monotonic() - 4).seconds_left() == pytest.approx(6, abs=0.1)
    assert Call("status", "ha", timeout=10, started=time.monotonic() - 99).seconds_left() == 0.0


def test_a_call_with_time_and_a_caller_goes_on() -> None:
    Call("status", "ha").check()


def test_a_call_whose_time_is_over_says_which_one_and_how_long() -> None:
    with pytest.raises(DeadlineExceeded, match="'clone_image' on storage 'ha' did not finish within 50 s"):
        Call("clone_image", "ha", started=time.monotonic() - 51).check()


def test_a_caller_that_has_gone_matters_more_than_the_time() -> None:
    with pytest.raises(CallerGone, match="clone_image"):
        Call("clone_image", "ha", timeout=0, gone=lambda: True).check()


def test_progress_is_told_before_the_check() -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(DeadlineExceeded):
        Call("clone_image", "ha", timeout=0, progress=lambda *step: told.append(step)).advance(3, 7)
    assert told == [(3, 7)]


def test_progress_need_not_be_told_to_anybody() -> None:
    Call("clone_image", "ha").advance(1, 2)


def test_what_is_left_is_done_once_in_order_also_what_that_leaves() -> None:
    call, done = Call("free_image", "ha"), list[str]()
    call.after.append(lambda: done.append("first"))
    call.after.append(lambda: call.after.append(lambda: done.append("third")))
    call.after.append(lambda: done.append("second"))
    call.run_after()
    call.run_after()
    assert done == ["first", "second", "third"]


def test_what_fails_is_not_tried_again_and_the_rest_can_go_on() -> None:
    call, done = Call("free_image", "ha"), list[str]()

    def fail() -> None:
        raise OSError("no")

    call.after += [fail, lambda: done.append("rest")]
    with pytest.raises(OSError, match="no"):
        call.run_after()
    call.run_after()
    assert done == ["rest"]


def test_two_calls_share_nothing() -> None:
    first, second = Call("status", "ha"), Call("status", "ha")
    first.after.append(lambda: None)
    assert second.after == []
