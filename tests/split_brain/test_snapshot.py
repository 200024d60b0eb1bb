"""The snapshot of the side to lose: whether it still holds, and will hold, what it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import SplitRefused, SplitStepFailed
from pvedrbdstor.fencing.split import hands, lvm, snapshot
from pvedrbdstor.fencing.split.plan import Situation
from pvedrbdstor.fencing.split.steps import Preserve, Step
from tests.split_brain import world

GIB = 1 << 30
SIZE = 100 * GIB
DEVICE, TARGET = "/dev/pve/r0", "pve/r0-split-T"
WHOLE = replace(world.JOURNAL, preserve=Preserve.SNAPSHOT, target=TARGET, size=lvm.full_snapshot(SIZE))
SMALL, THIN = replace(WHOLE, size=10 * GIB), replace(WHOLE, size=0)
SCATTERED = tuple((number * (1 << 20), 4096) for number in range(64 * 1024))
"""256 MiB of 64 GiB, a block in each MiB."""


class Lvm:
    """What lvs says: of the snapshot (None: lvs hangs), of the device, of the pool; and every other command line it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.snapshot: str | None = "swi-a-s---;r0;0.00;"
        self.pool = f"{200 * GIB};25.00;10.00;;65536"
        self.kind, self.group_free = "linear;", 200 * GIB
        self.lines: list[list[str]] = []
        monkeypatch.setattr(command, "run", self)

    def __call__(self, line: list[str], **_: object) -> command.Result:
        match line:
            case ["lvs", *_, "lv_attr,origin,data_percent,lv_health_status", _]:
                if self.snapshot is None:
                    raise command.CommandTimeout(command="lvs", seconds=1)
                return command.Result(0 if self.snapshot else 5, self.snapshot, "")
            case ["lvs", *_, "pve/data"]:
                return command.Result(0, self.pool, "")
            case ["lvs", *_, str()]:
                return command.Result(0, f"pve;r0;{SIZE};{self.group_free};{self.kind}", "")
        self.lines.append(line)
        return command.Result(0, "", "")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Lvm:
    return Lvm(monkeypatch)


@pytest.mark.parametrize(
    ("answer", "threatened", "lost"),
    [
        ("swi-a-s---;r0;12.5;", False, False),
        ("swi-a-s---;r0;80.00;", True, False),
        ("swi-a-s---;r0;100.00;", False, True),
        ("swi-I-s---;r0;;", False, True),
        ("", False, True),
        (None, False, False),  # nobody knows
    ],
)
def test_one_that_fills_is_noticed_before_it_is_lost(
    fake: Lvm, answer: str | None, threatened: bool, lost: bool
) -> None:
    fake.snapshot = answer
    assert (snapshot.danger(SMALL, DEVICE, SIZE) is not None) is threatened
    assert snapshot.is_lost(TARGET) is lost
    assert snapshot.danger(WHOLE, DEVICE, SIZE) is None  # as large as its origin: it may fill up


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (f"{200 * GIB};99.00;10.00;;65536", None),
        (f"{200 * GIB};99.80;10.00;;65536", "0.4 GiB left"),
        (f"{200 * GIB};50.00;91.00;;65536", "91 % of its metadata"),
        (f"{200 * GIB};50.00;10.00;out_of_data;65536", "not healthy"),
    ],
)
def test_a_thin_pool_that_fills_is_noticed_as_well(fake: Lvm, pool: str, said: str | None) -> None:
    fake.snapshot, fake.kind, fake.pool = "Vwi---tz-k;r0;;", "thin;data", pool
    found = snapshot.danger(THIN, DEVICE, SIZE)
    assert found is None if said is None else found is not None and said in found and "pve/data" in found


