"""The kernel's log as it is read, and a verify of DRBD's own as it is followed: overwritten records, its end, and all that ends it before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pvedrbdstor.errors import VerifyRefused, VerifyStopped
from pvedrbdstor.verify import kernel
from pvedrbdstor.verify.kernel import Lines, Log
from pvedrbdstor.verify.pair import Interrupted
from pvedrbdstor.verify.state import NodeState
from tests.verify.world import GOOD

VERIFYING = replace(GOOD, replication="VerifyS")
PROC = """\
version: 8.4.11 (api:1/proto:86-101)
srcversion: 0123456789ABCDEF01234567

 0: cs:VerifyS ro:Primary/Primary ds:UpToDate/UpToDate C r-----
    ns:0 nr:0 dw:0 dr:4096 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
\t[====>...............] verified: 25.0% (786432/1048576)K
\tfinish: 0:00:10 speed: 40,000 (40,000) want: 40,000 K/sec
"""


def record(number: int, text: str) -> bytes:
    return f"6,{number},{number * 1000},-;{text}\n SUBSYSTEM=block\n".encode()


class Kmsg:
    """Stands for /dev/kmsg: a pipe that keeps records apart (O_DIRECT, pipe(2)), one for each read."""

    def __init__(self) -> None:
        self._ends = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._ends[0]}"

    def says(self, *texts: str) -> None:
        for number, text in enumerate(texts):
            os.write(self._ends[1], record(number, text))

    def close(self) -> None:
        for fd in self._ends:
            os.close(fd)


@pytest.fixture
def kmsg() -> Iterator[Kmsg]:
    found = Kmsg()
    yield found
    found.close()


def test_each_record_is_a_line_and_an_empty_log_is_no_end(kmsg: Kmsg) -> None:
    lines = Lines(0)
    with Log(fresh=False, path=kmsg.path) as log:
        assert not log.read(lines)
        kmsg.says("block drbd0: conn( Connected -> VerifyS )", "block drbd0: Out of sync: start=8, size=8 (sectors)")
        assert log.read(lines) and not log.read(lines)
        kmsg.says("block drbd0: Out of sync: start=80, size=8 (sectors)", "block drbd0: conn( VerifyS -> Connected )")
        assert log.read(lines)
    assert lines.ranges == [(4096, 4096), (40960, 4096)] and lines.ended and not lines.lost


def test_what_was_overwritten_before_it_was_read_is_known_to_be_lost(
    kmsg: Kmsg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPIPE (Documentation/ABI/testing/dev-kmsg); the next read goes on with what is there."""
    read, broken = os.read, [True]

    def overwritten(fd: int, count: int) -> bytes:
        if broken and broken.pop():
            raise OSError(32, "Broken pipe")
        return read(fd, count)

    lines = Lines(0)
    with Log(fresh=False, path=kmsg.path) as log:
        kmsg.says("block drbd0: Out of sync: start=8, size=8 (sectors)")
        monkeypatch.setattr(os, "read", overwritten)
        assert log.read(lines)
    assert lines.lost and lines.ranges == [(4096, 4096)]


def test_another_error_of_the_log_is_told(kmsg: Kmsg, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, count: int) -> bytes:
        raise OSError(5, "Input/output error")

    with Log(fresh=False, path=kmsg.path) as log:
        monkeypatch.setattr(os, "read", broken)
        with pytest.raises(OSError, match="Input/output"):
            log.read(Lines(0))


def test_no_more_is_taken_in_at_once_than_leaves_time_for_other_looks(
    kmsg: Kmsg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_RECORDS_AT_ONCE", 2)
    lines = Lines(0)
    with Log(fresh=False, path=kmsg.path) as log:
        kmsg.says(*(f"block drbd0: Out of sync: start={at * 80}, size=8 (sectors)" for at in range(3)))
        assert log.read(lines) and len(lines.ranges) == 2
        assert log.read(lines) and len(lines.ranges) == 3 and not log.read(lines)


def test_a_fresh_one_has_nothing_of_what_was_said_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1, "block drbd0: Out of sync: start=8, size=8 (sectors)"))
    with path.open("ab") as file:
        for fresh, expected in ((True, []), (False, [(4096, 4096)])):
            lines = Lines(0)
            with Log(fresh=fresh, path=str(path)) as log:
                log.read(lines)
            assert lines.ranges == expected
        lines = Lines(0)
        with Log(fresh=True, path=str(path)) as log:
            file.write(record(2, "block drbd0: Out of sync: start=800, size=8 (sectors)"))
            file.flush()
            assert log.read(lines)
        assert lines.ranges == [(409600, 4096)]


