"""The last check of a storage: kept whole, told in a line, and what Prometheus is given."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.sizes import format_size
from pvedrbdstor.verify import kept, last, metrics
from pvedrbdstor.verify.last import COULD_NOT, VERDICTS, Check, Record
from pvedrbdstor.verify.report import Outcome

DAY = 86400.0
NOW = 1_800_000_000.0
CLEAN = Check("full", "nodea", "clean", NOW - 3.5 * DAY, NOW - 3 * DAY, 412 << 30, 412 << 30)
DIFFERENT = replace(CLEAN, verdict="diverged", diverged=4096)
REFUSED = last.failed("sample", "nodea", NOW - 61, NOW - 60, "nodeb is Diskless.")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "last"))
    return tmp_path / "last"


def test_a_try_that_failed_does_not_hide_the_last_verdict(folder: Path) -> None:
    assert last.read("ha") is None
    last.keep("ha", CLEAN)
    assert last.read("ha") == Record(CLEAN, CLEAN, CLEAN)
    last.keep("ha", REFUSED)
    assert last.read("ha") == Record(REFUSED, CLEAN, CLEAN)
    assert os.listdir(folder) == ["ha.json"]


def test_a_difference_stands_until_all_that_is_allocated_is_equal() -> None:
    """A sample that has met nothing, a try that failed, and one that left something open say nothing of the block that differs."""
    last.keep("ha", DIFFERENT)
    for later in (replace(CLEAN, mode="sample"), REFUSED, replace(CLEAN, verdict="unsettled")):
        last.keep("ha", later)
        record = last.read("ha")
        assert record is not None and (record.last, record.standing) == (later, DIFFERENT)
        assert last.differing(record) == DIFFERENT
        told = last.as_json(record)
        assert told is not None and told["standing"] == asdict(DIFFERENT)
        assert "what differed was not found equal since: diverged, full" in last.line(record, format_size, NOW)
        assert f'diverged_bytes{{storage="ha"}} {DIFFERENT.diverged}' in metrics.text({"ha": record})
    equal = replace(CLEAN, mode="allocated")
    last.keep("ha", equal)
    assert last.read("ha") == Record(equal, equal, equal)
    last.keep("ha", replace(CLEAN, mode="sample"))
    assert last.read("ha") == Record(replace(CLEAN, mode="sample"), replace(CLEAN, mode="sample"), equal)


def test_a_record_of_an_older_version_has_its_verdict_for_the_one_that_stands(folder: Path) -> None:
    folder.mkdir()
    (folder / "ha.json").write_text(json.dumps({"format": 1, "last": asdict(REFUSED), "judged": asdict(DIFFERENT)}))
    assert last.read("ha") == Record(REFUSED, DIFFERENT, DIFFERENT)


def test_a_record_is_replaced_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last.keep("ha", CLEAN)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        last.keep("ha", REFUSED)
    assert last.read("ha") == Record(CLEAN, CLEAN, CLEAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 2, "last": {}}',
        '{"format": 1}',
        '{"format": 1, "last": {"verdict": "clean"}}',
        "[" * 5000,
    ],
)
def test_a_damaged_record_is_not_taken_for_none(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "ha.json").write_text(text)
    with pytest.raises(last.Unknown, match=r"ha\.json cannot be read"):
        last.read("ha")
    last.keep("ha", CLEAN)
    assert last.read("ha") == Record(CLEAN, CLEAN, CLEAN)


@given(
    st.builds(
        Check,
        mode=st.sampled_from(["sample", "full"]),
        node=st.just("a"),
        verdict=st.sampled_from(VERDICTS),
        began=st.floats(0, 1e10),
        ended=st.floats(0, 1e10),
        compared=st.integers(0, 1 << 50),
        diverged=st.integers(0, 1 << 50),
    )
)
def test_what_is_kept_is_read(check: Check) -> None:
    document = {"format": 1, "last": last.as_json(Record(check, None)), "judged": None}
    assert kept._record(json.loads(json.dumps(document)), Check, VERDICTS).last == check


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "never verified"),
        (Record(CLEAN, CLEAN), "last verify: clean, full, 3 days ago (412 GiB)"),
        (
            Record(replace(CLEAN, verdict="diverged", diverged=4096, ended=NOW - 1), None),
            "last verify: diverged, full, moments ago (412 GiB, 4 KiB DIFFER)",
        ),
        (
            Record(replace(CLEAN, began=NOW - 5 * 86400, resumed=True), None),
            "last verify: clean, full, 3 days ago, begun 5 days ago and resumed (412 GiB)",
        ),
        (
            Record(REFUSED, CLEAN),
            "last verify: could not check, sample, 1 minute ago: nodeb is Diskless; before: clean, full, 3 days ago (412 GiB)",
        ),
        (
            Record(REFUSED, None),
            "last verify: could not check, sample, 1 minute ago: nodeb is Diskless; before: never one that came to a verdict",
        ),
    ],
)
def test_a_line_for_people(record: Record | None, expected: str) -> None:
    assert last.line(record, format_size, NOW) == expected


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ({}, "clean"),
        ({"diverged": ((0, 4096),)}, "diverged"),
        ({"unsettled": ((0, 4096),)}, "unsettled"),
        ({"unreadable_there": ((0, 4096),)}, "unreadable"),
        ({"stopped": "a resync is running\n"}, COULD_NOT),
        ({"stopped": "a resync is running", "diverged": ((0, 4096),)}, "diverged"),
    ],
)
def test_a_comparison_becomes_a_check(words: dict[str, object], verdict: str) -> None:
    outcome = Outcome("ha", "full", "nodea", "nodeb", 1 << 30, 65536, 1 << 30, NOW - 5, 5.0)
    check = last.check_of(replace(outcome, **words), NOW)  # type: ignore[arg-type]
    assert last.check_of(replace(outcome, resumed=True), NOW).resumed and not check.resumed
    assert check.verdict == verdict and check.node == "nodea" and (check.began, check.ended) == (NOW - 5, NOW)
    assert check.reason == ("a resync is running" if "stopped" in words else None)
    last.keep("ha", check)
    assert last.read("ha") == Record(
        check, None if verdict == COULD_NOT else check, check if verdict in ("clean", "diverged") else None
    )


def test_prometheus_is_given_each_verdict_and_no_value_that_is_not_known() -> None:
    text = metrics.text({"ha": Record(REFUSED, CLEAN), "new": None})
    samples = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in text.splitlines() if line[0] != "#"}
    verdicts = {key: value for key, value in samples.items() if "verdict" in key}
    assert len(verdicts) == 2 * (len(VERDICTS) + 1)
    assert [key for key, value in verdicts.items() if value == "1"] == [
        'pvedrbdstor_verify_last_verdict{storage="ha",verdict="could not check"}',
        'pvedrbdstor_verify_last_verdict{storage="new",verdict="never"}',
    ]
    assert samples['pvedrbdstor_verify_last_end_timestamp_seconds{storage="ha"}'] == str(int(NOW - 60))
    assert samples['pvedrbdstor_verify_judged_end_timestamp_seconds{storage="ha"}'] == str(int(NOW - 3 * DAY))
    assert samples['pvedrbdstor_verify_diverged_bytes{storage="ha"}'] == "0"
    assert not any('"new"' in key for key in samples if "verdict" not in key)


def test_every_gauge_has_its_help_and_type_before_its_samples() -> None:
    known: set[str] = set()
    for line in metrics.text({"ha": Record(CLEAN, CLEAN)}).splitlines():
        if line.startswith("# TYPE "):
            known.add(line.split()[2])
        elif not line.startswith("#"):
            assert line.partition("{")[0] in known


def test_the_collectors_file_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    (tmp_path / metrics.FILE).write_text("old")
    written = Path(metrics.write(str(tmp_path), "new\n"))
    assert written.read_text() == "new\n" and os.listdir(tmp_path) == [metrics.FILE]
    assert written.stat().st_mode & 0o777 == 0o644
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / metrics.FILE).mkdir()
    with pytest.raises(OSError):
        metrics.write(str(tmp_path / "taken"), "new\n")
    assert os.listdir(tmp_path / "taken") == [metrics.FILE]
