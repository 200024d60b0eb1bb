"""The view's file: what was written is read back, and what is old or broken is never taken for the present."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror.finding import Finding, Kind, Severity
from pvedrbdstor.mirror.live.view import STALE_SECONDS, InUse, Record, boot_clock, read_view, write_view
from pvedrbdstor.mirror.verdict import Verdict
from tests.examples import examples

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
ALSO = Finding(Kind.DEGRADED, "Also.", "Wait.", Severity.CRITICAL, admits=False)
VERDICT = Verdict(Kind.UNPROTECTED, True, True, False, "Cause.", "Remedy.", Severity.CRITICAL, (ALSO,), ("A note.",))
SIZES = {"total": 3, "avail": 2, "used": 1}
IN_USE = InUse(frozenset({7, 9}), frozenset({"101/vm-101-disk-0.raw"}))


def put(folder: Path, age: float = 0.0, verdict: Verdict = VERDICT) -> None:
    write_view(Record(CONFIG, verdict, boot_clock() - age, 0.0, SIZES, IN_USE), str(folder))


def test_all_of_a_view_is_read_back(tmp_path: Path) -> None:
    put(tmp_path)
    seen = read_view("ha", str(tmp_path))
    assert (seen.verdict, seen.last, seen.fresh, seen.sizes, seen.in_use) == (VERDICT, VERDICT, True, SIZES, IN_USE)
    assert seen.describes(CONFIG)


def test_without_a_heartbeat_the_verdict_is_unknown_and_says_for_how_long(tmp_path: Path) -> None:
    put(tmp_path, age=STALE_SECONDS + 5)
    seen = read_view("ha", str(tmp_path))
    assert not seen.fresh
    assert seen.verdict.kind is Kind.UNKNOWN and not seen.verdict.usable_here and not seen.verdict.admits
    assert "11 s ago" in seen.verdict.cause
    assert seen.last == VERDICT


def test_a_view_nobody_wrote_is_unknown(tmp_path: Path) -> None:
    seen = read_view("ha", str(tmp_path))
    assert seen.verdict.kind is Kind.UNKNOWN and seen.last is None and seen.age is None


@pytest.mark.parametrize(
    "other",
    [
        StorageConfig("ha", "/mnt/pve/other", "r0"),
        StorageConfig("ha", "/mnt/pve/ha", "r1"),
        StorageConfig("ha", "/mnt/pve/ha", "r0", 1),
        StorageConfig("ha", "/mnt/pve/ha", "r0", uuid="A" * 32),
    ],
)
def test_a_view_of_the_storage_as_it_was_configured_before_does_not_describe_it(
    tmp_path: Path, other: StorageConfig
) -> None:
    put(tmp_path)
    assert not read_view("ha", str(tmp_path)).describes(other)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(st.data())
def test_a_broken_file_is_no_view(tmp_path: Path, data: st.DataObject) -> None:
    put(tmp_path)
    path = tmp_path / "ha.json"
    text = path.read_text()
    cut = min(data.draw(st.integers(0, 2000)), len(text) - 3)  # its length depends on the clock
    path.write_text(text[:cut] + data.draw(st.sampled_from(["", "null", "{}", "\0"])))
    assert read_view("ha", str(tmp_path)).verdict.kind is Kind.UNKNOWN


def test_the_folder_is_made_when_it_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "run" / "live")
    assert read_view("ha", str(tmp_path / "run" / "live")).fresh
