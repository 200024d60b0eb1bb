"""The journal: whole or not there, and read back as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import SplitJournalBroken
from pvedrbdstor.fencing.split.evidence import Evidence
from pvedrbdstor.fencing.split.journal import Journal, put_away, read, write
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.steps import PRESERVING, Preserve, Step
from pvedrbdstor.mirror.bringup import paths

JOURNAL = Journal(
    storage="ha",
    keep="pve1",
    discard="pve2",
    began=1.5,
    current=(1 << 64) - 2,
    bitmap=8,
    keeper=None,
    preserve=Preserve.SNAPSHOT,
    target="vg/r0-split",
    size=77,
    files=("images/100/a.raw",),
    ranges=((0, 4096),),
)


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paths, "RESOLUTIONS", str(tmp_path_factory.mktemp("journals")))
        yield


@given(st.frozensets(st.sampled_from(list(Step))), st.sampled_from([None, *Step]), st.sampled_from(list(Preserve)))
def test_it_is_read_back(done: frozenset[Step], doing: Step | None, how: Preserve) -> None:
    sealed = Seal("b", 7, 4096, 3) if done else None
    known = Evidence(((0, 4096), (8192, 4096)), "digest") if done else None
    journal = replace(
        JOURNAL, evidence=known, done=done, doing=doing, preserve=how, told=True, seal=sealed, given_up=("x",)
    )
    write(journal)
    assert read("ha") == journal


def test_without_one_there_is_none_and_a_broken_one_is_told() -> None:
    assert read("nobody") is None
    for text in ("", "[]", "{}", '{"format": 9}'):
        Path(paths.RESOLUTIONS).mkdir(exist_ok=True)
        Path(paths.resolution("ha")).write_text(text)
        with pytest.raises(SplitJournalBroken, match="cannot be read"):
            read("ha")


def test_what_has_ended_is_kept_under_another_name() -> None:
    write(JOURNAL)
    kept = put_away(JOURNAL)
    assert read("ha") is None and Path(kept).exists()


def test_preserving_anew_overwrites_nothing_that_there_is() -> None:
    done = frozenset({Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD})
    first = replace(JOURNAL, done=done, told=True, seal=Seal("b", 7, 4096, 3), target="/aside/x")
    second = first.anew()
    third = second.anew()
    assert [it.target for it in (first, second, third)] == ["/aside/x", "/aside/x-2", "/aside/x-3"]
    assert third.given_up == ("/aside/x", "/aside/x-2")
    assert not second.done & PRESERVING and second.seal is None and not second.preserved and not second.told
