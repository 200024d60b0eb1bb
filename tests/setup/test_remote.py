"""The other node: asked by a program whose words are not trusted to be there, or to be understood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pvedrbdstor import nodes
from pvedrbdstor.errors import CommandFailed, SetupRefused
from pvedrbdstor.setup import facts, remote, values
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.remote import Both
from tests.setup import world


def answering(monkeypatch: pytest.MonkeyPatch, *program: str) -> list[Sequence[str]]:
    """In place of ssh a program; what would have been run there is returned as it comes."""
    asked: list[Sequence[str]] = []

    def line(node: str, words: Sequence[str], *, alive: int | None = None) -> list[str]:
        asked.append([node, *words])
        return list(program)

    monkeypatch.setattr(nodes, "line", line)
    return asked


BOTH = Both("pve1", "ha")
STEP = next(step for step in world.planned().steps if step.node == "pve2")


def test_its_facts_are_what_its_own_program_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "echo", json.dumps(facts.as_json(world.facts(2))))
    assert BOTH.look("pve2") == world.facts(2)
    assert asked == [["pve2", "setup", "facts", "--json"]]


@pytest.mark.parametrize("program", [("false",), ("echo", "{}"), ("echo", "pvedrbdstor: command not found")])
def test_one_that_does_not_answer_rightly_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]
) -> None:
    answering(monkeypatch, *program)
    with pytest.raises(SetupRefused, match="pve2 could not be asked") as caught:
        BOTH.look("pve2")
    said = caught.value.message
    assert (
        "Install the same pvedrbdstor there" in said
        and nodes.asking(nodes.way("pve2"), "pvedrbdstor --version") in said
    )
    assert "run 'pvecm updatecerts' on pve2" in said


def test_a_step_s_outcome_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "echo", json.dumps(values.encode(Outcome(already=True, said="healthy"))))
    assert BOTH.carry_out(STEP, False) == Outcome(already=True, said="healthy")
    assert asked[0][:3] == ["pve2", "setup", "step"]


@pytest.mark.parametrize("program", [("false",), ("echo", "no"), ("echo", '{"already": 1}')])
def test_a_step_of_which_nothing_is_known_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]
) -> None:
    answering(monkeypatch, *program)
    with pytest.raises(CommandFailed):
        BOTH.carry_out(STEP, False)


def test_what_is_on_a_device_there_is_what_its_own_program_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "echo", '{"":1}')
    assert BOTH.record("pve2", "/dev/sdb") == '{"":1}'
    assert asked == [["pve2", "setup", "signatures", "/dev/sdb"]]
    answering(monkeypatch, "false")
    with pytest.raises(SetupRefused, match="pve2 could not be asked"):
        BOTH.record("pve2", "/dev/sdb")


def test_facts_of_more_than_a_mebibyte_are_read_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = world.with_files(world.facts(2), lvm="# long\n" * 300_000)
    path = tmp_path / "facts"
    path.write_text(json.dumps(facts.as_json(found)))
    answering(monkeypatch, "cat", str(path))
    assert path.stat().st_size > 2 << 20 and BOTH.look("pve2") == found


def test_facts_that_are_cut_off_are_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FACTS_MAX", 1 << 16)
    answering(monkeypatch, "head", "-c", "100000", "/dev/zero")
    with pytest.raises(SetupRefused, match="more to tell than") as caught:
        BOTH.look("pve2")
    assert "version" not in caught.value.message
