"""A process for what may hang: answers, silence, a sudden end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pvedrbdstor.mirror.helper import Helper, reap

PATIENCE = 5.0


def work(question: Any) -> object:
    if question == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if question == "fail":
        raise ValueError("no luck")
    if question == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    return {"pid": os.getpid(), "said": question}


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper(work)
    yield made
    made.close()


def test_one_process_answers_every_question(helper: Helper) -> None:
    helper.ask("one")
    first = helper.wait(PATIENCE)
    helper.ask("two")
    second = helper.wait(PATIENCE)
    assert (first["said"], second["said"]) == ("one", "two")
    assert first["pid"] == second["pid"] != os.getpid()


def test_a_failure_is_an_answer(helper: Helper) -> None:
    helper.ask("fail")
    assert helper.wait(PATIENCE) == {"error": "no luck"}


def test_a_helper_that_hangs_is_not_asked_again_and_answers_when_it_is_let_go(helper: Helper) -> None:
    helper.ask("pid")
    pid = helper.wait(PATIENCE)["pid"]
    helper.ask("stop")
    started = time.monotonic()
    assert helper.wait(0.2) is None
    assert time.monotonic() - started < 2
    assert helper.busy is not None and helper.busy >= 0.2
    assert not helper.ask("more")
    os.kill(pid, signal.SIGCONT)
    assert helper.wait(PATIENCE) == {"pid": pid, "said": "stop"}
    assert helper.busy is None


def test_a_helper_that_died_is_replaced_at_the_next_question(helper: Helper) -> None:
    helper.ask("die")
    assert helper.wait(PATIENCE) is None
    assert helper.busy is None
    assert helper.ask("again")
    assert helper.wait(PATIENCE)["said"] == "again"


def test_a_helper_that_is_let_go_while_it_hangs_ends_when_it_can() -> None:
    one = Helper(work)
    one.ask("pid")
    pid = one.wait(PATIENCE)["pid"]
    one.ask("stop")
    one.wait(0.1)
    one.close()
    assert os.path.exists(f"/proc/{pid}")
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_second_helper_does_not_keep_the_first_from_ending(helper: Helper) -> None:
    first = Helper(work)
    first.ask("pid")
    pid = first.wait(PATIENCE)["pid"]
    helper.ask("other")
    helper.wait(PATIENCE)
    first.close()
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_an_answer_of_megabytes_comes_whole() -> None:
    one = Helper(lambda _: "x" * (3 << 20))
    one.ask()
    assert len(one.wait(PATIENCE)) == 3 << 20
    one.close()