def test_blocks_count_as_the_chunks_they_lie_in() -> None:
    assert lvm.in_chunks(SCATTERED, 4096) == 256 << 20
    assert lvm.in_chunks(SCATTERED, 1 << 16) == 4 * GIB
    assert lvm.in_chunks(SCATTERED, 1 << 20) == 64 * GIB
    assert lvm.in_chunks([(4095, 2)], 4096) == 8192 and lvm.in_chunks((), 4096) == 0
    pool = lvm.parse_pool(f"{10 * GIB};0.00;1.00;;{1 << 20}")
    assert pool is not None
    volume = lvm.Volume("pve", "r0", SIZE, 0, "data", pool)
    assert "up to 64.0 GiB" in (lvm.thin_unfit(volume, SCATTERED, hints=True) or "")


def test_whether_it_holds_what_the_other_node_has_written_by_now(fake: Lvm) -> None:
    fake.snapshot = "swi-a-s---;r0;50.00;"
    five = ((0, 4 * GIB),)
    assert snapshot.too_small(SMALL, DEVICE, SIZE, five, hints=True) is None
    more = snapshot.too_small(SMALL, DEVICE, SIZE, ((0, 5 * GIB),), hints=True)
    assert more is not None and "5 GiB left" in more and "6 GiB" in more
    assert "nobody knows" in (snapshot.too_small(SMALL, DEVICE, SIZE, (), hints=False) or "")
    assert snapshot.too_small(WHOLE, DEVICE, SIZE, ((0, SIZE),), hints=False) is None
    fake.kind, fake.pool = "thin;data", f"{200 * GIB};99.50;10.00;;65536"
    assert "thin pool" in (snapshot.too_small(THIN, DEVICE, SIZE, ((0, 4096),), hints=True) or "")


def test_how_long_it_lasts_is_told(fake: Lvm) -> None:
    fake.snapshot = "swi-a-s---;r0;25.00;"
    assert "LOST once 7.5 GiB more" in snapshot.outlook(SMALL, SIZE)
    assert "LOST" not in snapshot.outlook(WHOLE, SIZE) and "slows" in snapshot.outlook(WHOLE, SIZE)
    assert "thin pool fills" in snapshot.outlook(THIN, SIZE)
    fake.snapshot = None
    assert "LOST once its room more" in snapshot.outlook(SMALL, SIZE)


def test_a_second_one_for_which_there_is_no_room_says_what_can_be_removed(fake: Lvm) -> None:
    fake.snapshot, fake.group_free = "", 50 * GIB
    with pytest.raises(SplitRefused, match=r"50 GiB free.*pve/r0-split-S.*--start-over --preserve-to"):
        snapshot.make(replace(WHOLE, given_up=("pve/r0-split-S",)), DEVICE)
    assert not fake.lines


def resyncing(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> hands.NodeHands:
    monkeypatch.setattr(hands, "lower_device", lambda config: DEVICE)
    monkeypatch.setattr(hands.preserve, "device_size", lambda device: SIZE)
    made = hands.NodeHands(StorageConfig("ha", "/mnt/pve/ha", "r0"), said.append)
    monkeypatch.setattr(made, "_looked_at", -100.0)
    return made


def test_a_resync_is_paused_for_one_that_fills(fake: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.snapshot = "swi-a-s---;r0;85.00;"
    with pytest.raises(SplitStepFailed, match="resume-sync r0"):
        resyncing(monkeypatch, []).wait(Step.RESYNC, SMALL, Situation(out_of_sync=1))
    assert fake.lines == [["drbdadm", "pause-sync", "r0"]]


def test_a_resync_is_not_paused_for_one_that_is_lost_already(fake: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would help nobody: what is overwritten in part is of no use, and the other node's copy is whole."""
    said: list[str] = []
    fake.snapshot = "swi-I-s---;r0;;"
    at_work = resyncing(monkeypatch, said)
    for _ in range(2):
        at_work.wait(Step.RESYNC, SMALL, Situation(out_of_sync=1))
        monkeypatch.setattr(at_work, "_looked_at", -100.0)
    assert fake.lines == [] and len(said) == 1 and "IS LOST" in said[0]
