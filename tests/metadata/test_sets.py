"""Sets are written whole or not at all, are read back, and do not grow without bound."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.metadata import last, sets

NOW = 1_800_000_000.0
WEEK = 7 * 86400


def fill(folder: str) -> Mapping[str, object]:
    Path(folder, "map.jsonl.gz").write_bytes(b"here it is")
    Path(folder, "drbd.res").write_text("resource r0 { }\n")
    return {"storage": "ha"}


def write(folder: Path, now: float = NOW, node: str = "pve1") -> sets.Set:
    return sets.write(str(folder), node, now, fill)


def test_a_set_is_read_back_as_it_was_written_and_for_root_alone(tmp_path: Path) -> None:
    made = write(tmp_path / "ha")
    found = sets.read(made.path)
    assert (found, found.at, found.manifest["storage"]) == (made, NOW, "ha")
    assert sets.damaged(found) == []
    assert os.stat(tmp_path / "ha").st_mode & 0o777 == os.stat(made.path).st_mode & 0o777 == 0o700
    assert os.stat(f"{made.path}/manifest.json").st_mode & 0o077 == 0


def test_nothing_is_left_of_one_that_fails_and_the_one_before_stays(tmp_path: Path) -> None:
    before = write(tmp_path)

    def fails(folder: str) -> Mapping[str, object]:
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        sets.write(str(tmp_path), "pve1", NOW + WEEK, fails)
    assert os.listdir(tmp_path) == [os.path.basename(before.path)]


def test_one_that_was_cut_off_is_no_set_and_gives_way(tmp_path: Path) -> None:
    (tmp_path / ".new-pve1").mkdir()
    (tmp_path / ".new-pve1" / "map.jsonl.gz").write_bytes(b"half")
    assert sets.paths(str(tmp_path)) == []
    made = write(tmp_path)
    assert os.listdir(tmp_path) == [os.path.basename(made.path)]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("map.jsonl.gz", b"here it iS", "SHA-256"),
        ("map.jsonl.gz", b"here", "length"),
        ("drbd.res", None, "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes | None, word: str) -> None:
    path = Path(write(tmp_path / "ha").path, name)
    path.unlink() if content is None else path.write_bytes(content)
    wrong = sets.damaged(sets.read(str(path.parent)))
    assert len(wrong) == 1 and name in wrong[0] and word in wrong[0]
    told = last.newest("ha", "pve1", str(tmp_path))
    assert told is not None and told["damaged"] == wrong


def test_the_last_five_of_this_node_are_kept(tmp_path: Path) -> None:
    other = write(tmp_path, NOW - WEEK, node="pve2")
    made = [write(tmp_path, NOW + week * WEEK).path for week in range(7)]
    assert sorted(sets.prune(str(tmp_path), "pve1")) == made[:2]
    assert sets.paths(str(tmp_path)) == [*reversed(made[2:]), other.path]


def test_fewer_are_kept_where_they_are_large_and_the_newest_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [write(tmp_path, NOW + week * WEEK) for week in range(3)]
    size = sum(entry.stat().st_size for entry in os.scandir(made[-1].path))
    monkeypatch.setattr(sets, "TOTAL_MAX", 2 * size)
    assert sets.prune(str(tmp_path), "pve1") == [made[0].path]
    monkeypatch.setattr(sets, "TOTAL_MAX", size - 1)
    assert sets.prune(str(tmp_path), "pve1") == [made[1].path]
    assert sets.paths(str(tmp_path)) == [made[2].path]


def test_the_doctor_hears_of_the_newest_of_this_node(tmp_path: Path) -> None:
    assert last.newest("ha", "pve1", str(tmp_path)) is None
    write(tmp_path / "ha", NOW + WEEK, node="pve2")
    made = [write(tmp_path / "ha", NOW + week) for week in range(2)][-1]
    assert last.newest("ha", "pve1", str(tmp_path)) == {"path": made.path, "at": NOW + 1, "damaged": []}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    ).map(json.dumps)
    | st.text(max_size=40)
)
def test_any_manifest_is_read_or_called_broken(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("set")
    for whole in (text, f'{{"format": 1, "at": 5, "files": {text}}}'):
        (folder / "manifest.json").write_text(whole, encoding="utf-8", errors="replace")
        try:
            sets.damaged(sets.read(str(folder)))
        except sets.Broken as error:
            assert str(folder) in str(error)
