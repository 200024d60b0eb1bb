"""What follows from what the write path was seen to do, and how it is told. No I/O here."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify.wire import Frame, Type
from pvedrbdstor.verify.write_path import engines, lead, pattern, report
from pvedrbdstor.verify.write_path.engines import MODES, Mode, Result, Tried
from pvedrbdstor.verify.write_path.facts import Direction, Ground, Outcome, Risk, Seen, Why, percentiles, risks, safer
from pvedrbdstor.verify.write_path.side import Side
from tests.verify import world

GROUND = Ground("/dev/sdb", ("C",), True, "write through")
THERE = Seen(0.001, 0.002, late=False, there=True)
NONE, BACK = Mode("io_uring", "none"), Mode("io_uring", "writeback")
DRIVE = Drive(100, "scsi0", "ha:100/vm-100-disk-0.raw,size=32G", "none", "io_uring")


def direction(*seen: Seen, changed: int = 0, ground: Ground = GROUND) -> Direction:
    return Direction("a", "b", ground, seen or (THERE,), changed)


def outcome(**words: Any) -> Outcome:
    both = (direction(), replace(direction(), writer="b", reader="a"))
    return replace(Outcome("ha", "a", "b", 1, 0.0, 3.0, both, guests=0), **words)


@pytest.mark.parametrize(
    ("words", "verdict", "status"),
    [
        ({}, "ok", 0),
        ({"modes": (Tried("a", NONE, Result.UNSUPPORTED),)}, "ok", 0),
        ({"modes": (Tried("a", NONE, Result.FAILED),)}, "mismatch", 1),
        ({"modes": (Tried("a", NONE, Result.DIFFERS),)}, "mismatch", 1),
        ({"modes": (Tried("a", NONE, Result.SILENT),)}, "incomplete", 2),
        ({"modes": (Tried("a", NONE, Result.UNTRIED),)}, "incomplete", 2),
        ({"unchecked": ("b did not answer",)}, "incomplete", 2),
        ({"directions": (direction(),)}, "incomplete", 2),
        ({"directions": (direction(changed=1), direction())}, "mismatch", 1),
        ({"directions": (direction(), direction(ground=replace(GROUND, protocols=("B",))))}, "mismatch", 1),
        ({"directions": (direction(replace(THERE, late=True)), direction())}, "mismatch", 1),
        ({"directions": (direction(replace(THERE, there=False)),), "unchecked": ("b hangs",)}, "mismatch", 1),
    ],
)
def test_only_what_was_checked_and_holds_is_ok(words: dict[str, Any], verdict: str, status: int) -> None:
    found = outcome(**words)
    assert (found.verdict, found.exit_status) == (verdict, status)


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([float(number) for number in range(100, 0, -1)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 100.0,
    }
    assert percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert percentiles([]) == {}


def test_the_same_disk_is_at_risk_by_its_mode_and_by_the_kernel_and_each_is_told_once() -> None:
    other = replace(DRIVE, vmid=101, cache="writeback")
    tried = [Tried(node, NONE, Result.FAILED) for node in "ab"] + [Tried("a", BACK, Result.OK)]
    by_mode, by_kernel = risks([DRIVE, other], tried)
    assert (by_mode.why, by_mode.drives) == (Why.MODE, (DRIVE,))
    assert by_mode.detail == "aio=io_uring,cache=none: failed on a; failed on b"
    assert (by_kernel.why, by_kernel.drives) == (Why.FLUSHES, (DRIVE,))


def test_a_disk_that_ignores_flushes_is_at_risk_by_that() -> None:
    unsafe = replace(DRIVE, cache="unsafe")
    assert [risk.why for risk in risks([unsafe], [])] == [Why.UNSAFE]
    assert [risk.why for risk in risks([unsafe], [Tried("a", BACK, Result.SILENT)])] == [Why.MODE, Why.UNSAFE]


def test_a_disk_in_the_page_cache_and_a_mode_nobody_uses_are_no_risk() -> None:
    assert risks([replace(DRIVE, cache="writeback")], [Tried("a", NONE, Result.FAILED)]) == ()


def test_the_mode_advised_has_passed_on_every_node() -> None:
    threads = Mode("threads", "writeback")
    tried = [Tried(node, mode, Result.OK) for node in "ab" for mode in (NONE, BACK, threads)]
    assert safer(tried) == BACK
    assert safer([*tried, Tried("b", BACK, Result.FAILED)]) == threads
    assert safer([Tried("a", NONE, Result.FAILED)]) is None


def test_what_helps_is_a_command_for_each_disk_and_none_for_what_is_pending() -> None:
    pending = replace(DRIVE, pending=True)
    found = outcome(modes=(Tried("a", Mode("threads", "writeback"), Result.OK),))
    assert list(report.remedies(Risk(Why.FLUSHES, (DRIVE, pending)), found)) == [
        "qm set 100 --scsi0 ha:100/vm-100-disk-0.raw,size=32G,cache=writeback"
    ]
    assert list(report.remedies(Risk(Why.MODE, (DRIVE,)), found)) == [
        "qm set 100 --scsi0 ha:100/vm-100-disk-0.raw,size=32G,cache=writeback,aio=threads"
    ]


def test_a_disk_whose_cache_nobody_flushes_is_told() -> None:
    risky = direction(ground=replace(GROUND, flushes=False, write_cache="write back", protocols=("A",)))
    told = report.text(outcome(directions=(risky,)))
    assert "DRBD does not flush" in told and "protocol A" in told and "acknowledges none before" not in told
    assert "volatile" not in report.text(outcome())


def test_each_thing_that_is_wrong_is_in_the_words() -> None:
    seen = (THERE, replace(THERE, late=True), replace(THERE, there=False))
    told = report.text(outcome(directions=(direction(*seen, changed=2),), risks=(Risk(Why.FLUSHES, (DRIVE,)),)))
    for words in (
        "DOES NOT hold",
        "1 of 3 writes were NOT on b's disk yet",
        "1 of 3 writes were NOT found",
        "2 of 3 blocks read DIFFERENTLY",
        "VM 100 (scsi0)",
        "qm set 100",
    ):
        assert words in told
    assert "gave back every one" not in told


@pytest.mark.parametrize(
    ("status", "said", "result"),
    [
        (0, "", Result.OK),
        (1, "qemu-io: can't open: Unable to use io_uring: Operation not permitted", Result.UNSUPPORTED),
        (1, "qemu-io: can't open device ./x: aio=native was specified, but is not supported", Result.UNSUPPORTED),
        (1, "qemu-io: can't open device ./x: Could not open './x': No such file or directory", Result.FAILED),
        (0, "aio_write failed: Input/output error", Result.FAILED),
        (1, "Pattern verification failed at offset 0, 512 bytes", Result.DIFFERS),
        (139, "", Result.FAILED),
    ],
)
def test_qemus_words_are_understood(status: int, said: str, result: Result) -> None:
    assert engines.judge(status, said)[0] is result


def test_each_mode_writes_what_no_other_mode_does() -> None:
    contents = [engines.content(mode) for mode in MODES]
    written = [set(content) - {0} for content in contents]
    assert all(len(found) == 16 for found in written)
    assert len(set().union(*written)) == 16 * len(MODES)
    assert all(len(content) == engines.SIZE for content in contents)


@given(st.text(max_size=8), st.integers(0, 1023))
def test_no_two_blocks_are_alike(token: str, index: int) -> None:
    block = pattern.block(token, index, pattern.AFTER)
    others = [pattern.block(token, index, pattern.BEFORE), pattern.block(token, index + 1, pattern.AFTER)]
    assert len(block) == pattern.BLOCK and block not in others


class Lagging(Side):
    """A reader whose disk has the old content for the first ``looks``."""

    def __init__(self, looks: int) -> None:
        super().__init__("b", "ha")
        self._looks = looks

    def ask(self, do: str, *, seconds: float = 0.0, **words: object) -> dict[str, Any]:
        if do == "write":
            return {"seconds": 0.0}
        self._looks -= 1
        turn = pattern.BEFORE if self._looks >= 0 else pattern.AFTER
        return {"digest": pattern.digest(pattern.block("token", 3, turn))}


@pytest.mark.parametrize(("looks", "late", "there"), [(0, False, True), (3, True, True), (1 << 30, True, False)])
def test_a_write_that_arrives_after_its_acknowledgement_is_late(
    looks: int, late: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead, "LATE_SECONDS", 0.1)
    side = Lagging(looks)
    seen = lead._write(side, side, "token", 3, 0)
    assert (seen.late, seen.there) == (late, there)


class Hostile(Side):
    """Answers each question with the next of some documents, whatever was asked; the first may be a true hello."""

    def __init__(self, node: str, answers: list[dict[str, Any]]) -> None:
        super().__init__(node, "ha")
        self._answers = answers

    def _answer(self, do: str, seconds: float, words: Any) -> tuple[Frame, dict[str, Any]]:
        return Frame(Type.PROBE), self._answers.pop(0) if self._answers else {}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_NAMES = ("hello", "ground", "name", "token", "places", "seconds", "digest", "digests", "result", "detail", "drives")
_ANSWER = st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4) | st.fixed_dictionaries(
    {"name": st.just("new.1.x"), "token": st.just("t"), "places": st.just([0]), "seconds": _JSON, "digest": _JSON}
)


@given(st.booleans(), st.lists(_ANSWER, max_size=6))
def test_whatever_the_other_node_says_ends_in_a_reason_and_never_well(
    true_hello: bool, answers: list[dict[str, Any]]
) -> None:
    def words(node: str) -> dict[str, Any]:
        return {"hello": hellos.as_json(world.hello(node, 1 << 30)), "ground": asdict(GROUND)}

    here = Hostile("a", [words("a"), *({"name": "n", "token": "t", "places": [0], "seconds": 0.1} for _ in range(3))])
    there = Hostile("b", [words("b"), *answers] if true_hello else answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lead, "LATE_SECONDS", 0.0)
        try:
            verdict = lead.check("ha", here, there, 1, ()).verdict
        except WritePathUnchecked as error:
            assert error.fields["cause"]
        else:
            assert verdict != "ok"
