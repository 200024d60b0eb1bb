"""`pvedrbdstor verify`: what one node has found equal, told to the other one, which may have found a difference before."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace

import pytest

from pvedrbdstor.errors import CommandFailed
from pvedrbdstor.verify import last
from tests.cli.comparing import CLEAN, DIVERGED, Job
from tests.cli.conftest import CommandLine


def test_what_was_found_equal_takes_the_other_nodes_difference_back(cli: CommandLine, played: Job) -> None:
    """Whoever has found it: the report says that the comparison after a repair may be run on either node."""
    cli("verify", "ha", "--mode", "allocated")
    ((*_, host, dashes, words),) = played.lines
    assert (host, dashes) == ("root@b", "--")
    program, *there = shlex.split(words)
    played.outcome = replace(DIVERGED, began=900.0)
    cli("verify", "ha", "--mode", "full")
    kept = last.read("ha")
    assert kept is not None and last.differing(kept) == kept.last and len(played.lines) == 1, "a difference is not told"

    later = asdict(kept.last) | {"verdict": "clean", "diverged": 0, "began": kept.last.ended + 1}
    assert program == "pvedrbdstor" and json.loads(there[2])["verdict"] == "clean"
    for not_all in (
        later | {"mode": "sample"},
        later | {"verdict": "unsettled"},
        later | {"began": kept.last.ended - 1},
    ):
        assert cli("verify", "--found-equal", json.dumps(not_all), "ha").exit_code == 0
        assert last.read("ha") == kept
    there[2] = json.dumps(later)
    assert cli(*there).exit_code == 0
    after = last.read("ha")
    assert after is not None and last.differing(after) is None and after.last.verdict == "clean"
    assert cli(*there).exit_code == 0 and last.read("ha") == after


def test_where_nothing_differed_the_other_nodes_word_changes_nothing(cli: CommandLine, played: Job) -> None:
    word = json.dumps(asdict(last.check_of(CLEAN, 2000.0)))
    assert cli("verify", "--found-equal", word, "ha").exit_code == 0 and last.read("ha") is None
    cli("verify", "ha")
    kept = last.read("ha")
    assert cli("verify", "--found-equal", word, "ha").exit_code == 0 and last.read("ha") == kept


@pytest.mark.parametrize("word", ["", "[]", "{}", "[" * 100000, '{"verdict": "clean"}'])
def test_what_is_no_check_is_refused(cli: CommandLine, played: Job, word: str) -> None:
    result = cli("verify", "--found-equal", word, "ha")
    assert result.exit_code == 2 and "--found-equal" in result.stderr and last.read("ha") is None


@pytest.mark.parametrize(("mode", "told"), [("sample", 0), ("rejoin", 0), ("allocated", 1), ("full", 1), ("kernel", 1)])
def test_only_what_is_known_of_all_is_told_to_the_other_node(
    cli: CommandLine, played: Job, mode: str, told: int
) -> None:
    played.outcome = replace(CLEAN, mode=mode)
    assert cli("verify", "ha", "--mode", mode).exit_code == 0 and len(played.lines) == told


def test_another_node_that_cannot_be_told_changes_nothing_here(cli: CommandLine, played: Job) -> None:
    played.away = CommandFailed(command="ssh", status="exit status 255", output="ssh: connect: No route to host")
    result = cli("verify", "ha", "--mode", "full")
    assert result.exit_code == 0 and "are equal" in result.stdout
    assert "b was not told (ssh: connect: No route to host)" in result.stderr
