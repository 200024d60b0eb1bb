"""One comparison as the command line runs it: what is kept when it is interrupted, and what is refused before it begins."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor import command, native, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotAnswering, VerifyRefused
from pvedrbdstor.mirror import mount
from pvedrbdstor.verify import asked, job, kernel, plan, resume
from pvedrbdstor.verify.allocation import Places
from pvedrbdstor.verify.job import Asked, Watcher
from pvedrbdstor.verify.pair import Interrupted
from pvedrbdstor.verify.plan import Mode
from pvedrbdstor.verify.report import Outcome
from pvedrbdstor.verify.state import NodeState
from tests.verify.world import REPOSITORY, FileCopy, far, tell

SIZE = 16 << 20
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")


class Local(FileCopy):
    """Node a's copy, with what the job asks beside."""

    def __init__(self, storage: StorageConfig, folder: Path) -> None:
        super().__init__("a", folder)
        self.storage, self.minor = storage, 0

    def check(self) -> NodeState:
        return self.state()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(plan, "SLICE_BYTES", 1 << 20)
    monkeypatch.setattr(resume, "FOLDER", str(tmp_path / "kept"))
    monkeypatch.setattr(job, "LocalCopy", lambda config, verifying: Local(config, tmp_path))
    monkeypatch.setattr(job, "other_node", lambda config, own: "b")
    monkeypatch.setattr(nodes, "line", lambda node, words, alive: far(tmp_path))
    data = random.Random(1).randbytes(SIZE)
    for node in "ab":
        (tmp_path / f"{node}.img").write_bytes(data)
    yield tmp_path


def differ(folder: Path, block: int) -> None:
    with (folder / "b.img").open("r+b") as file:
        file.seek(block * 4096)
        file.write(b"other")


def run(asked: Asked, stop: Callable[[], bool] = lambda: False) -> tuple[Outcome, bool]:
    return job.run(CONFIG, asked, Watcher(stop=stop))


def test_a_comparison_that_comes_to_its_end_leaves_nothing(folder: Path) -> None:
    outcome, interrupted = run(Asked(Mode.FULL))
    assert (outcome.verdict, outcome.compared, interrupted) == ("clean", SIZE, False)
    job.told(outcome)
    assert not Path(resume.path("ha")).exists()


def test_what_was_interrupted_is_gone_on_with_and_looked_at_anew(folder: Path) -> None:
    differ(folder, 0)
    differ(folder, 4000)
    tell(folder, "b", slow=0.1)
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 30

    outcome, interrupted = run(Asked(Mode.FULL), stop)
    assert interrupted and outcome.verdict == "stopped" and outcome.resumable
    kept = resume.read("ha")
    assert kept is not None and 0 < kept.at < SIZE and kept.mode == "full"
    tell(folder, "b")
    outcome, _ = run(Asked(resume=True))
    assert outcome.diverged == ((0, 4096), (4000 * 4096, 4096)) and outcome.compared == SIZE
    job.told(outcome)
    with pytest.raises(VerifyRefused, match="no comparison of it was interrupted"):
        run(Asked(resume=True))


