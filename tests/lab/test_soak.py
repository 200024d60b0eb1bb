"""`./dev soak`: which tests go where, and what its page says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import results, soak
from tests.lab.ops import wait_until


def test_cases_of_a_long_module_are_shared_among_batches_and_modules_never_mixed() -> None:
    cases = [f"tests/lab/test_long.py::test_{number}" for number in range(7)] + ["tests/lab/test_short.py::test_it"]
    made = soak.batches(cases, first=4)
    assert [batch.number for batch in made] == [4, 5, 6, 7]
    assert [len(batch.cases) for batch in made] == [3, 2, 2, 1]
    assert sorted(case for batch in made for case in batch.cases) == cases
    assert made[-1].title == "test_short, 1 cases"


def test_module_with_clusters_of_its_own_is_one_batch() -> None:
    cases = [f"tests/lab/test_fencing.py::test_{number}" for number in range(7)]
    assert [batch.cases for batch in soak.batches(cases)] == [cases]


@pytest.mark.parametrize(
    ("cores", "gibibytes", "clusters"), [(2, 24, 3), (2, 7, 2), (1, 24, 2), (16, 2, 1), (16, 64, 17)]
)
def test_memory_and_processors_limit_the_clusters_side_by_side(cores: int, gibibytes: int, clusters: int) -> None:
    assert soak.side_by_side(cores, gibibytes << 30) == clusters


def test_marked_tests_are_collected_by_their_marks_only() -> None:
    alone = soak.collect("soak and alone", ["tests/lab/test_races.py"])
    assert alone == ["tests/lab/test_races.py::test_operations_racing_for_a_minute_lose_and_double_nothing"]
    assert soak.collect("soak and not alone", ["tests/lab/test_races.py"]) == []


def test_rows_of_all_batches_become_tables_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    table = results.Results()
    monkeypatch.setenv(results.FILE, str(second))
    table.row("Stalls", operation="clone", after_the_kill="1.0 s")
    table.row("Other", value=3)
    monkeypatch.setenv(results.FILE, str(first))
    table.row("Stalls", operation="alloc", stall="0.5 s")
    assert results.markdown(results.read([first, second, tmp_path / "none"])) == (
        "## Stalls\n\n"
        "| operation | stall | after the kill |\n| --- | --- | --- |\n| alloc | 0.5 s |  |\n| clone |  | 1.0 s |\n\n"
        "## Other\n\n| value |\n| --- |\n| 3 |"
    )


def test_page_names_the_command_and_keeps_the_rest() -> None:
    new = {"T": results.Table([{"x": "1"}])}
    text = soak.page("before\n<!-- lab -->\nold\n<!-- /lab -->\nafter\n", new, "./dev soak", 12.4)
    assert text.startswith("before\n<!-- lab -->\nMade by `./dev soak` in 12 min; cores ")
    assert text.endswith("\n\n## T\n\n| x |\n| --- |\n| 1 |\n<!-- /lab -->\nafter\n")
    assert "old" not in text


def table(key: tuple[str, ...], *rows: str) -> results.Table:
    """Rows of two columns: the name and what was measured."""
    return results.Table([dict(zip(("name", "found"), row.split(), strict=True)) for row in rows], key)


def test_a_part_measured_anew_replaces_its_rows_and_no_others() -> None:
    old = {"One": table((), "a 1", "b 2"), "Two": table((), "a 3", "b 4")}
    found = results.merged(results.parse(f"head\n\n{results.markdown(old)}"), {"Two": table(("name",), "b 5", "c 6")})
    assert results.markdown(found) == results.markdown(
        {"One": table((), "a 1", "b 2"), "Two": table((), "a 3", "b 5", "c 6")}
    )


def test_a_table_whose_rows_have_no_names_is_replaced_whole_and_a_new_one_comes_last() -> None:
    old = {"One": table((), "a 1"), "Two": table((), "a 3", "b 4")}
    found = results.merged(old, {"Three": table(("name",), "x 1"), "Two": table((), "c 5")})
    assert {title: each.rows for title, each in found.items()} == {
        "One": [{"name": "a", "found": "1"}],
        "Two": [{"name": "c", "found": "5"}],
        "Three": [{"name": "x", "found": "1"}],
    }


def test_the_page_of_a_part_names_both_commands_each_once() -> None:
    page = soak.page("<!-- lab -->\n<!-- /lab -->\n", {"T": table((), "a 1", "b 2")}, "./dev soak", 28)
    for number in "34":
        page = soak.page_in_part(page, {"T": table(("name",), f"b {number}")}, "./dev soak -k b", 3)
    assert page.count("Made by `./dev soak` in 28 min;") == 1
    assert page.count("In part made by `./dev soak -k b` in 3 min;") == 1
    assert page.endswith("\n\n## T\n\n| name | found |\n| --- | --- |\n| a | 1 |\n| b | 4 |\n<!-- /lab -->\n")


def test_failed_batch_fails_the_soak_and_leaves_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "lab-results.md"
    page.write_text("<!-- lab -->\nold\n<!-- /lab -->\n")
    monkeypatch.setattr(soak, "PAGE", page)
    monkeypatch.setattr(soak, "REPOSITORY", tmp_path)
    monkeypatch.setattr(soak, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(soak, "collect", lambda marks, _chosen: [] if "not" in marks else ["tests/none.py::test_none"])
    assert soak.main([]) == 1
    assert "1 of 1 batches failed" in capsys.readouterr().err
    assert "old" in page.read_text()


def test_ended_soak_kills_what_runs_and_starts_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "LOGS", tmp_path)
    monkeypatch.setattr(soak, "_PYTEST", ("sh", "-c", f"touch {tmp_path}/began; exec sleep 60"))
    running = soak.Running()
    with ThreadPoolExecutor(1) as pool, soak.ended_with(running):
        outcome = pool.submit(running.run, soak.Batch(1, ["x::y"]))
        wait_until((tmp_path / "began").exists, "the batch has begun")
        running.end()
        assert outcome.result(10) is False
    assert running.run(soak.Batch(2, ["x::y"])) is False
    assert not (tmp_path / "02.jsonl").exists()