Follow = Callable[..., kernel.Found]


@pytest.fixture
def follow(kmsg: Kmsg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Follow one through these states, the first before it begins; after each but that the log says one of the lines."""
    proc = tmp_path / "proc_drbd"
    proc.write_text(PROC)
    monkeypatch.setattr(kernel, "PROC_DRBD", str(proc))
    monkeypatch.setattr(kernel, "_PAUSE", 0)
    monkeypatch.setattr(kernel, "_REST_SECONDS", 0.05)
    monkeypatch.setattr(kernel, "_start", lambda _: ["true"])
    monkeypatch.setattr(kernel, "Log", lambda *, fresh: Log(fresh=False, path=kmsg.path))

    def followed(
        states: list[NodeState],
        texts: list[str],
        *,
        alg: str | None = "crc32c",
        progress: Callable[[int, int], None] = lambda done, total: None,
        say: Callable[[str], None] = lambda text: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> kernel.Found:
        looks = iter(states)
        saying = iter(texts)

        def state() -> NodeState:
            kmsg.says(*[text for text in [next(saying, None)] if text is not None])
            return next(looks, states[-1])

        copy: Any = SimpleNamespace(
            storage=SimpleNamespace(id="ha", resource="r0", volume=0),
            hello=SimpleNamespace(verify_alg=alg, resource="r0", size=1 << 40),
            minor=0,
            node="a",
            state=state,
        )
        return kernel.follow(copy, progress, say, stop)

    return followed


STARTED = ["block drbd0: conn( Connected -> VerifyS )", "block drbd0: Starting Online Verify from sector 0"]
FOUND = "block drbd0: Out of sync: start=2400000, size=24 (sectors)"
ENDED = "block drbd0: conn( VerifyS -> Connected )"


def test_one_of_our_own_is_followed_to_its_end_and_progress_is_told(follow: Follow) -> None:
    done: list[tuple[int, int]] = []
    found = follow(
        [GOOD, VERIFYING, VERIFYING, VERIFYING, replace(GOOD, out_of_sync=12)],
        [*STARTED, FOUND, ENDED],
        progress=lambda now, total: done.append((now, total)),
    )
    assert found.ranges == ((2400000 * 512, 24 * 512),) and not found.cut
    assert done == [(1 << 38, 1 << 40)] * 3


def test_one_that_runs_already_is_joined_and_none_is_begun(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(kernel, "_start", lambda _: pytest.fail("it was begun again"))
    found = follow(
        [VERIFYING, VERIFYING, replace(GOOD, out_of_sync=12)], [STARTED[0], STARTED[1], FOUND, ENDED], say=said.append
    )
    assert said == ["DRBD's verify runs already and is followed."] and found.ranges == ((2400000 * 512, 24 * 512),)


def test_who_does_not_want_to_wait_leaves_it_running(follow: Follow) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        follow([GOOD, VERIFYING], STARTED, stop=lambda: next(asked))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(GOOD, disk="Diskless"), "a is Diskless"),
        (replace(GOOD, connection="WFConnection", replication="Off"), "a is not connected"),
        (replace(GOOD, replication="SyncTarget"), "a resync is running"),
    ],
)
def test_what_ends_it_before_its_end_is_told(follow: Follow, state: NodeState, words: str) -> None:
    with pytest.raises(VerifyStopped, match=words):
        follow([GOOD, VERIFYING, state], STARTED)


def test_without_an_algorithm_it_is_refused_with_the_line_to_write(follow: Follow) -> None:
    with pytest.raises(VerifyRefused, match="verify-alg crc32c"):
        follow([GOOD], [], alg=None)


def test_a_log_that_was_overwritten_meanwhile_makes_it_a_part(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    read, broken = os.read, [True]

    def overwritten(fd: int, count: int) -> bytes:
        data = read(fd, count)
        if b"Starting" in data and broken and broken.pop():
            raise OSError(32, "Broken pipe")
        return data

    monkeypatch.setattr(os, "read", overwritten)
    found = follow([GOOD, VERIFYING, VERIFYING, VERIFYING, replace(GOOD, out_of_sync=12)], [*STARTED, FOUND, ENDED])
    assert found.cut and any("too long to be read whole" in text for text in found.remarks)