def test_what_ends_without_a_word_can_be_gone_on_with_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a power cut: nothing but what was written on the way is there."""
    monkeypatch.setattr(job, "_KEEP_SECONDS", 0.0)
    differ(folder, 0)
    kept: list[resume.Saved] = []

    def progress(done: int, total: int) -> None:
        found = resume.read("ha")
        assert found is not None and (found.at, found.compared) == (done, done)
        kept.append(found)

    job.run(CONFIG, Asked(Mode.FULL), Watcher(progress=progress))
    resume.write(kept[len(kept) // 2])
    outcome, _ = run(Asked(resume=True))
    assert outcome.diverged == ((0, 4096),) and outcome.compared == SIZE


def test_what_was_found_is_kept_until_it_is_told(folder: Path) -> None:
    """It ended in the moment before its report was out."""
    differ(folder, 7)
    first, _ = run(Asked(Mode.FULL))
    again, _ = run(Asked(resume=True))
    assert first.diverged == again.diverged == ((7 * 4096, 4096),) and not again.resumable
    assert (again.verdict, again.compared, again.began) == ("diverged", SIZE, first.began)


def test_what_kept_changing_is_not_forgotten_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    differ(folder, 7)
    monkeypatch.setattr("pvedrbdstor.verify.lead.states.still", lambda *_: False)
    monkeypatch.setattr("pvedrbdstor.verify.lead.pauses", lambda _: [0.01])
    assert run(Asked(Mode.FULL))[0].verdict == "unsettled"
    assert run(Asked(resume=True))[0].verdict == "unsettled"


def test_it_is_not_kept_at_each_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[resume.Saved] = []
    monkeypatch.setattr(resume, "write", written.append)
    calls: list[int] = []
    run(Asked(Mode.FULL), lambda: calls.append(1) or len(calls) > 30)  # type: ignore[func-returns-value]
    assert len(written) == 1


def test_where_nothing_can_be_kept_what_was_found_is_told_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    monkeypatch.setattr(resume, "write", full)
    tell(folder, "b", state={"disk": "Diskless"})
    outcome, _ = job.run(CONFIG, Asked(Mode.FULL), Watcher(say=said.append))
    assert "b is Diskless" in (outcome.stopped or "") and not outcome.resumable
    assert "--resume will not work" in said[-1]


def test_what_is_stopped_by_a_state_is_kept_too(folder: Path) -> None:
    tell(folder, "b", state={"disk": "Diskless"})
    outcome, interrupted = run(Asked(Mode.FULL))
    assert not interrupted and "b is Diskless" in (outcome.stopped or "") and outcome.resumable
    assert resume.read("ha") is not None


def test_a_comparison_of_another_file_system_is_not_gone_on_with(folder: Path) -> None:
    tell(folder, "b", state={"disk": "Diskless"})
    run(Asked(Mode.FULL))
    tell(folder, "a", hello={"uuid": "F" * 32})
    with pytest.raises(VerifyRefused, match="it was of the file system 0123"):
        run(Asked(resume=True))


def test_a_sample_says_what_it_would_have_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "one_byte_of_each", lambda config, dice: Places((4000 * 4096 + 5,)))
    differ(folder, 4000)
    outcome, _ = run(Asked(Mode.SAMPLE, fraction=0.05))
    assert outcome.diverged == ((4000 * 4096, 4096),) and outcome.surely and 13 * 65536 <= outcome.compared < SIZE // 8


def test_only_what_is_allocated_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "in_use", lambda config, device: [(0, 100_000), (8 << 20, 65536)])
    differ(folder, 1)
    differ(folder, 4000)
    outcome, _ = run(Asked(Mode.ALLOCATED))
    assert outcome.diverged == ((4096, 4096),) and outcome.compared == 3 * 65536


def test_files_that_the_sample_could_not_look_into_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(job, "one_byte_of_each", lambda config, dice: Places((5,), failed=3))
    outcome, _ = job.run(CONFIG, Asked(Mode.SAMPLE), Watcher(say=said.append))
    assert outcome.verdict == "clean"
    assert [text for text in said if text.startswith("3 files or folders could not be looked into")]


@pytest.mark.parametrize(("mode", "hangs"), [(Mode.SAMPLE, "fiemap"), (Mode.ALLOCATED, "fstatfs")])
def test_a_file_system_that_hangs_is_told_and_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, hangs: str
) -> None:
    """On OCFS2 these wait for the cluster's lock, and no signal ends that: it must not be this process that does."""
    (folder / "files").mkdir()
    (folder / "files" / "disk.raw").write_bytes(b"data")

    def opened(config: StorageConfig) -> SimpleNamespace:
        return SimpleNamespace(root_fd=os.open(folder / "files", os.O_RDONLY | os.O_DIRECTORY))

    own = os.getpid()

    def hanging(*_: object, **__: object) -> None:
        assert os.getpid() != own, "the process that leads would hang"
        time.sleep(20)

    monkeypatch.setattr(mount, "open_mirror", opened)
    monkeypatch.setattr(native, hangs, hanging)
    for function in (asked.in_use, asked.one_byte_of_each):
        monkeypatch.setattr(job, function.__name__, partial(function, seconds=0.3))
    with pytest.raises(NotAnswering):
        run(Asked(mode))


