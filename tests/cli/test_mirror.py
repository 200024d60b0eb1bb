"""`pvedrbdstor mirror`: what it asks for, what it says, how it ends. The job itself: tests/mirror/bringup."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor.cli import mirror
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, CannotTakeDown, Error
from pvedrbdstor.mirror import vendor
from pvedrbdstor.mirror.bringup import down, job, join, lock, paths, record
from pvedrbdstor.mirror.bringup.facts import WAIT_PEER_SECONDS, Options
from pvedrbdstor.mirror.bringup.record import Record, boot_clock
from pvedrbdstor.mirror.finding import Kind, Severity
from pvedrbdstor.mirror.live import peer_off, view
from pvedrbdstor.mirror.verdict import Verdict
from pvedrbdstor.verify import last as last_verify
from pvedrbdstor.verify.write_path import last as last_write_path
from tests.cli.conftest import CommandLine

Watch = Callable[[Record | None], None]
REFUSED = BringUpRefused(storage="ha", cause="it is so", remedy="Do this")
UP = StorageConfig("ha", "/mnt/pve/ha", "r0")


class Joined:
    """Stands for the job: keeps what it was asked, tells the steps, ends as told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Options]] = []
        self.error: BringUpRefused | None = None

    def __call__(self, config: StorageConfig, options: Options, watch: Watch) -> Record:
        self.asked.append((config.id, options))
        now = Record(config.id, 1, boot_clock(), "bringing DRBD up", boot_clock())
        for step in ("bringing DRBD up", "bringing DRBD up", "mounting the file system"):
            watch(replace(now, step=step))
        error = record.describe(self.error, config.id) if self.error else None
        return replace(now, finished=boot_clock(), error=error)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Joined:
    made = Joined()
    monkeypatch.setattr(paths, "FOLDER", str(tmp_path / "bringup"))
    monkeypatch.setattr(view, "FOLDER", str(tmp_path / "live"))
    monkeypatch.setattr(last_verify, "FOLDER", str(tmp_path / "verified"))
    monkeypatch.setattr(last_write_path, "FOLDER", str(tmp_path / "write-path"))
    monkeypatch.setattr(join, "join", made)
    (tmp_path / "bringup").mkdir()
    (tmp_path / "live").mkdir()
    return made


def test_up_tells_each_step_once(cli: CommandLine, joined: Joined) -> None:
    result = cli("mirror", "up", "ha")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "pvedrbdstor: ha: bringing DRBD up ...",
        "pvedrbdstor: ha: mounting the file system ...",
    ]
    assert result.stdout == "ha is up after 0 s.\n"
    assert joined.asked == [("ha", Options(by_hand=True, wait_peer=WAIT_PEER_SECONDS))]


def test_up_lifts_what_an_administrator_had_held_down(cli: CommandLine, joined: Joined) -> None:
    down.hold("ha")
    assert cli("mirror", "up", "ha").exit_code == 0
    assert not Path(paths.hold("ha")).exists()


def test_up_ends_with_the_errors_status(cli: CommandLine, joined: Joined) -> None:
    joined.error = REFUSED
    result = cli("mirror", "up", "ha")
    assert result.exit_code == 69
    assert result.stderr.splitlines()[-1] == "pvedrbdstor: Storage 'ha' is not brought up: it is so. Do this."


def test_up_as_json(cli: CommandLine, joined: Joined) -> None:
    result = cli("mirror", "up", "ha", "--json")
    assert json.loads(result.stdout) == {"storage": "ha", "state": "up"}
    assert result.stderr == ""


@pytest.mark.parametrize(("answer", "status", "asked"), [("n\n", 1, 0), ("y\n", 0, 1)])
def test_up_without_the_peer_asks_first(
    cli: CommandLine, joined: Joined, on_a_terminal: None, answer: str, status: int, asked: int
) -> None:
    result = cli("mirror", "up", "ha", "--without-peer", input=answer)
    assert result.exit_code == status
    assert "although the other node may be writing to its own copy?" in result.stderr
    assert len(joined.asked) == asked
    assert all(options.without_peer for _, options in joined.asked)


def test_up_of_all_brings_up_what_is_for_this_node_and_leaves_nothing_held(cli: CommandLine, joined: Joined) -> None:
    result = cli("mirror", "up", "--all", "--wait", "90")
    assert result.exit_code == 0
    assert joined.asked == [("ha", Options(wait_peer=60.0))]
    assert "it is disabled" in result.stderr
    assert "not for node 'a'" in result.stderr


