"""The write path checked on two played nodes with a real file system: what is wrong is told, and no file is left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.verify import remote
from pvedrbdstor.verify.write_path import lead, pattern, side
from pvedrbdstor.verify.write_path.engines import MODES, Mode, Result
from pvedrbdstor.verify.write_path.facts import Outcome, Why
from pvedrbdstor.volumes.recovery import recover
from pvedrbdstor.volumes.store import Store
from tests.loopback import Loopback
from tests.verify.write_path_world import GUESTS, started

BLOCKS = 24
THREADS = Mode("threads", "none")


@pytest.fixture
def check(reflink_fs: Loopback, reflink_dir: Path) -> Callable[..., Outcome]:
    """Run it; whatever comes out of it, nothing is left in work/."""
    (reflink_dir / GUESTS).mkdir()

    def run(modes: tuple[Mode, ...] = (THREADS,), blocks: int = BLOCKS) -> Outcome:
        stack, here, there = started(reflink_dir, reflink_fs.device)
        try:
            with stack:
                return lead.check("ha", here, there, blocks, modes)
        finally:
            assert os.listdir(reflink_dir / ".drbdocfs2/work") == []

    return run


def tell(folder: Path, node: str, **words: object) -> None:
    (folder / f"{node}.json").write_text(json.dumps(words))


def test_what_is_written_is_on_the_other_disk_and_reads_as_it_was_written(check: Callable[..., Outcome]) -> None:
    outcome = check()
    assert outcome.verdict == "ok" and outcome.exit_status == 0, outcome
    assert [(direction.writer, direction.reader) for direction in outcome.directions] == [("a", "b"), ("b", "a")]
    for direction in outcome.directions:
        assert direction.at_first_look and len(direction.seen) == BLOCKS
        assert all(seen.latency > 0 and seen.lag > 0 for seen in direction.seen)


def test_every_mode_of_qemu_is_tried_on_both_nodes(check: Callable[..., Outcome]) -> None:
    outcome = check(MODES)
    assert [(tried.node, tried.mode) for tried in outcome.modes] == [(node, mode) for node in "ab" for mode in MODES]
    for tried in outcome.modes:  # what runs these tests may refuse io_uring
        assert tried.result is Result.OK or (tried.mode.aio == "io_uring" and tried.result is Result.UNSUPPORTED), tried


def test_the_largest_probe_and_qemus_file_are_two(check: Callable[..., Outcome]) -> None:
    assert check(blocks=pattern.BLOCKS_MAX).verdict == "ok"


def test_a_disk_that_has_nothing_of_it_is_told(
    check: Callable[..., Outcome], reflink_dir: Path, loop_device: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below b lies another disk than the one that a writes to: DRBD would have to copy, and does not."""
    monkeypatch.setattr(lead, "LATE_SECONDS", 0.01)
    tell(reflink_dir, "b", lower=loop_device(1024))
    outcome = check(blocks=4)
    assert outcome.verdict == "mismatch" and outcome.exit_status == 1
    assert [direction.missing for direction in outcome.directions] == [4, 0]
    assert [direction.changed for direction in outcome.directions] == [0, 0]


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_disk_that_went_away_meanwhile_is_no_fault_of_the_write_path(
    check: Callable[..., Outcome],
    reflink_dir: Path,
    loop_device: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    node: str,
) -> None:
    monkeypatch.setattr(lead, "LATE_SECONDS", 0.01)
    tell(reflink_dir, "a", looks=1 if node == "a" else 9)
    tell(reflink_dir, "b", lower=loop_device(1024), looks=1 if node == "b" else 9)
    with pytest.raises(WritePathUnchecked, match=f"{node} is Diskless"):
        check(blocks=2)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"uuid": "F" * 32}, "no copies of one mirror"),
        ({"version": 99}, "do not understand one another"),
        ({"node": "a"}, "reached itself"),
        ({"size": "much"}, "does not tell who it is"),
    ],
)
def test_a_node_that_is_not_the_other_copy_is_refused(
    check: Callable[..., Outcome], reflink_dir: Path, hello: dict[str, object], reason: str
) -> None:
    (reflink_dir / ".drbdocfs2/work").mkdir(parents=True)
    tell(reflink_dir, "b", hello=hello)
    with pytest.raises(WritePathUnchecked, match=reason):
        check()


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_node_that_hangs_is_not_waited_for(
    check: Callable[..., Outcome], reflink_dir: Path, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead, "_MAKE_SECONDS", 0.5)
    monkeypatch.setattr(side, "_END_SECONDS", 0.1)
    monkeypatch.setattr(remote, "_END_SECONDS", 0.1)
    (reflink_dir / ".drbdocfs2/work").mkdir(parents=True)
    tell(reflink_dir, node, hang="prepare")
    if node == "a":
        with pytest.raises(WritePathUnchecked, match="a did not answer within 0 s"):
            check()
    else:
        outcome = check()
        assert outcome.verdict == "incomplete" and outcome.exit_status == 2
        assert outcome.directions[0].good and "b did not answer" in outcome.unchecked[0]
        assert outcome.seconds < side.ANSWER_SECONDS / 2, "it is not asked for anything else"


