"""DRBD's state as the guard sees it, from the captures of real clusters, 8.4's /proc and 9's events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.fencing.mirrors import Mirrors, of_proc, of_state
from pvedrbdstor.fencing.rules import Mirror
from tests.drbd.support import FILES, output_of, state_of

V84 = [name for name in FILES if name.startswith("8.4/")]
FROZEN = Mirror("Primary", "WFConnection", "UpToDate", "DUnknown", suspended=True)


@pytest.mark.parametrize("name", V84)
def test_both_sources_of_8_4_agree_on_what_matters(name: str) -> None:
    proc, events = of_proc(output_of(name, "cat /proc/drbd") or ""), of_state(state_of(name))
    assert proc.keys() == events.keys()
    for minor, mirror in proc.items():
        other = events[minor]
        assert replace(other, connection=mirror.connection) == mirror
        assert (other.connected, other.whole, other.frozen) == (mirror.connected, mirror.whole, mirror.frozen)


@pytest.mark.parametrize(
    ("name", "frozen", "whole"),
    [
        ("8.4/04-mounted-both.a.txt", False, True),
        ("8.4/F5b-verify-running.a.txt", False, True),
        ("8.4/F3-resync-in-progress.a.txt", False, False),
        ("8.4/F4-b-diskless-mounted.a.txt", False, False),
        ("8.4/T3a-fencing-suspended.a.txt", True, False),
        ("8.4/T3b-after-fence-a-resumed.a.txt", False, False),
        ("9/04-mounted-both.a.txt", False, True),
        ("9/08-resync-in-progress.a.txt", False, False),
        ("9/12-verify-running.a.txt", False, True),
        ("9/16-fencing-suspended.a.txt", True, False),
        ("9/17-fenced-a-resumed.a.txt", False, False),
        ("9/17-fenced-a-resumed.b.txt", True, False),
        ("9/24-tiebreaker-healthy.a.txt", False, True),  # a third node without a disk
        ("9/25-tiebreaker-b-isolated.b.txt", True, False),
    ],
)
def test_an_outage_begins_with_the_freeze_and_ends_with_two_equal_copies(name: str, frozen: bool, whole: bool) -> None:
    mirror = of_state(state_of(name))["0"]
    assert (mirror.frozen, mirror.whole) == (frozen, whole)


def test_without_the_module_there_is_no_resource(tmp_path: Path) -> None:
    assert Mirrors(str(tmp_path / "none")).look(0) == {}


def test_a_state_that_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    assert Mirrors(str(tmp_path)).look(0) is None


def test_the_state_of_8_4_is_read_without_a_program(tmp_path: Path) -> None:
    (tmp_path / "drbd").write_text(output_of("8.4/T3a-fencing-suspended.a.txt", "cat /proc/drbd") or "")
    assert Mirrors(str(tmp_path / "drbd")).look(0) == {"0": FROZEN}
