"""Callers and the job, as processes on this machine: one job for all, its answer for everyone, nothing lost with a caller."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, CallerGone, Error, InternalError, StillComingUp
from pvedrbdstor.fencing.split import journal as split_journal
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve
from pvedrbdstor.mirror.bringup import gather, job, join, lock, mounting, paths, record
from pvedrbdstor.mirror.bringup.facts import Options
from pvedrbdstor.mirror.bringup.record import Record, boot_clock
from tests.mirror.bringup.situations import CONFIG

Work = Callable[[StorageConfig, Options, Callable[[str], None]], None]


class Jobs:
    """Starts jobs as forked processes that do `work`, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.work: Work = lambda config, options, report: None
        self.count = folder / "count"
        self.count.touch()
        self.pids: list[int] = []

    def start(self, storage: str, held: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with self.count.open("a") as file:
                    file.write("x")
                job.run(storage, lambda: CONFIG, Options(), held, self.work)
                status = 0
            finally:
                os._exit(status)
        self.pids.append(pid)

    @property
    def started(self) -> int:
        return len(self.count.read_text())

    def end(self) -> None:
        for pid in self.pids:
            os.waitpid(pid, 0)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setattr(paths, "FOLDER", str(tmp_path / "bringup"))
    monkeypatch.setattr(gather, "fingerprint", lambda config: "as it is")
    monkeypatch.setattr(mounting, "SYSTEMD", str(tmp_path / "no-systemd"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the jobs' own business
    jobs = Jobs(tmp_path)
    monkeypatch.setattr(join, "_start", jobs.start)
    yield jobs
    jobs.end()


def call(timeout: float = 40, gone: Callable[[], bool] = lambda: False) -> Call:
    return Call("activate_storage", "ha", timeout, gone)


def refuse(config: StorageConfig, options: Options, report: Callable[[str], None]) -> None:
    raise BringUpRefused(storage=config.id, cause="it is so", remedy="Do this")


def slow(seconds: float) -> Work:
    def work(config: StorageConfig, options: Options, report: Callable[[str], None]) -> None:
        report("mounting the file system")
        time.sleep(seconds)

    return work


def test_a_caller_returns_when_the_job_is_done(jobs: Jobs) -> None:
    join.ensure_up(CONFIG, call())
    last = record.read("ha")
    assert last is not None
    assert last.finished is not None and last.error is None
    assert jobs.started == 1


def test_ten_callers_share_one_job(jobs: Jobs) -> None:
    jobs.work = slow(0.6)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: join.ensure_up(CONFIG, call()), range(10)))
    assert jobs.started == 1


def test_all_callers_get_the_refusal_and_so_do_later_ones_without_a_new_job(jobs: Jobs) -> None:
    def work(config: StorageConfig, options: Options, report: Callable[[str], None]) -> None:
        time.sleep(0.4)
        refuse(config, options, report)

    jobs.work = work

    def told(_: object) -> str:
        with pytest.raises(BringUpRefused) as raised:
            join.ensure_up(CONFIG, call())
        return str(raised.value)

    with ThreadPoolExecutor(5) as pool:
        answers = set(pool.map(told, range(5)))
    started = time.monotonic()
    assert answers | {told(None)} == {"Storage 'ha' is not brought up: it is so. Do this."}
    assert time.monotonic() - started < 0.3
    assert jobs.started == 1


def test_a_refusal_is_forgotten_when_drbds_state_changes(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.work = refuse
    with pytest.raises(BringUpRefused):
        join.ensure_up(CONFIG, call())
    monkeypatch.setattr(gather, "fingerprint", lambda config: "connected")
    jobs.work = slow(0)
    join.ensure_up(CONFIG, call())
    assert jobs.started == 2


def test_a_refusal_is_forgotten_after_a_while(jobs: Jobs) -> None:
    jobs.work = refuse
    with pytest.raises(BringUpRefused):
        join.ensure_up(CONFIG, call())
    last = record.read("ha")
    assert last is not None and last.finished is not None
    record.write(replace(last, finished=last.finished - join.REFUSAL_SECONDS - 1))
    jobs.work = slow(0)
    join.ensure_up(CONFIG, call())
    assert jobs.started == 2


def test_a_failure_is_not_remembered(jobs: Jobs) -> None:
    def fail(config: StorageConfig, options: Options, report: Callable[[str], None]) -> None:
        raise BringUpFailed(storage="ha", step="mounting the file system", detail="a bad day")

    jobs.work = fail
    with pytest.raises(BringUpFailed, match="a bad day"):
        join.ensure_up(CONFIG, call())
    jobs.work = slow(0)
    join.ensure_up(CONFIG, call())
    assert jobs.started == 2


def test_a_short_deadline_is_answered_in_time_and_the_job_goes_on(jobs: Jobs) -> None:
    jobs.work = slow(2.5)
    started = time.monotonic()
    with pytest.raises(StillComingUp, match=r"still coming up \(mounting the file system, \d s so far\)"):
        join.ensure_up(CONFIG, call(1.8))
    assert time.monotonic() - started < 1.8
    join.ensure_up(CONFIG, call())
    assert jobs.started == 1


def test_a_caller_that_hangs_up_leaves_the_job_alone(jobs: Jobs) -> None:
    jobs.work = slow(1)
    with pytest.raises(CallerGone):
        join.ensure_up(CONFIG, call(gone=lambda: True))
    join.ensure_up(CONFIG, call())
    assert jobs.started == 1


def test_a_job_that_was_killed_is_followed_by_another(jobs: Jobs) -> None:
    jobs.work = slow(60)
    with pytest.raises(StillComingUp):
        join.ensure_up(CONFIG, call(1))
    os.kill(jobs.pids[0], signal.SIGKILL)
    jobs.work = slow(0)
    join.ensure_up(CONFIG, call())
    assert jobs.started == 2


def test_a_job_that_never_begins_is_told(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "_start", lambda storage, held: None)
    monkeypatch.setattr(join, "_START_SECONDS", 0.3)
    with pytest.raises(BringUpFailed, match=r"did not begin to work, or ended without a word; look at .*ha\.log"):
        join.ensure_up(CONFIG, call())


def test_a_job_is_given_the_callers_storage_and_options_not_the_files(jobs: Jobs, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def work(config: StorageConfig, options: Options, report: Callable[[str], None]) -> None:
        seen.write_text(json.dumps([config.path, options.without_peer]))

    jobs.work = work
    asked = replace(CONFIG, path="/mnt/new")
    done = join.join(asked, Options(by_hand=True, without_peer=True), lambda _: None)
    assert json.loads(seen.read_text()) == ["/mnt/new", True]
    assert done.without_peer


def test_who_wants_to_go_on_without_the_peer_is_not_answered_by_a_job_that_did_not(jobs: Jobs) -> None:
    jobs.work = slow(1)
    with pytest.raises(StillComingUp):
        join.ensure_up(CONFIG, call(0.8))
    done = join.join(CONFIG, Options(without_peer=True), lambda _: None)
    assert done.without_peer
    assert jobs.started == 2


def test_who_asks_for_less_takes_nothing_back(jobs: Jobs) -> None:
    """pvestatd asks every few seconds, also between an administrator's request and the beginning of the job."""
    job.leave(job.Request(CONFIG, Options(by_hand=True, without_peer=True, wait_peer=60.0)))
    job.leave(job.Request(CONFIG, Options()))
    request = job.take_request("ha")
    assert request is not None
    assert request.options == Options(by_hand=True, without_peer=True, wait_peer=60.0)


def test_a_job_that_did_less_than_asked_is_followed_by_another(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = jobs.start

    def start(storage: str, held: int) -> None:
        if not jobs.pids:
            os.unlink(paths.request("ha"))  # somebody's job took it, and ended before it was done
        starting(storage, held)

    monkeypatch.setattr(join, "_start", start)
    assert join.join(CONFIG, Options(without_peer=True), lambda _: None).without_peer
    assert jobs.started == 2


def test_what_is_held_down_is_answered_without_a_job(jobs: Jobs) -> None:
    (Path(paths.FOLDER)).mkdir()
    Path(paths.hold("ha")).touch()
    with pytest.raises(BringUpRefused, match="an administrator took it down"):
        join.ensure_up(CONFIG, call())
    assert jobs.started == 0


def test_a_copy_that_is_being_discarded_stays_down(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also after a reboot, and also when an administrator has said 'mirror down' besides."""
    monkeypatch.setattr(paths, "RESOLUTIONS", str(tmp_path))
    journal = Journal("ha", "pve1", "pve2", 0.0, 16, 32, None, Preserve.FILES, "/aside/ha-split")
    split_journal.write(journal)
    with pytest.raises(BringUpRefused, match="its split brain is being resolved"):
        join.ensure_up(CONFIG, call())
    assert jobs.started == 0 and gather.gather(CONFIG).resolving
    split_journal.put_away(journal)
    assert not gather.gather(CONFIG).resolving


def test_an_old_request_is_not_carried_out(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job.leave(job.Request(CONFIG, Options(without_peer=True)))
    later = boot_clock() + 61
    monkeypatch.setattr(job, "boot_clock", lambda: later)
    assert job.take_request("ha") is None
    assert not Path(paths.request("ha")).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": {"id": "ha"}, "options": {}, "time": 1e9}', "\0"])
def test_a_request_that_is_none_is_not_carried_out(jobs: Jobs, text: str) -> None:
    Path(paths.FOLDER).mkdir()
    Path(paths.request("ha")).write_text(text)
    assert job.take_request("ha") is None


def test_a_second_job_leaves_the_first_alone(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_OTHER_JOB_SECONDS", 0.1)
    held = lock.take("ha")
    assert held is not None
    assert job.is_running("ha")
    assert job.run("ha", lambda: CONFIG, Options(), work=lambda *_: pytest.fail("two jobs at once")) is None
    os.close(held)
    assert not job.is_running("ha")


def test_a_lock_of_something_else_is_not_adopted(jobs: Jobs, tmp_path: Path) -> None:
    held = lock.take("ha")
    assert held is not None
    with (tmp_path / "other").open("w") as other, pytest.raises(OSError, match="is not the lock of storage 'ha'"):
        lock.adopt("ha", other.fileno())
    os.close(held)


@pytest.mark.parametrize(
    "error", [BringUpRefused(storage="ha", cause="x", remedy="Y"), StillComingUp(storage="ha", step="s", seconds=3)]
)
def test_an_error_comes_out_of_the_record_as_it_went_in(error: Error) -> None:
    told = Record("ha", 1, 0.0, "s", 0.0, finished=1.0, error=record.describe(error, "ha"))
    with pytest.raises(type(error)) as raised:
        told.raise_error()
    assert str(raised.value) == str(error)


def test_a_bug_in_the_job_comes_out_as_one() -> None:
    told = Record("ha", 1, 0.0, "s", 0.0, finished=1.0, error=record.describe(ZeroDivisionError("oh"), "ha"))
    with pytest.raises(InternalError, match="ZeroDivisionError: oh"):
        told.raise_error()


@pytest.mark.parametrize("text", ["", "[1]", '{"storage": "ha", "odd": 1}', "\udc80"])
def test_a_record_of_another_version_is_no_record(jobs: Jobs, text: str) -> None:
    Path(paths.FOLDER).mkdir()
    Path(paths.state("ha")).write_text(text, errors="surrogateescape")
    assert record.read("ha") is None