def test_what_a_killed_node_leaves_behind_is_a_leftover_for_recovery(reflink_fs: Loopback, reflink_dir: Path) -> None:
    tell(reflink_dir, "b", die="write")
    stack, here, there = started(reflink_dir, reflink_fs.device)
    with stack:
        outcome = lead.check("ha", here, there, BLOCKS, ())
    assert "b does not answer" in outcome.unchecked[0]
    left = os.listdir(reflink_dir / ".drbdocfs2/work")
    assert len(left) == 1
    with Store(StorageConfig("ha", str(reflink_dir), "r0"), os.open(reflink_dir, os.O_RDONLY)) as store:
        call = Call("recover", "ha")
        assert recover(store, call)["removed"] == 1
        call.run_after()
    assert os.listdir(reflink_dir / ".drbdocfs2/work") == []


def test_recovery_leaves_a_probe_alone_that_is_in_use(reflink_fs: Loopback, reflink_dir: Path) -> None:
    stack, here, _ = started(reflink_dir, reflink_fs.device)
    with stack:
        here.ask("hello")
        name = here.ask("prepare", blocks=2)["name"]
        with Store(StorageConfig("ha", str(reflink_dir), "r0"), os.open(reflink_dir, os.O_RDONLY)) as store:
            assert recover(store, Call("recover", "ha"))["removed"] == 0
        assert os.listdir(reflink_dir / ".drbdocfs2/work") == [name]
        here.ask("write", index=0)


def test_the_guests_at_risk_are_named(check: Callable[..., Outcome], reflink_dir: Path) -> None:
    folder = reflink_dir / GUESTS / "a" / "qemu-server"
    folder.mkdir(parents=True)
    for vmid in range(100, 150):  # more than one answer has room for
        (folder / f"{vmid}.conf").write_text(f"scsi0: ha:{vmid}/disk.raw,cache=writeback\nscsi1: ha:{vmid}/b.raw\n")
    outcome = check()
    assert outcome.guests == 100
    (risk,) = outcome.risks
    assert risk.why is Why.FLUSHES and [drive.key for drive in risk.drives] == ["scsi1"] * 50
    assert outcome.verdict == "ok"


def test_without_the_guests_configurations_the_rest_is_checked(
    check: Callable[..., Outcome], reflink_dir: Path
) -> None:
    (reflink_dir / GUESTS).rmdir()
    outcome = check()
    assert outcome.guests is None and outcome.exit_status == 2 and outcome.directions[1].good
    assert "guests' configurations" in outcome.unchecked[0]


@pytest.mark.parametrize(
    "words",
    [
        {"do": "read", "name": "../../a.json", "blocks": 1},
        {"do": "read", "name": "new.100.0123456789abcdef", "blocks": 1},
        {"do": "write", "index": 0},
        {"do": "prepare", "blocks": pattern.BLOCKS_MAX + 1},
        {"do": "engine", "aio": "native", "cache": "writeback"},
        {"do": "engine", "aio": "threads", "cache": "none,file.filename=/etc/passwd"},
        {"do": "else"},
        {},
    ],
)
def test_what_is_no_question_is_refused_and_the_next_one_answered(
    reflink_fs: Loopback, reflink_dir: Path, words: dict[str, object]
) -> None:
    work = reflink_dir / ".drbdocfs2/work"
    work.mkdir(parents=True)
    for file in (
        work / "new.100.0123456789abcdef",
        reflink_dir / "a.json",
    ):  # files that are there, and none of its business
        file.write_text("{}" * 2048)
    stack, _, there = started(reflink_dir, reflink_fs.device)
    with stack:
        there.ask("hello")
        with pytest.raises(WritePathUnchecked):
            there.ask(str(words.get("do")), **{name: value for name, value in words.items() if name != "do"})
        assert there.ask("prepare", blocks=1)["name"]


def test_another_program_at_the_other_end_is_told(reflink_dir: Path) -> None:
    for argv, reason in (
        (["sh", "-c", "echo 'Permission denied (publickey).' >&2; exit 255"], "Permission denied"),
        (["sh", "-c", "head -c 1 >/dev/null; echo Welcome to Proxmox VE; sleep 1"], "does not keep to the protocol"),
        (["/nonexistent"], "could not be started"),
    ):
        with pytest.raises(WritePathUnchecked, match=reason), side.There("b", "ha", argv) as there:
            there.ask("hello", seconds=5)
