"""What the kernel's log says of DRBD's own verify, on recordings of both generations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.verify import kernel
from pvedrbdstor.verify.kernel import Found, Lines
from tests.verify.world import GOOD

V8_4 = """\
block drbd0: conn( SyncSource -> Connected ) pdsk( Inconsistent -> UpToDate )
block drbd0: conn( Connected -> VerifyS )
block drbd0: Starting Online Verify from sector 0
block drbd0: Out of sync: start=2400000, size=24 (sectors)
block drbd0: Online verify done (total 65 sec; paused 0 sec; 32260 K/sec)
block drbd0: Online verify found 3 4k block out of sync!
block drbd0: conn( VerifyS -> Connected )""".splitlines()
V9 = """\
drbd r0: Committing cluster-wide state change 922006843 (40ms)
drbd r0/0 drbd0 nodeb: repl( Established -> VerifyS ) [verify]
drbd r0/0 drbd0 nodeb: Starting Online Verify from sector 0
drbd r0/0 drbd0 nodeb: Skipped verify, too busy: start=53760, size=8 (sectors)
drbd r0/0 drbd0 nodeb: Out of sync: start=720000, size=128 (sectors)
drbd r0/0 drbd0 nodeb: Skipped verify, too busy: start=53776, size=8 (sectors)
drbd r0/0 drbd0 nodeb: Online verify done but 2 4k blocks skipped (total 79 sec; paused 0 sec; 5308 K/sec)
drbd r0/0 drbd0 nodeb: Online verify found 16 4k blocks out of sync!
drbd r0/0 drbd0 nodeb: repl( VerifyS -> Established ) [resync-finished]""".splitlines()


def seen(text: list[str], minor: int = 0) -> Lines:
    lines = Lines(minor)
    for line in text:
        lines.see(line)
    return lines


def test_what_8_4_has_found_is_read() -> None:
    found = seen(V8_4)
    assert found.ranges == [(2400000 * 512, 24 * 512)] and not found.skipped


def test_what_9_has_found_and_left_out_is_read() -> None:
    found = seen(V9)
    assert found.ranges == [(720000 * 512, 128 * 512)]
    assert found.skipped == [(53760 * 512, 4096), (53776 * 512, 4096)]


def test_another_device_is_another_matter() -> None:
    assert not seen(V8_4, 10).ranges
    assert not seen(V9, 1).ranges


@pytest.mark.parametrize(
    "began",
    ["block drbd0: conn( Connected -> VerifyS ) ", "drbd r0/0 drbd0 nodeb: repl( Established -> VerifyS ) [verify]"],
)
def test_what_an_earlier_verify_has_found_does_not_count(began: str) -> None:
    found = seen([*V8_4, began])
    assert not found.ranges


def test_no_more_is_kept_than_anybody_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_RANGES_MAX", 10)
    line = "block drbd0: Out of sync: start={}, size=8 (sectors)"
    found = seen([line.format(number * 100) for number in range(30)])
    assert len(found.ranges) == 10 and found.much


@given(st.text(max_size=80), st.sampled_from(["", "block drbd0: ", "block drbd0: Out of sync: start="]))
def test_any_line_is_read_or_passed_over(text: str, before: str) -> None:
    seen([before + text])


class Dmesg:
    """Stands for the kernel's log: gives ``text``, a line each time, and then for ever, if at all, ``flood``."""

    def __init__(self, text: list[str], flood: str | None = None) -> None:
        self.text, self.flood = text, flood

    def __call__(self, *, fresh: bool) -> Dmesg:
        return self

    def __enter__(self) -> Dmesg:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, lines: Lines) -> bool:
        text, self.text = self.text[:1], self.text[1:]
        for line in text or ([self.flood] if self.flood else []):
            lines.see(line)
        return bool(text or self.flood)


Follow = Callable[..., Found]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Follow a verify that is over at the first look. runs: it was there before. marked: KiB before and after."""

    def followed(
        text: list[str], *, runs: bool, marked: tuple[int, int | None] = (0, 12), flood: str | None = None
    ) -> Found:
        states = [replace(GOOD, out_of_sync=marked[0], replication="VerifyS" if runs else "Established"), GOOD]
        last = replace(GOOD, out_of_sync=marked[1])
        copy: Any = SimpleNamespace(
            storage=SimpleNamespace(id="ha", resource="r0"),
            hello=SimpleNamespace(verify_alg="crc32c", resource="r0", size=1 << 40),
            minor=0,
            node="a",
            state=lambda: states.pop(0) if states else last,
        )
        monkeypatch.setattr(kernel, "Log", Dmesg(text, flood))
        monkeypatch.setattr(kernel, "_start", lambda _: ["true"])
        return kernel.follow(copy, lambda done, total: None, lambda words: None, lambda: False)

    return followed


@pytest.mark.parametrize("runs", [False, True])
def test_a_verify_from_the_first_sector_to_the_last_is_all_of_it(follow: Follow, runs: bool) -> None:
    found = follow(V8_4, runs=runs)
    assert not found.cut and found.ranges == ((2400000 * 512, 24 * 512),)


def test_a_verify_that_ran_already_is_all_of_it_only_if_its_log_says_so(follow: Follow) -> None:
    """The beginning was overwritten, or this is not the node where it was begun."""
    found = follow([line for line in V8_4 if "Starting" not in line], runs=True)
    assert found.cut and "does not tell that it began with the first sector" in found.remarks[-1]


def test_a_verify_of_a_part_is_not_all_of_it(follow: Follow) -> None:
    found = follow([line.replace("from sector 0", "from sector 2048") for line in V8_4], runs=True)
    assert found.cut and "began at sector 2048 only" in found.remarks[-1]
    for words in ("Online Verify reached sector 4096", "Online Verify reached stop sector 4096"):
        found = follow([*V8_4, f"block drbd0: {words}"], runs=False)
        assert found.cut and "did not go to the end of the device" in found.remarks[-1]


@pytest.mark.parametrize(("marked", "cut"), [((0, 12), False), ((8, 20), False), ((0, 16), True), ((0, None), True)])
def test_what_drbd_has_marked_and_the_log_did_not_tell_is_missing(
    follow: Follow, marked: tuple[int, int | None], cut: bool
) -> None:
    assert follow(V8_4, runs=False, marked=marked).cut is cut


def test_a_flood_of_other_lines_ends_nothing_and_keeps_nobody_waiting(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_REST_SECONDS", 0.05)
    assert not follow(V8_4, runs=False, flood="net eth0: flood").cut
    found = follow(V8_4[:-1], runs=False, flood="net eth0: flood")
    assert found.cut and "too long to be read whole" in found.remarks[-1]
