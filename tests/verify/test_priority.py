"""The other node reads with the priority of the one that leads: taken whole, never a higher one, and by no word that is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import VerifyStopped
from pvedrbdstor.native import IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE, IOPRIO_CLASS_RT
from pvedrbdstor.verify import priority
from pvedrbdstor.verify.link import Link
from pvedrbdstor.verify.priority import Priority
from tests.verify.world import REPOSITORY, far, hello

TIMER = Priority(19, os.SCHED_BATCH, IOPRIO_CLASS_IDLE, 0)
_priorities = st.builds(
    Priority,
    st.integers(0, 19),
    st.sampled_from([os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE]),
    st.integers(0, 3),
    st.integers(0, 7),
)


@pytest.fixture
def b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "b.img").write_bytes(bytes(1 << 20))
    return tmp_path


def asked(folder: Path, wanted: Priority) -> tuple[int, int, str]:
    """Nice value, policy and `ionice -p` of the other process once it has that word."""
    with Link(far(folder), "ha", "b") as link:
        link.greet(hello("a", 1 << 20))
        link.prioritise(wanted)
        link.ask_state()
        while not link.poll(1.0):
            pass
        pid = int((folder / "b.pid").read_text())
        told = subprocess.run(["ionice", "-p", str(pid)], check=True, capture_output=True, text=True).stdout.strip()
        return os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid), told


def test_the_other_process_reads_with_the_timers_priority(b: Path) -> None:
    assert asked(b, TIMER) == (19, os.SCHED_BATCH, "idle")


def test_it_gets_no_higher_priority_than_it_had(b: Path) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    nice, policy, told = asked(b, Priority(0, os.SCHED_FIFO, IOPRIO_CLASS_RT, 0))
    assert (nice, policy) == (before, os.SCHED_OTHER) and "realtime" not in told


@pytest.mark.parametrize("wrong", [Priority(20), Priority(io_class=4), Priority(io_level=8), Priority(nice=-1)])
def test_what_is_no_priority_ends_it(b: Path, wrong: Priority) -> None:
    with pytest.raises(VerifyStopped, match="b says"):
        asked(b, wrong)


@given(_priorities, _priorities)
def test_of_two_the_lower_one_is_taken_in_each_respect(mine: Priority, wanted: Priority) -> None:
    found = priority.lowered(mine, wanted)
    assert found.nice == max(mine.nice, wanted.nice)
    assert found.policy in (mine.policy, wanted.policy)
    assert found.policy != os.SCHED_OTHER or {mine.policy, wanted.policy} == {os.SCHED_OTHER}
    assert (found.io_class, found.io_level) in ((mine.io_class, mine.io_level), (wanted.io_class, wanted.io_level))
    assert found.io_class != IOPRIO_CLASS_RT or mine.io_class == wanted.io_class == IOPRIO_CLASS_RT
    assert (found.io_class == IOPRIO_CLASS_IDLE) == (IOPRIO_CLASS_IDLE in (mine.io_class, wanted.io_class))


@given(_priorities)
def test_it_arrives_as_it_was_sent(sent: Priority) -> None:
    assert priority.from_json(priority.as_json(sent)) == sent


def test_a_best_effort_level_below_the_one_by_nice_is_taken() -> None:
    """Without a class a process with nice 0 has level 4."""
    assert priority.lowered(Priority(), Priority(0, 0, IOPRIO_CLASS_BE, 7)).io_level == 7
    assert priority.lowered(Priority(), Priority(0, 0, IOPRIO_CLASS_BE, 2)) == Priority()