def test_what_the_kernel_finds_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    differ(folder, 7)
    found = kernel.Found(((4096, 8192), (7 * 4096, 4096)), False, ("DRBD said so.",))
    monkeypatch.setattr(kernel, "follow", lambda *_: found)
    outcome, _ = run(Asked(Mode.KERNEL))
    assert outcome.diverged == ((7 * 4096, 4096),) and outcome.compared == SIZE and outcome.remarks == found.remarks


def test_a_list_of_the_kernel_that_is_not_whole_proves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "follow", lambda *_: kernel.Found((), True, ()))
    outcome, _ = run(Asked(Mode.KERNEL))
    assert outcome.exit_status == 2 and outcome.verdict == "unsettled"


def test_what_was_left_out_is_not_forgotten_by_resuming(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's log was cut: nothing that is looked at afterwards makes the copies equal."""
    found = kernel.Found(((4096, 8192),), True, ("The kernel's log was too long.",))
    monkeypatch.setattr(kernel, "follow", lambda *_: found)
    tell(folder, "b", state={"disk": "Diskless"})
    outcome, _ = run(Asked(Mode.KERNEL))
    assert outcome.resumable and not outcome.resumed
    tell(folder, "b")
    outcome, _ = run(Asked(resume=True))
    assert (outcome.verdict, outcome.exit_status, outcome.much) == ("unsettled", 2, True)
    assert outcome.remarks == found.remarks and outcome.resumed


def test_suspects_that_were_too_many_are_not_forgotten_by_resuming(folder: Path) -> None:
    differ(folder, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pvedrbdstor.verify.lead.OPEN_MAX", 0)
        assert run(Asked(Mode.FULL))[0].much
    assert run(Asked(resume=True))[0].much


def test_a_comparison_from_before_a_resync_is_not_gone_on_with(folder: Path) -> None:
    tell(folder, "b", state={"disk": "Diskless"})
    run(Asked(Mode.FULL))
    for node in "ab":
        tell(folder, node, hello={"generation": "00000000000000AC"})
    with pytest.raises(VerifyRefused, match="DRBD called the data 00000000000000AA then"):
        run(Asked(resume=True))


def test_drbds_own_verify_goes_on_after_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> kernel.Found:
        raise Interrupted

    monkeypatch.setattr(kernel, "follow", stopped)
    outcome, interrupted = run(Asked(Mode.KERNEL))
    assert interrupted and "goes on by itself" in (outcome.stopped or "") and not outcome.resumable
    assert "do not disconnect while both nodes are Primary" in (outcome.stopped or "")


def test_two_at_a_time_are_refused(folder: Path) -> None:
    refused: list[str] = []

    def stop() -> bool:
        if not refused:
            with pytest.raises(VerifyRefused) as raised:
                run(Asked(Mode.FULL))
            refused.append(raised.value.message)
        return False

    outcome, _ = run(Asked(Mode.FULL), stop)
    assert outcome.verdict == "clean" and "another 'pvedrbdstor verify ha' runs on this node" in refused[0]


@pytest.mark.parametrize(
    ("dump", "told"),
    [
        ("resource r0 { on a { } }", "names no host beside a"),
        ("resource r0 { on a { } on b { } on c { } }", "names b, c"),
        ("", "names no host"),
    ],
)
def test_a_mirror_of_other_than_two_nodes_is_refused(monkeypatch: pytest.MonkeyPatch, dump: str, told: str) -> None:
    monkeypatch.setattr(command, "run", lambda *_, **__: command.Result(0, dump, ""))
    with pytest.raises(VerifyRefused, match=told):
        job.other_node(CONFIG, "a")
