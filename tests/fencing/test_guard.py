"""The guard's loop, on a corosync and a DRBD that say what the test wants, with real handlers' requests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import __version__
from pvedrbdstor.fencing import corosync_conf, journal, status
from pvedrbdstor.fencing import guard as guards
from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.corosync_conf import Timing
from pvedrbdstor.fencing.guard import Guard, World
from pvedrbdstor.fencing.journal import Log
from pvedrbdstor.fencing.libquorum import Confirmed, Connected, Lost, Word
from pvedrbdstor.fencing.rules import Mirror, Outage, Ring

BOTH, ALONE = frozenset({1, 2}), frozenset({1})
WHOLE = Mirror("Primary", "Connected", "UpToDate", "UpToDate", suspended=False)
FROZEN = Mirror("Primary", "WFConnection", "UpToDate", "DUnknown", suspended=True)
CONF = """totem {
  version: 2
}
nodelist {
  node {
    name: nodea
    nodeid: 1
    ring0_addr: 10.0.0.1
  }
  node {
    name: nodeb
    nodeid: 2
    ring0_addr: 10.0.0.2
  }
}
quorum {
  provider: corosync_votequorum
  device {
    model: net
    votes: 1
    net {
      algorithm: ffsplit
      host: 10.0.0.3
    }
  }
}
"""
VOTES = Votes(1, 3, 3, 3, 2, Flag.QUORATE | Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE | Flag.QDEVICE_CAST_VOTE)
REQUEST = b"fence-peer\nDRBD_RESOURCE=r0\nDRBD_MINOR=0\nDRBD_PEERS=nodeb\n"


class Mirrors:
    def __init__(self) -> None:
        self.now: dict[str, Mirror] | None = {"0": WHOLE}

    def look(self, _now: float) -> dict[str, Mirror] | None:
        return self.now

    def close(self, _now: float) -> None:
        """Nothing runs."""


class Bench:
    """A guard with its own clock. tick() lets time pass with corosync alive; resets counts the resets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = 1000.0
        self.mirrors = Mirrors()
        self.resets = 0
        self.quorate = True
        self.corosync_runs = True
        self.votes = VOTES
        (folder / "corosync.conf").write_text(CONF)
        monkeypatch.setattr(guards.residence.Activity, "ran", lambda _: self.corosync_runs)
        self.guard = self.start()

    def start(self) -> Guard:
        world = World(
            follow=lambda _: None,
            mirrors=self.mirrors,  # type: ignore[arg-type]
            reset=self._reset,
            clock=lambda: self.now,
            folder=str(self.folder),
            corosync_conf=str(self.folder / "corosync.conf"),
        )
        self.guard = Guard(Log(str(self.folder / "log")), world)
        self.hear(Connected(1, 4711), Ring(self.now, True, 8, BOTH), corosync_conf.read(f"{self.folder}/corosync.conf"))
        return self.guard

    def _reset(self) -> None:
        self.resets += 1

    def hear(self, *words: Word | corosync_conf.CorosyncConf | None) -> None:
        for word in words:
            self.guard._words.put(word)

    def tick(self, seconds: float, step: float = 0.5) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if self.corosync_runs:
                self.hear(Confirmed(self.now, self.quorate, self.votes))
            self.guard.step(0)

    def call(self, request: bytes = REQUEST) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.folder / "guard.sock"))
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        return client

    def ring(self, members: frozenset[int], quorate: bool = True, seq: int = 12) -> None:
        self.quorate = quorate
        self.hear(Ring(self.now, quorate, seq, members))

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / "status.json").read_text())
        return found


def answer(client: socket.socket) -> bytes | None:
    try:
        return client.recv(10)
    except BlockingIOError:
        return None


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch)
    made.tick(40)
    return made


def test_the_survivor_is_told_to_go_on_and_that_is_written_down_first(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.tick(4)
    assert answer(client) is None
    bench.ring(ALONE)
    bench.tick(5)
    assert answer(client) is None
    bench.tick(2)
    assert answer(client) == b"7"
    assert "WIN: resource r0" in bench.log()
    assert json.loads((bench.folder / "outages.json").read_text())["outages"]["0"]["won"] is True


def test_what_cannot_be_written_down_is_not_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE)
    monkeypatch.setattr(journal, "write", full)
    bench.tick(20)
    assert answer(client) is None