def test_of_several_one_failure_does_not_keep_the_others(cli: CommandLine, joined: Joined) -> None:
    with (cli.etc_pve / "storage.cfg").open("a") as file:
        file.write("\ndrbdocfs2: hb\n\tpath /mnt/pve/hb\n\tdrbdocfs2-resource r9\n")
    joined.error = REFUSED
    result = cli("mirror", "up", "--all")
    assert result.exit_code == 69
    assert sorted(storage for storage, _ in joined.asked) == ["ha", "hb"]


def test_all_of_none_is_done(cli: CommandLine, joined: Joined) -> None:
    (cli.etc_pve / "storage.cfg").unlink()
    assert cli("mirror", "up", "--all").exit_code == 0
    assert cli("mirror", "down", "--all").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [("up",), ("down",), ("up", "ha", "--all"), ("up", "--all", "--without-peer"), ("up", "--job")]
)
def test_one_storage_or_all_must_be_said(cli: CommandLine, joined: Joined, arguments: tuple[str, ...]) -> None:
    assert cli("mirror", *arguments).exit_code == 2
    assert joined.asked == []


def test_the_wait_ends_and_the_work_goes_on(cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(config: StorageConfig, options: Options, watch: Watch) -> Record:
        while True:
            watch(Record(config.id, 1, 0.0, "mounting the file system", 0.0))

    monkeypatch.setattr(join, "join", forever)
    result = cli("mirror", "up", "ha", "--wait", "1")
    assert result.exit_code == 75
    assert "still coming up (mounting the file system, 1 s so far)" in result.stderr


@pytest.mark.parametrize(
    ("failure", "status"),
    [(REFUSED, 0), (BringUpFailed(storage="ha", step="mounting the file system", detail="it did not"), 74)],
    ids=["refused, which is for those who asked", "failed"],
)
def test_the_jobs_unit_fails_when_the_job_does(
    cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch, failure: Error, status: int
) -> None:
    def run(storage: str, configured: Callable[[], StorageConfig], options: Options, lock_fd: int | None) -> Record:
        assert configured() == UP
        assert not options.by_hand
        error = record.describe(failure, storage)
        return Record(storage, 1, 0.0, "s", 0.0, finished=1.0, error=error)

    monkeypatch.setattr(job, "run", run)
    assert cli("mirror", "up", "ha", "--job").exit_code == status


def test_the_job_keeps_the_vendors_start_scripts_away(
    cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    monkeypatch.setattr(mirror, "DEFAULT_CONFIG", str(cli.etc_pve / "storage.cfg"))
    monkeypatch.setattr(vendor, "mask_for", lambda storage: did.append(f"masked for {storage}"))
    monkeypatch.setattr(job, "run", lambda *_: did.append("ran"))
    assert cli("mirror", "up", "ha", "--job").exit_code == 0
    assert did == ["masked for ha", "ran"]


def test_down_of_all_takes_disabled_storages_too(
    cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be mounted all the same; at shutdown the other node must be told."""
    taken: list[str] = []
    monkeypatch.setattr(down, "take_down", lambda config, **_: taken.append(config.id))
    assert cli("mirror", "down", "--all", "--stop").exit_code == 0
    assert sorted(taken) == ["ha", "off"]
    assert cli("mirror", "down", "off").exit_code == 78


def test_down_says_what_is_left(cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, bool]] = []

    def take_down(config: StorageConfig, *, stop: bool, report: Callable[[str], None]) -> None:
        taken.append((config.id, stop))
        report("unmounting")

    monkeypatch.setattr(down, "take_down", take_down)
    result = cli("mirror", "down", "ha")
    assert result.stderr == "pvedrbdstor: ha: unmounting ...\n"
    assert "DRBD is Secondary and stays connected" in result.stdout
    assert "DRBD is down" in cli("mirror", "down", "ha", "--stop").stdout
    assert taken == [("ha", False), ("ha", True)]


def test_down_tells_who_is_in_the_way(cli: CommandLine, joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_down(*_: Any, **__: Any) -> None:
        raise CannotTakeDown(storage="ha", cause="it is in use by VM 100", remedy="Stop or move them")

    monkeypatch.setattr(down, "take_down", take_down)
    result = cli("mirror", "down", "ha")
    assert result.exit_code == 75
    assert (
        result.stderr == "pvedrbdstor: Storage 'ha' cannot be taken down: it is in use by VM 100. Stop or move them.\n"
    )


def seen(kind: Kind = Kind.NOT_UP) -> None:
    """Let the monitor have said so just now."""
    verdict = Verdict(kind, False, False, False, "It is so.", "Do this.", Severity.ERROR, notes=("By the way.",))
    view.write_view(view.Record(UP, verdict, boot_clock(), boot_clock()), view.FOLDER)


def test_status_is_the_monitors_verdict(cli: CommandLine, joined: Joined) -> None:
    seen()
    assert cli("mirror", "status", "ha").stdout == (
        "ha: not-up\n  It is so.\n  Do this.\n  By the way.\n  never verified\n  write path never checked\n"
    )
    document = json.loads(cli("mirror", "status", "ha", "--json").stdout)
    assert document["source"] == "monitor"
    assert document["verdict"]["kind"] == "not-up"
    assert document["coming_up"] is None
    assert document["last_verify"] is None and document["last_write_path"] is None


def test_status_tells_what_the_last_check_of_the_write_path_has_found(cli: CommandLine, joined: Joined) -> None:
    check = last_write_path.Check("a", "mismatch", time.time() - 200_000, time.time() - 180_000, disks=2)
    last_write_path.keep("ha", check)
    last_write_path.keep("ha", last_write_path.failed("a", time.time() - 70, time.time() - 61, "b is Diskless."))
    said = cli("mirror", "status", "ha").stdout
    told = "could not check, 1 minute ago: b is Diskless; before: MISMATCH, 2 days ago (2 disks of guests at risk)"
    assert f"\n  last write path check: {told}\n" in said
    document = json.loads(cli("mirror", "status", "ha", "--json").stdout)["last_write_path"]
    assert (document["verdict"], document["judged"]["verdict"]) == ("could not check", "mismatch")
    Path(last_write_path.path("ha")).write_text("[]")
    assert "last write path check: not known, as " in cli("mirror", "status", "ha").stdout


def test_status_tells_what_the_last_verify_has_found(cli: CommandLine, joined: Joined) -> None:
    seen()
    now = time.time()
    check = last_verify.Check("full", "a", "diverged", now - 200_000, now - 180_000, 1 << 30, 1 << 30, diverged=8192)
    last_verify.keep("ha", check)
    assert "\n  last verify: diverged, full, 2 days ago (1 GiB, 8 KiB DIFFER)\n" in cli("mirror", "status", "ha").stdout
    document = json.loads(cli("mirror", "status", "ha", "--json").stdout)
    assert document["last_verify"]["diverged"] == document["last_verify"]["judged"]["diverged"] == 8192


def test_status_does_not_take_a_damaged_record_for_none(cli: CommandLine, joined: Joined) -> None:
    seen()
    Path(last_verify.FOLDER).mkdir()
    Path(last_verify.path("ha")).write_text("{")
    assert "last verify: not known" in cli("mirror", "status", "ha").stdout
    assert "unknown" in json.loads(cli("mirror", "status", "ha", "--json").stdout)["last_verify"]


def test_status_tells_what_is_being_done(cli: CommandLine, joined: Joined) -> None:
    seen()
    record.write(Record("ha", 1, boot_clock() - 7, "mounting the file system", boot_clock()))
    held = lock.take("ha")
    assert "Coming up: mounting the file system (7 s so far)." in cli("mirror", "status", "ha").stdout
    assert held is not None


def test_status_tells_how_the_last_try_ended(cli: CommandLine, joined: Joined) -> None:
    seen()
    record.write(Record("ha", 1, 0, "s", 0, finished=1, error=record.describe(REFUSED, "ha")))
    assert "Last try: Storage 'ha' is not brought up: it is so. Do this." in cli("mirror", "status", "ha").stdout


def test_status_tells_that_it_is_held_down(cli: CommandLine, joined: Joined) -> None:
    seen()
    down.hold("ha")
    assert "Taken down by an administrator" in cli("mirror", "status", "ha").stdout


def test_status_without_a_monitor_looks_itself(cli: CommandLine, joined: Joined) -> None:
    document = json.loads(cli("mirror", "status", "ha", "--json").stdout)
    assert document["source"] == "one look"
    assert document["verdict"]["usable_here"] is False


def test_a_peer_is_said_to_be_off_by_who_confirms_it(cli: CommandLine, joined: Joined) -> None:
    result = cli("mirror", "peer-off", "ha", "--yes")
    assert result.exit_code == 0
    assert "counts as switched off" in result.stdout
    assert peer_off.seconds_since("ha") is not None


def test_a_peer_is_not_said_to_be_off_when_the_answer_is_no(
    cli: CommandLine, joined: Joined, on_a_terminal: None
) -> None:
    assert cli("mirror", "peer-off", "ha", input="n\n").exit_code == 1
    assert peer_off.seconds_since("ha") is None
