"""What the kernel's log says of DRBD's own verify, on recordings of both generations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.verify import kernel
from pvedrbdstor.verify.kernel import Lines

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