def test_a_guard_that_follows_at_once_still_knows_that_the_outage_was_won(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    bench.ring(ALONE)
    client = bench.call()
    bench.tick(10)
    assert answer(client) == b"7"
    bench.guard.close()
    bench.now += 2
    bench.start()
    bench.ring(ALONE)
    again = bench.call()
    bench.tick(1)
    assert answer(again) == b"7"


def test_a_guard_that_follows_late_wins_nothing(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    bench.ring(ALONE)
    client = bench.call()
    bench.tick(10)
    assert answer(client) == b"7"
    bench.guard.close()
    bench.now += 6
    bench.start()
    bench.ring(ALONE)
    again = bench.call()
    bench.tick(20)
    assert answer(again) is None


def test_the_node_that_lost_its_vote_resets_itself_once_the_other_is_here(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE, quorate=False)
    bench.tick(20)
    assert (answer(client), bench.resets) == (None, 0)
    bench.ring(BOTH, seq=20)
    bench.mirrors.now = {"0": replace(FROZEN, connection="StandAlone")}
    bench.tick(5)
    assert bench.resets > 0
    assert answer(client) is None


def test_a_promotion_is_refused_at_once(bench: Bench) -> None:
    bench.mirrors.now = {"0": Mirror("Secondary", "WFConnection", "Consistent", "DUnknown", suspended=False)}
    client = bench.call()
    bench.tick(0.5)
    assert answer(client) == b"1"


def test_a_connection_that_comes_back_ends_the_call_and_the_outage(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.tick(3)
    bench.mirrors.now = {"0": WHOLE}
    bench.tick(3)
    assert answer(client) == b"1"
    assert bench.status()["outages"] == {}


def test_all_volumes_of_a_resource_must_be_able_to_go_on(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN, "1": replace(FROZEN, disk="Inconsistent")}
    client = bench.call(REQUEST.replace(b"MINOR=0", b"MINOR=0 1"))
    bench.ring(ALONE)
    bench.tick(20)
    assert answer(client) is None
    bench.mirrors.now = {"0": FROZEN, "1": FROZEN}
    bench.tick(1)
    assert answer(client) == b"7"


def test_two_nodes_without_a_third_vote_never_go_on(bench: Bench) -> None:
    head, _, tail = CONF.partition("  device {")
    bench.hear(corosync_conf.parse(head + "  two_node: 1\n}\n" + tail[:0]))
    bench.tick(6)
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE)
    bench.tick(30)
    assert (answer(client), bench.resets) == (None, 0)
    assert "no safe automatic decision" in bench.log()


def test_expected_votes_that_were_lowered_stop_it(bench: Bench) -> None:
    bench.votes = replace(VOTES, expected=1)
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE)
    bench.tick(30)
    assert answer(client) is None
    assert "pvecm expected" in bench.log()


def test_a_corosync_that_does_not_run_is_noticed(bench: Bench) -> None:
    bench.corosync_runs = False
    bench.tick(8)
    assert bench.status()["handicap"] == "corosync did not run"


def test_a_connection_that_broke_is_a_gap(bench: Bench) -> None:
    bench.hear(Lost(bench.now, "it broke"), Lost(bench.now, "the connection to corosync is new"))
    bench.tick(3)
    assert bench.status()["handicap"] == "it broke"
    bench.tick(40)
    assert bench.status()["handicap"] is None


def test_its_own_pause_is_noticed(bench: Bench) -> None:
    bench.now += 8
    bench.tick(2)
    assert "the guard did not run for 8" in str(bench.status()["handicap"])


def test_a_drbd_that_does_not_tell_its_state_is_a_pause(bench: Bench) -> None:
    bench.mirrors.now = None
    bench.tick(8)
    bench.mirrors.now = {"0": WHOLE}
    bench.tick(3)
    assert "did not run" in str(bench.status()["handicap"])


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        log = Log(address=str(tmp_path / "log"))
        for _ in range(2000):
            log.say("x" * 100)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"looked_at": "x"}', '{"looked_at": 1, "outages": {"0": 3}}'])
