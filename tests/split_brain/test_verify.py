"""Which parts are compared, and what comes of a difference; DRBD is played."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import SplitStepFailed
from pvedrbdstor.fencing.split import verify
from pvedrbdstor.fencing.split.resync import Witness
from pvedrbdstor.fencing.split.verify import parts
from pvedrbdstor.mirror.facts import Drbd, Peer
from tests.split_brain import world

MIB = 1 << 20
SIZE = 100 * MIB + 4096
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
JOURNAL = replace(world.JOURNAL, target="/aside", ranges=((4096, 4096), (50 * MIB, 4096)))


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * MIB)), max_size=60), st.integers(1, 5))
def test_every_range_is_covered_by_few_parts_in_order(ranges: list[tuple[int, int]], most: int) -> None:
    found = parts(ranges, SIZE, most)
    assert len(found) <= most
    assert all(start < end <= SIZE for start, end in found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
    for start, length in ranges:
        end = min(start + length, SIZE)
        assert any(first <= start and end <= last for first, last in found)


class Tools:
    """found: what each verify of all ranges finds, in KiB. resync: what replication goes through after a reconnect, and how many KiB
    are marked then. Time goes on by a second with each look."""

    def __init__(self, found: list[int], algorithm: str = "verify-alg crc32c;") -> None:
        self.lines: list[list[str]] = []
        self.found = found
        self.algorithm = algorithm
        self.resync: list[tuple[str, int]] = [("SyncTarget", 4), ("Established", 0)]
        self.running: list[tuple[str, int]] = []
        self.marked = 0
        self.witness = Witness("r0", 0)
        self.followed = True
        self.now = 0.0

    def run(self, argv: list[str], **_: object) -> command.Result:
        if argv[:2] == ["drbdadm", "dump"]:
            return command.Result(0, f"common {{ net {{ {self.algorithm} }} }} resource r0 {{ }}", "")
        self.lines.append(argv)
        if argv[:2] == ["drbdadm", "connect"]:
            self.found.pop(0)
            self.running = list(self.resync)
        if argv[:2] == ["drbdsetup", "verify"]:
            self.marked += self.found[0] - self.marked
        return command.Result(0, "", "")

    def state(self, *_: object) -> tuple[Drbd, int, int]:
        replication = "Established"
        if self.running:
            replication, self.marked = self.running[0]
            if len(self.running) > 1:
                self.running.pop(0)
        connection = "Connecting" if replication == "Off" else "Connected"
        peer = Peer(0, "peer", connection, "Primary", replication, "UpToDate", out_of_sync=self.marked)
        return Drbd("Secondary", "UpToDate", frozenset(), False, None, False, (peer,)), 0, SIZE

    def __enter__(self) -> Tools:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def look(self) -> bool:
        self.now += 1
        if self.running:
            self.witness.replications.append(self.running[0][0])
        return self.followed

    def verified(self, *_: object) -> Drbd:
        self.running = []
        return self.state()[0]


def compare(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(command, "run", tools.run)
    monkeypatch.setattr(verify, "_state", tools.state)
    monkeypatch.setattr(verify, "_verified", tools.verified)
    monkeypatch.setattr(verify, "Watch", lambda config: tools)
    monkeypatch.setattr(verify.time, "monotonic", lambda: tools.now)
    monkeypatch.setattr(verify.time, "sleep", lambda seconds: None)
    verify.compare(CONFIG, JOURNAL, said.append)
    return said


def test_equal_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools([0])
    assert compare(tools, monkeypatch) == []
    assert [line[3:] for line in tools.lines] == [
        ["--start=0s", "--stop=2048s"],
        ["--start=102400s", "--stop=104448s"],
    ]


def test_what_was_just_written_is_copied_and_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools([4, 0])
    assert "compared again" in compare(tools, monkeypatch)[0]
    assert ["drbdadm", "connect", "r0"] in tools.lines and len(tools.lines) == 6


def test_disks_that_stay_different_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SplitStepFailed, match="8 KiB differ"):
        compare(Tools([4, 8]), monkeypatch)


@pytest.mark.parametrize(
    ("resync", "words"),
    [
        ([("Established", 4)], "nothing says that DRBD has copied them"),
        ([("Established", 0)], "nothing says that DRBD has copied them"),
        ([("SyncTarget", 4), ("Established", 4)], "nothing says that DRBD has copied them"),
        ([("SyncSource", 4), ("Established", 0)], "not the other way"),
        ([("SyncTarget", 4)], "stands still: 4 KiB are left"),
        ([("PausedSyncT", 4)], "stands still"),
        ([("Off", 4)], "did not connect again"),
    ],
)
def test_a_second_comparison_counts_only_after_a_resync_that_was_seen(
    monkeypatch: pytest.MonkeyPatch, resync: list[tuple[str, int]], words: str
) -> None:
    tools = Tools([4, 0])
    tools.resync = resync
    with pytest.raises(SplitStepFailed, match=words):
        compare(tools, monkeypatch)


def test_without_drbds_events_nothing_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools([4, 0])
    tools.followed = False
    tools.resync = [("WFBitMapT", 4)]
    with pytest.raises(SplitStepFailed, match="nothing says"):
        compare(tools, monkeypatch)


def test_without_an_algorithm_it_says_that_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools([0], algorithm="protocol C;")
    assert "were not compared" in compare(tools, monkeypatch)[0]
    assert tools.lines == []
