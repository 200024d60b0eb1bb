"""What is kept of an interrupted comparison: all of it comes back, and what is not of this mirror is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import VerifyRefused
from pvedrbdstor.verify import resume
from pvedrbdstor.verify.resume import Saved

SAVED = Saved(
    storage="ha",
    size=1 << 30,
    uuid="A" * 32,
    mode="sample",
    granularity=65536,
    fraction=0.01,
    seed=7,
    began=1000.5,
    seconds=12.5,
    at=1 << 20,
    compared=1 << 20,
    generation="00000000000000AA",
    much=True,
    remarks=("DRBD's verify was cut.",),
    beside=(65536, 1 << 21),
    pending=((0, 4096),),
    diverged=((8192, 4096),),
    unreadable_there=((4096, 4096),),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resume, "FOLDER", str(tmp_path / "verify"))
    return tmp_path / "verify"


def test_what_was_kept_comes_back(folder: Path) -> None:
    assert resume.read("ha") is None
    resume.write(SAVED)
    assert resume.read("ha") == SAVED and [path.name for path in folder.iterdir()] == ["ha.json"]
    resume.remove("ha", SAVED.began - 1)
    assert resume.read("ha") == SAVED, "another one"
    resume.remove("ha", SAVED.began)
    resume.remove("ha", SAVED.began)
    assert resume.read("ha") is None


def misfit(
    size: int = 1 << 30, uuid: str = "A" * 32, generation: str | None = "00000000000000AA", later: float = 60
) -> str:
    return resume.misfit(SAVED, size, uuid, generation, SAVED.began + later) or ""


def test_another_file_system_or_size_is_not_gone_on_with() -> None:
    assert misfit() == ""
    assert "had 1073741824 bytes then" in misfit(size=1 << 31)
    assert "of the file system AAAA" in misfit(uuid="B" * 32)


def test_data_of_another_generation_are_not_gone_on_with() -> None:
    assert "a resync may have written what was compared before" in misfit(generation="00000000000000AC")
    assert "DRBD does not tell" in misfit(generation=None)


def test_what_is_older_than_a_week_is_not_gone_on_with() -> None:
    assert misfit(later=7 * 86400 - 1) == ""
    assert "more than 7 days ago" in misfit(later=7 * 86400 + 1)


def test_what_an_older_version_has_left_is_refused_plainly(folder: Path) -> None:
    resume.write(SAVED)
    path = folder / "ha.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("much", "remarks")}
    path.write_text(json.dumps({**old, "format": 1}))
    with pytest.raises(VerifyRefused, match=r"another version of pvedrbdstor has left .*format is 1"):
        resume.read("ha")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "2"},
        {"much": 0},
        {"remarks": "cut"},
        {"remarks": ["\n"]},
        {"generation": 5},
        {"at": -1},
        {"at": "1"},
        {"at": True},
        {"pending": [[0]]},
        {"diverged": 5},
        {"pending": [[0, 0]]},
        {"uuid": None},
        {"beside": [-1]},
    ],
)
def test_a_file_that_is_none_is_refused(folder: Path, changes: dict[str, object]) -> None:
    resume.write(SAVED)
    path = folder / "ha.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(VerifyRefused, match="cannot be understood"):
        resume.read("ha")


@given(st.text(max_size=60) | st.just("[" * 9999))
def test_any_file_is_read_or_refused(text: str) -> None:
    resume.write(replace(SAVED, storage="any"))
    Path(resume.path("any")).write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(VerifyRefused):
        resume.read("any")
