"""What an outage's outcome says, without any cluster: from logs and disks to what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import records, scenarios
from tests.lab.actions import kill
from tests.lab.outage import Outcome, Scenario
from tests.lab.records import Writer

SCENARIO = Scenario("name", "kind", "shows", ((0, kill("b")),), "a|ab")
WELL = {"a": [], "b": []}


def outcome(**measured: object) -> Outcome:
    """One that is all right but for what is given."""
    return Outcome(SCENARIO, **{"survivors": "a", "missing": WELL, "back": 20.0, **measured})  # type: ignore[arg-type]


def test_stall_is_the_longest_time_without_an_acknowledgement_to_the_very_end() -> None:
    writer = Writer("a", "direct", {1: 9.0, 2: 11.0, 3: 14.0, 4: 14.5})
    assert writer.stall(10, 15) == 3.0
    assert writer.stall(10, 30) == 15.5
    assert Writer("a", "direct", {}).stall(10, 30) == 20


def test_acknowledgements_are_read_from_the_writers_logs_torn_lines_and_all(tmp_path: Path) -> None:
    class Node:
        name = "a"
        share = tmp_path

    (tmp_path / "cached.log").write_text("1.0 try 1\n1.1 ack 1\n1.2 try 2\n1.3 fail 2 5\n1.4 try 3\n1.5 ack 3\n1.6 ac")
    cached, direct = records.heard([Node()])  # type: ignore[list-item]
    assert cached.acknowledged == {1: 1.1, 3: 1.5}
    assert direct.acknowledged == {}


def test_first_difference_leaves_drbds_metadata_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for disk in (one, other):
        with disk.open("wb") as file:
            file.truncate(24 << 20)
    with other.open("r+b") as file:
        file.seek((24 << 20) - 512)
        file.write(b"metadata")
    assert records.first_difference(one, other) is None
    with other.open("r+b") as file:
        file.seek(9 << 20)
        file.write(b"\0data")
    assert records.first_difference(one, other) == (9 << 20) + 1


@pytest.mark.parametrize(
    ("measured", "problem"),
    [
        ({"survivors": "b"}, "survivors: b, not a|ab"),
        ({"missing": {"a": [], "b": ["cached 7 of node a at 3.0 s"]}}, "node b lacks 1 acknowledged writes"),
        ({"back": None}, "not in sync again without an administrator"),
        ({"difference": 4096}, "copies differ at byte 4096; not unmounted: []"),
        ({"unclean": ["a"]}, "copies differ at byte None; not unmounted: ['a']"),
        ({"complaints": {"a": "bad"}}, "fsck.ocfs2 on node a: bad"),
    ],
)
def test_everything_that_is_wrong_is_said(measured: dict[str, object], problem: str) -> None:
    assert outcome().problems() == []
    assert outcome(**measured).problems() == [problem]


def test_split_brain_is_when_either_copy_lacks_something() -> None:
    assert not outcome().two_sides_wrote
    assert not outcome(missing={"a": [], "b": ["x"]}).two_sides_wrote
    assert outcome(missing={"a": ["y"], "b": ["x"]}).two_sides_wrote


def test_scenarios_have_names_of_their_own_and_controls_use_the_wrong_rule() -> None:
    names = [scenario.name for scenario in scenarios.ALL]
    assert len(set(names)) == len(names) >= 25
    wrong = {scenario.name for scenario in scenarios.ALL if scenario.protection is scenarios.ObviousRule}
    assert wrong == {scenario.name for scenario in scenarios.CONTROLS}


def test_a_reset_of_who_is_to_be_spared_and_a_win_that_is_missing_are_problems() -> None:
    strict = replace(SCENARIO, spared="b", winners="a")
    found = replace(outcome(resets={"a": [], "b": [60.0]}, wins={"a": 0}), scenario=strict)
    assert found.problems() == ["node b was reset", "node a was never told to go on"]
    assert replace(outcome(resets={"a": [60.0], "b": []}, wins={"a": 2}), scenario=strict).problems() == []
