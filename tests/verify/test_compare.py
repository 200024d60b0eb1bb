"""Two copies compared by two processes: every difference found and no other, and every end told with its reason."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.errors import VerifyRefused, VerifyStopped
from pvedrbdstor.mirror import readers
from pvedrbdstor.verify import lead, pair, plan, remote, settle, wire
from pvedrbdstor.verify.lead import UNIT, Findings, Leader
from pvedrbdstor.verify.link import Link
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.pair import Interrupted, Pair
from pvedrbdstor.verify.plan import Plan
from pvedrbdstor.verify.settle import Settling, Verdict
from tests.verify.world import REPOSITORY, FileCopy, far, tell

SIZE = (12 << 20) + 4096


class Busy(FileCopy):
    """A copy that somebody writes to before each digest of it."""

    def __init__(self, node: str, folder: Path, write: Callable[[], None]) -> None:
        super().__init__(node, folder)
        self._write = write

    def digest(self, asked: wire.Request) -> wire.Answer:
        self._write()
        return super().digest(asked)


@dataclass
class Nodes:
    """A folder with a.img, which leads, and b.img. busy: called before each look of the leader at its own copy."""

    folder: Path
    findings: Findings = field(default_factory=lambda: Findings(settling=Settling(0.5)))
    said: list[str] = field(default_factory=list)
    stop: Callable[[], bool] = lambda: False
    argv: list[str] = field(default_factory=list)
    busy: Callable[[], None] = lambda: None
    pace: Pace = field(default_factory=Pace)

    def write(self, node: str, block: int, content: bytes = b"other") -> None:
        with (self.folder / f"{node}.img").open("r+b") as file:
            file.seek(block * UNIT)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def compare(
        self, granularity: int = 65536, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Settling:
        with Busy("a", self.folder, self.busy) as here, Link(self.argv or far(self.folder), "ha", "b") as there:
            there.greet(here.hello)
            with Pair(here, there, here.hello, "ha", self.stop) as both:
                Leader(both, Plan(SIZE, granularity), self.findings, self.pace, progress, self.said.append).run()
        return self.findings.settling

    def gone(self) -> bool:
        """Whether the other process has ended."""
        pid = int((self.folder / "b.pid").read_text())
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(plan, "SLICE_BYTES", 1 << 20)
    monkeypatch.setattr(lead, "pauses", lambda patience: [pause / 5 for pause in settle.pauses(patience)])
    data = random.Random(1).randbytes(1 << 20) * (SIZE >> 20) + bytes(4096)
    for node in "ab":
        (tmp_path / f"{node}.img").write_bytes(data)
    yield Nodes(tmp_path)


def test_equal_copies_are_clean(nodes: Nodes) -> None:
    done: list[tuple[int, int]] = []
    found = nodes.compare(progress=lambda now, total: done.append((now, total)))
    assert found.verdict is Verdict.CLEAN and nodes.findings.compared == SIZE == nodes.findings.at
    assert done[-1] == (SIZE, SIZE) and nodes.gone()


@pytest.mark.parametrize("granularity", [4096, 65536, 1 << 20])
def test_exactly_the_blocks_that_differ_are_found(nodes: Nodes, granularity: int) -> None:
    dice = random.Random(granularity)
    planted = {0, SIZE // UNIT - 1, *dice.sample(range(SIZE // UNIT), 60)}
    for number, block in enumerate(sorted(planted)):
        nodes.write("ab"[number % 2], block)
    found = nodes.compare(granularity)
    assert found.diverged == planted and not found.unsettled and not found.unreadable


def test_where_the_guests_writes_are_slow_all_time_of_reading_is_made_up_for_by_rest(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of slices that are asked for ahead: 13, of which each takes 20 ms at least, and the last has no rest after it."""
    rests: list[float] = []
    monkeypatch.setattr(Pair, "rest", lambda _pair, seconds: rests.append(seconds))
    nodes.pace, nodes.busy = Pace(bound=None, factor=4.0), lambda: time.sleep(0.02)
    assert nodes.compare().verdict is Verdict.CLEAN
    assert sum(rests) >= 12 * 3 * 0.02


def test_a_block_that_is_being_written_is_not_called_different(nodes: Nodes) -> None:
    """It keeps changing, in step on both sides or not; DRBD counts no write, so that every moment looks still."""
    numbers = itertools.count()

    def busy() -> None:
        number = next(numbers).to_bytes(8, "big")
        for node, block in (("a", 7), ("b", 7), ("a", 9)):
            nodes.write(node, block, number)

    nodes.busy = busy
    nodes.write("b", 100)
    found = nodes.compare()
    assert 7 not in found.diverged and 9 not in found.diverged
    assert found.diverged == {100} and found.unsettled >= {9}