def test_a_memory_that_is_no_memory_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "m").write_text(text)
    assert journal.remembered(2.0, str(tmp_path / "m")) == ({}, None)


def test_a_memory_from_before_the_boot_or_too_old_has_won_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "m")
    journal.remember(100.0, {"0": Outage(90.0, won=True)}, path)
    won: Callable[[float], bool] = lambda now: journal.remembered(now, path)[0]["0"].won  # noqa: E731
    assert won(104)
    assert not won(105)
    assert not won(99)


def test_its_status_is_what_the_others_read(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.tick(3)
    found = status.parse((bench.folder / "status.json").read_text(), bench.now)
    assert found is not None
    assert (found.version, found.handicap, found.votes) == (__version__, None, VOTES)
    assert found.quorum == status.Ring(True, 8, BOTH)
    assert [(outage.minor, outage.won, outage.said) for outage in found.outages] == [
        ("0", False, "the other node is in the membership")
    ]
    client.close()


def test_a_second_guard_is_refused(bench: Bench) -> None:
    with pytest.raises(BlockingIOError):
        bench.start()
    bench.guard.close()
    bench.start()


def test_whatever_fails_in_following_corosync_is_a_gap(bench: Bench) -> None:
    def follow(_say: object) -> None:
        bench.guard._stopping = True  # once
        raise RuntimeError("surprise")

    bench.guard._world.follow = follow
    bench.guard._follow()
    bench.tick(3)
    assert bench.status()["handicap"] == "following it failed: RuntimeError: surprise"


def test_what_corosync_has_in_force_is_told_and_counts(bench: Bench) -> None:
    """A node that cannot win leaves once it would be gone from the membership: by the times in force, not by the file's."""
    bench.hear(Timing(10.0, 12.0))
    bench.votes = replace(VOTES, flags=VOTES.flags & ~Flag.QDEVICE_CAST_VOTE)
    bench.tick(3)
    assert bench.status()["timing"] == {"token": 10.0, "consensus": 12.0}
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.tick(25)
    assert bench.resets == 0
    bench.tick(2)
    assert bench.resets > 0
    client.close()
    bench.hear(Lost(bench.now, "it broke"))
    bench.tick(3)
    assert bench.status()["timing"] is None


def test_a_vote_that_was_lost_while_it_was_not_needed_is_remembered(bench: Bench) -> None:
    bench.votes = replace(VOTES, flags=VOTES.flags & ~Flag.QDEVICE_CAST_VOTE)
    bench.tick(0.5)
    bench.votes = VOTES
    bench.tick(10)
    assert bench.status()["handicap"] == "the QDevice cast no vote"
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE)
    bench.tick(30)
    assert answer(client) is None


def test_a_handler_that_waits_is_told_in_the_end_that_nothing_was_decided(bench: Bench) -> None:
    bench.mirrors.now = {"0": FROZEN}
    client = bench.call()
    bench.ring(ALONE, quorate=False)
    bench.tick(299, step=2)
    assert answer(client) is None
    bench.tick(6, step=2)
    assert answer(client) == b"1"


def test_what_it_starts_runs_at_its_priority_and_its_housekeeping_does_not(tmp_path: Path) -> None:
    """A thread that follows corosync at ordinary priority would not run while corosync spins."""
    program = f"""
import os, threading, time
from pvedrbdstor.fencing import residence
from pvedrbdstor.fencing.guard import Guard, World
from pvedrbdstor.fencing.journal import Log
said = []
def follow(_): said.append(os.sched_getscheduler(0)); time.sleep(60)
def keep(): said.append(os.sched_getscheduler(0))
residence.stay()
guard = Guard(Log(), World(follow=follow, keep_files=keep, reset=lambda: None, folder={str(tmp_path)!r}))
for work in (guard._follow, guard._keep_house):
    threading.Thread(target=work, daemon=True).start(); time.sleep(0.5)
print(os.sched_getscheduler(0) == os.SCHED_RR, said == [os.SCHED_RR, os.SCHED_OTHER], flush=True); os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True True\n", done.stderr
