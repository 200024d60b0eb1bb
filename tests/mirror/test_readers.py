"""Who reads DRBD's device to compare it: found by the kernel's word, asked once, waited for no longer than wanted; and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pvedrbdstor.mirror import readers

Start = Callable[..., "subprocess.Popen[str]"]

READER = """
import signal, sys, time
from pvedrbdstor.mirror import readers
readers.FOLDER = sys.argv[1]
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
with readers.reading(sys.argv[2]):
    print("reads", flush=True)
    while not ended or sys.argv[3] == "stubborn":
        time.sleep(0.02)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "readers"
    monkeypatch.setattr(readers, "FOLDER", str(found))
    return found


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with ExitStack() as running:

        def begin(storage: str = "ha", how: str = "willing") -> subprocess.Popen[str]:
            argv = [sys.executable, "-c", READER, str(folder), storage, how]
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            running.enter_context(child)
            running.callback(child.kill)
            assert child.stdout is not None and child.stdout.readline() == "reads\n"
            return child

        yield begin


def test_each_is_asked_once_to_end_and_waited_for(start: Start, folder: Path) -> None:
    told: list[str] = []
    children = [start(), start()]
    assert sorted(readers.processes("ha")) == sorted(child.pid for child in children)
    assert readers.let_go("ha", told.append) == ()
    assert [child.wait(10) for child in children] == [0, 0]
    assert len(told) == 2 and all(any(f"process {child.pid})" in line for line in told) for child in children)
    assert list(folder.iterdir()) == []


def test_those_of_other_storages_are_left_alone(start: Start) -> None:
    others = [start("ha2"), start("ha.1"), start("a")]
    told: list[str] = []
    assert readers.let_go("ha", told.append) == () and told == []
    assert [child.poll() for child in others] == [None] * 3


def test_one_that_does_not_end_is_named_after_the_time(start: Start) -> None:
    child = start(how="stubborn")
    told: list[str] = []
    assert readers.let_go("ha", told.append, seconds=0.3) == (child.pid,)
    assert len(told) == 1


def test_a_process_that_has_only_the_number_is_not_asked(folder: Path) -> None:
    """What a killed reader has left, whose number another process got."""
    with subprocess.Popen(["sleep", "60"]) as other:
        folder.mkdir()
        left = folder / f"ha.{other.pid}"
        left.write_text("")
        assert readers.let_go("ha", lambda _: None, seconds=0) == ()
        assert other.poll() is None and not left.exists()
        other.kill()


def test_one_that_was_killed_reads_no_more(start: Start, folder: Path) -> None:
    child = start()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(folder.iterdir()) != [] and readers.processes("ha") == ()
    assert list(folder.iterdir()) == []


def test_a_lock_counts_for_its_owner_and_not_for_who_is_named(start: Start, folder: Path) -> None:
    child = start()
    with subprocess.Popen(["sleep", "60"]) as other:
        os.rename(folder / f"ha.{child.pid}", folder / f"ha.{other.pid}")
        assert readers.let_go("ha", lambda _: None, seconds=0.2) == (child.pid,)
        assert other.poll() is None and child.poll() is None
        other.kill()


def test_a_file_that_is_removed_as_it_is_locked_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who looked at it between its making and its lock, and took it for one that was left."""
    locks = []
    lockf = readers.fcntl.lockf

    def late(fd: int, how: int) -> None:
        if not locks:
            os.unlink(folder / f"ha.{os.getpid()}")
        locks.append(fd)
        lockf(fd, how)

    monkeypatch.setattr(readers.fcntl, "lockf", late)
    with readers.reading("ha"):
        assert (folder / f"ha.{os.getpid()}").exists()
    assert len(locks) == 2 and list(folder.iterdir()) == []


def test_nobody_reads_where_nobody_ever_did() -> None:
    began = time.monotonic()
    assert readers.let_go("ha", lambda _: None) == () and time.monotonic() - began < readers.LET_GO_SECONDS