def test_under_load_without_a_still_moment_a_difference_is_found_all_the_same(nodes: Nodes) -> None:
    nodes.write("b", 100)
    tell(nodes.folder, "a", state={"outstanding": 3})
    began = time.monotonic()
    assert nodes.compare().diverged == {100}
    assert time.monotonic() - began > 0.5
    assert any("followed for" in text for text in nodes.said)


def test_where_drbd_gives_up_no_request_ever_it_stays_unsettled(nodes: Nodes) -> None:
    nodes.write("b", 100)
    nodes.findings.settling.patience = None
    tell(nodes.folder, "a", state={"outstanding": 3})
    assert nodes.compare().unsettled == {100}


def test_blocks_that_one_side_cannot_read_are_no_more_than_those(nodes: Nodes) -> None:
    tell(nodes.folder, "b", bad=[33])
    nodes.write("a", 34)
    found = nodes.compare()
    assert found.unreadable_there == {33} and not found.unreadable_here and found.diverged == {34}


def test_very_much_difference_ends_it_early(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead, "OPEN_MAX", 16)
    monkeypatch.setattr(lead, "_WEED_BYTES", 1 << 20)
    for block in range(0, SIZE // UNIT, 64):
        nodes.write("b", block)
    found = nodes.compare()
    assert nodes.findings.much and nodes.findings.at < SIZE and 16 < len(found.diverged) < 200


# --- what ends it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "words", "cause"),
    [
        ("b", {"state": {"disk": "Diskless"}}, "b is Diskless: that would read the peer and prove nothing"),
        ("a", {"state": {"peer_disk": "Diskless"}}, "the peer of a is Diskless"),
        ("b", {"state": {"replication": "SyncTarget"}}, "a resync is running"),
        ("a", {"state": {"connection": "StandAlone"}}, "a is StandAlone"),
        ("b", {"state": {"connection": "WFConnection", "replication": "Off"}}, "b is not connected"),
        ("a", {"state": {"suspended": True}}, "frozen the I/O of a"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_state_in_which_reads_prove_nothing_ends_it(
    nodes: Nodes, node: str, words: dict[str, object], cause: str, when: str
) -> None:
    if when == "before":
        tell(nodes.folder, node, **words)
    with pytest.raises(VerifyStopped, match=cause):
        nodes.compare(progress=lambda done, total: tell(nodes.folder, node, **words) if done else None)
    assert nodes.gone() and nodes.findings.at < SIZE
    assert nodes.findings.settling.verdict is Verdict.CLEAN, "what was read meanwhile does not count"


@pytest.mark.parametrize("node", ["a", "b"])
def test_reads_that_drbd_did_not_count_as_its_disks_own_prove_nothing(nodes: Nodes, node: str) -> None:
    """The local disk has failed, and DRBD reads the peer without a word."""
    tell(nodes.folder, node, unread=True)
    with pytest.raises(VerifyStopped, match=f"not all of what {node} read came from its own disk"):
        nodes.compare()
    assert nodes.findings.at == 0


def test_a_block_that_drbd_marks_meanwhile_ends_it(nodes: Nodes) -> None:
    with pytest.raises(VerifyStopped, match="found or mended differences meanwhile"):
        nodes.compare(progress=lambda done, total: tell(nodes.folder, "b", state={"out_of_sync": 4}) if done else None)


def test_a_peer_that_is_killed_ends_it(nodes: Nodes) -> None:
    def kill(done: int, total: int) -> None:
        if not nodes.gone():
            os.kill(int((nodes.folder / "b.pid").read_text()), signal.SIGKILL)

    with pytest.raises(VerifyStopped, match="b does not answer any more"):
        nodes.compare(progress=kill)


def test_a_peer_that_stands_still_ends_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "STALL_SECONDS", 1.0)
    tell(nodes.folder, "b", slow=30)
    monkeypatch.setattr(remote, "_END_SECONDS", 20)
    began = time.monotonic()
    with pytest.raises(VerifyStopped, match="b has read nothing for 1 s"):
        nodes.compare()
    assert nodes.gone() and time.monotonic() - began < 20, "a goodbye ends what is being read there"


@pytest.mark.parametrize("slow", [0, 60])
def test_a_peer_that_is_told_to_end_says_so_and_can_be_gone_on_with(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """As 'mirror down' on its node does, whatever it does just then."""
    monkeypatch.setattr(readers, "FOLDER", str(nodes.folder / "readers"))
    told: list[str] = []

    def end(done: int, total: int) -> None:
        if not told:
            tell(nodes.folder, "b", slow=slow)
            assert readers.let_go("ha", told.append) == ()

    with pytest.raises(VerifyStopped, match="b was told to end it, as its mirror is being taken down"):
        nodes.compare(progress=end)
    assert len(told) == 1 and nodes.gone() and nodes.findings.at < SIZE


def test_the_other_process_ends_with_its_leader_while_it_reads(nodes: Nodes) -> None:
    tell(nodes.folder, "b", slow=60)
    child = subprocess.Popen(far(nodes.folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.read(12)
        child.stdin.write(wire.encode(wire.request(wire.Request(1, ((0, 65536),), 65536))))
        child.stdin.flush()
        child.stdin.close()
        assert child.wait(10) == 2
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_other_process_ends_when_nobody_asks_any_more(nodes: Nodes) -> None:
    """A link that was cut: its standard input stays open."""
    child = subprocess.Popen(
        far(nodes.folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "IDLE": "0.5"}
    )
    try:
        assert child.wait(10) == 2
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    "junk", ["Welcome to node b", "\\x50\\x44\\x56\\x31\\xff\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "PDV1"]
)
def test_what_answers_otherwise_is_refused(nodes: Nodes, junk: str) -> None:
    nodes.argv = ["printf", junk]
    with pytest.raises((VerifyRefused, VerifyStopped), match=r"b does not (answer|keep to the protocol)"):
        nodes.compare()


def test_what_the_shell_there_says_is_told(nodes: Nodes) -> None:
    nodes.argv = ["sh", "-c", "echo 'ssh: connect to host b port 22: No route to host' >&2; exit 255"]
    with pytest.raises(VerifyRefused, match="b does not answer: ssh: connect to host b port 22: No route to host"):
        nodes.compare()


def test_an_older_pvedrbdstor_there_is_named(nodes: Nodes) -> None:
    nodes.argv = ["sh", "-c", "echo \"Error: No such command 'verify'.\" >&2; exit 2"]
    with pytest.raises(VerifyRefused, match="its pvedrbdstor is older and has no 'verify'"):
        nodes.compare()


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        ({"version": 99, "package": "9.9"}, "the other node has pvedrbdstor 9.9, this one 1.0"),
        ({"uuid": "F" * 32}, "the OCFS2 UUID is 0123"),
        ({"size": SIZE - 4096}, "the size in bytes is"),
        ({"resource": "r1"}, "the DRBD resource is r0 on a and r1 on b"),
        ({"volume": 1}, "the DRBD volume is 0 on a and 1 on b"),
        ({"generation": "00000000000000BB"}, "they are not of one generation"),
        ({"read_balancing": "round-robin"}, "`read-balancing round-robin` lets DRBD on b read from its peer"),
        ({"node": "a"}, "a has reached itself"),
    ],
)
def test_what_is_no_copy_of_the_same_mirror_is_refused(nodes: Nodes, other: dict[str, object], cause: str) -> None:
    tell(nodes.folder, "b", hello=other)
    with pytest.raises(VerifyRefused) as raised:
        nodes.compare()
    assert cause in raised.value.message and nodes.gone()


# --- going on ----------------------------------------------------------------------------------------------------


def test_what_is_interrupted_goes_on_where_it_was(nodes: Nodes) -> None:
    for block in (5, 1500, SIZE // UNIT - 1):
        nodes.write("b", block)
    asked = threading.Event()
    nodes.stop = asked.is_set
    tell(nodes.folder, "b", slow=0.05)

    def stop(done: int, total: int) -> None:
        if done:
            asked.set()

    with pytest.raises(Interrupted):
        nodes.compare(progress=stop)
    found = nodes.findings
    assert nodes.gone() and 0 < found.at < SIZE and found.pending(SIZE) == ((0, 65536),)
    nodes.findings = Findings(found.at, found.compared, list(found.pending(SIZE)), Settling(0.5))
    nodes.stop = lambda: False
    assert nodes.compare().diverged == {5, 1500, SIZE // UNIT - 1} and nodes.findings.compared == SIZE


def test_nothing_is_left_of_the_other_side_when_this_one_is_killed(nodes: Nodes) -> None:
    """The whole of it, as Proxmox would end a task."""
    tell(nodes.folder, "b", slow=60)
    program = (
        "from pathlib import Path; from tests.verify.test_compare import Nodes; "
        f"Nodes(Path({str(nodes.folder)!r})).compare()"
    )
    child = command.start(["/usr/bin/python3", "-c", program])
    try:
        deadline = time.monotonic() + 20
        while not (nodes.folder / "b.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
        child.wait()
        while not nodes.gone() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert nodes.gone()
    finally:
        command.stop(child)
