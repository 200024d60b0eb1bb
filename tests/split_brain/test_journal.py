"""The journal: whole or not there, and read back as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import SplitJournalBroken
from pvedrbdstor.fencing.split.journal import Journal, path_of, put_away, read, write
from pvedrbdstor.fencing.split.steps import Preserve, Step

JOURNAL = Journal("ha", "pve1", "pve2", 1.5, Preserve.SNAPSHOT, "vg/r0-split", 77, ("images/100/a.raw",), ((0, 4096),))


@given(st.frozensets(st.sampled_from(list(Step))), st.sampled_from([None, *Step]), st.sampled_from(list(Preserve)))
def test_it_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, done: frozenset[Step], doing: Step | None, how: Preserve
) -> None:
    folder = str(tmp_path_factory.mktemp("journal"))
    journal = replace(JOURNAL, done=done, doing=doing, preserve=how, discarded_boot="b")
    write(journal, folder)
    assert read("ha", folder) == journal


def test_without_one_there_is_none_and_a_broken_one_is_told(tmp_path: Path) -> None:
    assert read("ha", str(tmp_path)) is None
    for text in ("", "[]", "{}", '{"format": 9}'):
        Path(path_of("ha", str(tmp_path))).write_text(text)
        with pytest.raises(SplitJournalBroken, match="cannot be read"):
            read("ha", str(tmp_path))


def test_what_has_ended_is_kept_under_another_name(tmp_path: Path) -> None:
    write(JOURNAL, str(tmp_path))
    kept = put_away(JOURNAL, str(tmp_path))
    assert read("ha", str(tmp_path)) is None and Path(kept).exists()
