"""A comparison of what was written before a rejoin: that and nothing else, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.verify import job, rejoined
from pvedrbdstor.verify.job import Asked
from pvedrbdstor.verify.plan import Mode
from pvedrbdstor.verify.rejoined import Listed
from tests.verify.test_job import SIZE, differ, folder, run
from tests.verify.world import tell

__all__ = ["folder"]

LISTED = Listed(((8192, 4096), (SIZE - 4096, 4096)), 900.0, 1000.0, (), 1000.0, 1001.0)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Listed, str, str, bool]]:
    """What was told of lists: who compared them, what came of it, and whether that is all."""
    told: list[tuple[Listed, str, str, bool]] = []

    def compared(config: StorageConfig, there: str, listed: Listed, leader: str, verdict: str, *, whole: bool) -> None:
        told.append((listed, leader, verdict, whole))

    monkeypatch.setattr(rejoined, "compared", compared)
    monkeypatch.setattr(rejoined, "lists", lambda config, here, there: LISTED)
    return told


ASKED = Asked(Mode.REJOIN, granularity=4096)


def test_only_what_was_written_is_read(folder: Path, marked: list[tuple[Listed, str, str, bool]]) -> None:
    differ(folder, 2)
    differ(folder, 3)
    outcome, _ = run(ASKED)
    assert outcome.diverged == ((8192, 4096),) and outcome.compared == outcome.to_compare == 8192
    assert (outcome.parted, outcome.met) == (900.0, 1000.0) and marked == [(LISTED, outcome.here, "diverged", True)]
    assert run(replace(ASKED, granularity=65536))[0].diverged == ((8192, 8192),), (
        "whole blocks, where larger ones are asked for"
    )


def test_where_nothing_was_written_nothing_is_read(
    folder: Path, marked: list[tuple[Listed, str, str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejoined, "lists", lambda *_: replace(LISTED, ranges=()))
    differ(folder, 2)
    outcome, _ = run(ASKED)
    assert outcome.verdict == "clean" and outcome.compared == 0 and len(marked) == 1


def test_a_list_that_is_not_whole_is_never_clean(
    folder: Path, marked: list[tuple[Listed, str, str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejoined, "lists", lambda *_: replace(LISTED, short=("What b had written is not known.",)))
    outcome, _ = run(ASKED)
    assert outcome.verdict == "unsettled" and outcome.exit_status == 2
    assert outcome.remarks == ("What b had written is not known.",)
    assert outcome.compared == 8192, "what is known is compared"


def test_what_was_stopped_has_not_been_compared(folder: Path, marked: list[tuple[Listed, str, str, bool]]) -> None:
    tell(folder, "b", state={"connection": "StandAlone"})
    outcome, _ = run(ASKED)
    assert outcome.stopped is not None and not marked


def test_what_was_found_before_it_was_stopped_is_told(
    folder: Path, marked: list[tuple[Listed, str, str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job._Job.run
    monkeypatch.setattr(job._Job, "run", lambda self, pace: (replace(whole(self, pace)[0], stopped="it ended"), False))
    differ(folder, 2)
    outcome, _ = run(ASKED)
    assert marked == [(LISTED, outcome.here, "diverged", False)]
