"""The last check of the write path: kept beside the last comparison and not in its place, told in a line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.cli import verify_write_path
from pvedrbdstor.cli.session import Session
from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify import last as comparisons
from pvedrbdstor.verify.write_path import last
from pvedrbdstor.verify.write_path.facts import Outcome, Risk, Why
from pvedrbdstor.verify.write_path.last import Check, Record

DAY = 86400.0
NOW = 1_800_000_000.0
OK = Check("a", "ok", NOW - 3 * DAY - 60, NOW - 3 * DAY)
REFUSED = last.failed("a", NOW - 62, NOW - 61, "b is Diskless.\n")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "write-path"))
    monkeypatch.setattr(comparisons, "FOLDER", str(tmp_path / "last"))
    return tmp_path / "write-path"


def test_a_try_that_failed_does_not_hide_the_last_verdict(folder: Path) -> None:
    assert last.read("ha") is None
    for check, expected in ((OK, Record(OK, OK, OK)), (REFUSED, Record(REFUSED, OK, OK))):
        last.keep("ha", check)
        assert last.read("ha") == expected
    assert os.listdir(folder) == ["ha.json"] and comparisons.read("ha") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": 2, "last": {}}', '{"format": 1, "last": {}}']
)
def test_a_record_that_is_none_is_unknown_and_is_replaced(folder: Path, text: str) -> None:
    folder.mkdir()
    Path(last.path("ha")).write_text(text)
    with pytest.raises(last.Unknown):
        last.read("ha")
    last.keep("ha", REFUSED)
    assert last.read("ha") == Record(REFUSED, None)


def test_a_verdict_of_a_comparison_is_none_of_it(folder: Path) -> None:
    last.keep("ha", replace(OK, verdict="clean"))
    with pytest.raises(last.Unknown, match="no verdict"):
        last.read("ha")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (None, "write path never checked"),
        (Record(OK, OK), "last write path check: ok, 3 days ago"),
        (
            Record(replace(OK, verdict="mismatch", disks=1), None),
            "last write path check: MISMATCH, 3 days ago (1 disk of guests at risk)",
        ),
        (
            Record(REFUSED, replace(OK, disks=2)),
            "last write path check: could not check, 1 minute ago: b is Diskless; before: ok, 3 days ago (2 disks of guests at risk)",
        ),
        (
            Record(REFUSED, None),
            "last write path check: could not check, 1 minute ago: b is Diskless; before: never one that came to a verdict",
        ),
    ],
)
def test_it_is_told_in_a_line(record: Record | None, line: str) -> None:
    assert last.line(record, NOW) == line


def test_a_disk_that_is_at_risk_for_two_reasons_is_one_disk() -> None:
    drive = Drive(100, "scsi0", "ha:100/vm-100-disk-0.raw", "none", "io_uring")
    outcome = Outcome(
        "ha",
        "a",
        "b",
        256,
        NOW - 60,
        60.0,
        (),
        (),
        (Risk(Why.MODE, (drive,)), Risk(Why.FLUSHES, (drive,))),
        4,
        ("it", "that"),
    )
    check = last.check_of(outcome, NOW)
    assert check == Check("a", "incomplete", NOW - 60, NOW, 1, "it; that")
    assert last.check_of(replace(outcome, guests=None), NOW).disks is None


def test_what_could_not_be_checked_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storage.cfg").write_text(
        "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tdrbdocfs2-resource r0\n\tdrbdocfs2-cluster pve\n\tcontent images\n"
    )

    def refused(*_: object) -> int:
        raise WritePathUnchecked(storage="ha", cause="b is Diskless", remedy="Attach it")

    monkeypatch.setattr(verify_write_path, "_run", refused)
    session = Session(config_path=str(tmp_path / "storage.cfg"), node="a")
    assert verify_write_path.run(session, "ha") == 2
    kept = last.read("ha")
    assert kept is not None and (kept.last.verdict, kept.last.reason) == (last.COULD_NOT, "b is Diskless")
    assert verify_write_path.run(session, "hb") == 2 and last.read("hb") is None, "a storage that is not there"
