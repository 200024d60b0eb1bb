"""The last check of the write path: kept beside the last comparison and not in its place, told in a line."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pvedrbdstor.cli import verify_write_path
from pvedrbdstor.cli.session import Session
from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify import last as comparisons
from pvedrbdstor.verify.write_path import last
from pvedrbdstor.verify.write_path.engines import MODES, Mode, Result, Tried
from pvedrbdstor.verify.write_path.facts import Direction, Ground, Outcome, Risk, Seen, Why
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


def test_what_was_wrong_is_kept_with_the_modes_that_failed_and_one_that_has_passed() -> None:
    ground = Ground("/dev/sdb", ("A",), True, None)
    seen = (Seen(0.1, 0.1, False, True), Seen(0.1, 0.1, True, True), Seen(0.1, 5.0, True, False))
    bad, good = Mode("threads", "none"), Mode("io_uring", "writeback")
    tried = [
        Tried("a", bad, Result.DIFFERS),
        Tried("b", bad, Result.FAILED),
        Tried("a", Mode("native", "none"), Result.UNSUPPORTED),
    ]
    tried += [Tried(node, good, Result.OK) for node in "ab"]
    directions = (
        Direction("a", "b", ground, seen, 1),
        Direction("b", "a", replace(ground, protocols=("C",)), seen[:1], 0),
    )
    check = last.check_of(Outcome("ha", "a", "b", 3, NOW - 60, 60.0, directions, tuple(tried)), NOW)
    assert (check.verdict, check.modes, check.safer) == ("mismatch", "threads/none", "io_uring/writeback")
    assert check.writes == (
        "2 of 3 writes of a were not on b's disk when they were acknowledged; 1 of 3 blocks of a read otherwise on b; DRBD on b has protocol A"
    )
    last.keep("ha", check)
    assert last.read("ha") == Record(check, check, check)
    assert last.modes_of(check.modes) == (bad,) and last.modes_of("; reboot") == last.modes_of(None) == ()


def test_all_modes_that_fail_fit_into_the_record() -> None:
    tried = tuple(Tried("a", mode, Result.FAILED) for mode in MODES)
    last.keep("ha", last.check_of(Outcome("ha", "a", "b", 1, NOW - 60, 60.0, (), tried), NOW))
    kept = last.read("ha")
    assert kept is not None and last.modes_of(kept.last.modes) == MODES


def test_a_mismatch_stands_until_a_whole_check_found_none() -> None:
    wrong = replace(OK, verdict="mismatch", modes="threads/none")
    for check in (wrong, replace(OK, verdict="incomplete"), REFUSED):
        last.keep("ha", check)
        told = last.as_json(last.read("ha"))
        assert told is not None and told["standing"] == asdict(wrong) and told["verdict"] == check.verdict
    last.keep("ha", OK)
    told = last.as_json(last.read("ha"))
    assert told is not None and told["standing"] == asdict(OK)
    assert last.as_json(None) is None


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
