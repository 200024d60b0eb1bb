"""What the nodes note of a rejoin: kept, read, refused where it is none, bound to its resync, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.generation_ids import Identifiers
from pvedrbdstor.drbd.metadata import BLOCK, Range
from pvedrbdstor.errors import VerifyRefused
from pvedrbdstor.sizes import format_size
from pvedrbdstor.verify import last, rejoin, rejoin_status, rejoined, written
from pvedrbdstor.verify.last import Check, Record
from pvedrbdstor.verify.rejoin import SOURCE, TARGET, Kept, Note
from pvedrbdstor.verify.rejoin_status import Stage

GIB = 1 << 30
NOW = 1_700_000_000.0
OLD, NEW = 0x365BCF83F6A9C584, 0xEDD02BC5AF3D82D6
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
AFTER = (OLD + (1 << 48), 0)
"""The history of both nodes after the resync: the bitmap's identifier, counted up (drbd_gen_and_send_sync_uuid())."""


def kept(side: str = SOURCE, ranges: tuple[Range, ...] = ((0, BLOCK),), **words: object) -> Kept:
    found = Note(side, "a" if side == SOURCE else "b", rejoin.key(OLD), f"{NEW:016X}", NOW, NOW, GIB, parted=NOW - 60)
    return Kept(replace(found, **words), ranges)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rejoin, "FOLDER", str(tmp_path / "notes"))
    return tmp_path / "notes"


ranges = st.lists(st.integers(0, 200), unique=True, max_size=20).map(
    lambda blocks: tuple((block * 2 * BLOCK, BLOCK) for block in sorted(blocks))
)


@given(ranges, st.sampled_from([SOURCE, TARGET]), st.none() | st.floats(0, 1e10), st.none() | st.just("why"))
def test_what_is_kept_is_read(found: tuple[Range, ...], side: str, parted: float | None, short: str | None) -> None:
    one = kept(side, found, parted=parted, short=short)
    assert rejoin.from_json(json.loads(json.dumps(rejoin.as_json(one)))) == one


def test_notes_are_of_a_volume_and_nothing_else_is_left(folder: Path) -> None:
    assert rejoin.read("r0", 0) is None
    rejoin.write("r0", 0, kept())
    rejoin.write("r0", 1, kept(TARGET))
    assert rejoin.read("r0", 0) == kept() and rejoin.read("r0", 1) == kept(TARGET)
    assert {path.name for path in folder.iterdir()} == {"r0.0.json", "r0.1.json"}


def test_a_note_is_written_by_one_at_a_time() -> None:
    with rejoin.locked("r0", 0):
        with pytest.raises(TimeoutError, match="another process"), rejoin.locked("r0", 0, seconds=0):
            pass
        with rejoin.locked("r0", 1, seconds=0):
            pass
    with rejoin.locked("r0", 0, seconds=0):
        pass


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(format=2),
        lambda data: data.update(side="both"),
        lambda data: data.update(base="x"),
        lambda data: data.update(current="g" * 16),
        lambda data: data.update(counted="1"),
        lambda data: data.update(size=-1),
        lambda data: data.update(noted="now"),
        lambda data: data.update(node="a\nb"),
        lambda data: data.update(ranges=None),
        lambda data: data.update(ranges=[[0, 0]]),
        lambda data: data.update(ranges=[[0, GIB + 1]]),
        lambda data: data.update(ranges=[[BLOCK, BLOCK], [0, BLOCK]]),
        lambda data: data.update(ranges=[[0, True]]),
        lambda data: data.update(ranges=[[0, 1.5]]),
        lambda data: data.update(ranges=[[at * 2, 1] for at in range(written.RANGES_MAX + 1)]),
        lambda data: data.pop("first"),
    ],
)
def test_what_is_no_note_is_refused(folder: Path, spoil: Callable[[dict[str, object]], object]) -> None:
    data = rejoin.as_json(kept())
    spoil(data)
    folder.mkdir()
    (folder / "r0.0.json").write_text(json.dumps(data))
    with pytest.raises(rejoin.Unknown, match=r"r0\.0\.json cannot be read"):
        rejoin.read("r0", 0)


@given(st.integers(0, 10_000))
def test_a_note_that_was_cut_is_refused(length: int) -> None:
    text = json.dumps(rejoin.as_json(kept()))
    if length < len(text):
        with pytest.raises(ValueError):
            rejoin.from_json(json.loads(text[:length]))


def test_a_note_is_of_the_resync_with_its_identifier_and_of_no_other() -> None:
    assert rejoin.is_of(kept().note, AFTER) and rejoin.is_of(kept(TARGET).note, AFTER)
    assert not rejoin.is_of(kept().note, (NEW, *AFTER)), "the nodes have parted and met again since"
    assert not rejoin.is_of(kept().note, ())
    assert not rejoin.is_of(kept(base=rejoin.key(0)).note, (0, 0)), "none is no identifier"


# --- several resyncs -------------------------------------------------------------------------------------------------


@given(ranges, ranges)
def test_a_resync_that_was_broken_off_is_added_to_the_next(before: tuple[Range, ...], after: tuple[Range, ...]) -> None:
    first = kept(SOURCE, before, noted=NOW - 100, first=NOW - 100, parted=NOW - 900)
    found = rejoin.together(first, kept(SOURCE, after), (NEW, OLD + (1 << 48), 0, 0))
    assert {*before, *after} <= {
        (at, BLOCK) for start, length in found.ranges for at in range(start, start + length, BLOCK)
    }
    assert found.bytes == len({*before, *after}) * BLOCK
    assert (found.note.first, found.note.noted, found.note.parted) == (NOW - 100, NOW, NOW - 900)


def test_what_was_not_compared_when_they_parted_again_is_added() -> None:
    """The data's identifier of then is now the bitmap's."""
    third = 0xAAAAAAAAAAAAAAAA
    now = kept(SOURCE, ((BLOCK, BLOCK),), base=rejoin.key(NEW), current=f"{third:016X}")
    assert rejoin.together(kept(), now, (third, NEW, OLD, 0)).ranges == ((0, 2 * BLOCK),)


@pytest.mark.parametrize("before", [None, kept(checked=NOW - 1)])
def test_what_is_compared_is_not_added(before: Kept | None) -> None:
    now = kept(SOURCE, ((BLOCK, BLOCK),))
    assert rejoin.together(before, now, (NEW, OLD, 0, 0)) == now


@pytest.mark.parametrize(
    "before",
    [
        kept(first=NOW - 8 * 86400),
        kept(size=2 * GIB),
        kept(base="0" * 11 + "2", current="0" * 15 + "4"),
        kept(SOURCE, (), size=0, short="no bitmap"),
    ],
)
def test_what_was_never_compared_and_cannot_be_added_is_told(before: Kept) -> None:
    """An attempt may have copied blocks whose bits are gone."""
    now = kept(SOURCE, ((BLOCK, BLOCK),))
    found = rejoin.together(before, now, (NEW, OLD, 0, 0))
    assert found.ranges == now.ranges and "never compared" in str(found.note.short)
    told = rejoined.bring_together(CONFIG, ("a", found, None), ("b", kept(TARGET), None), AFTER).short
    assert len(told) == 1 and "never compared" in told[0]


def test_a_failed_attempt_leaves_the_list_of_the_one_before_and_says_so() -> None:
    failed = kept(SOURCE, (), size=0, short="no bitmap", noted=NOW + 9)
    found = rejoin.together(kept(), failed, ())
    assert found.ranges == kept().ranges and found.note.noted == NOW + 9 and found.note.short == "no bitmap"


@pytest.mark.parametrize(("count", "whole"), [(0, True), (1, True), (2, False)])
def test_resyncs_between_two_notes_are_counted(count: int, whole: bool) -> None:
    before = kept(counted=f"{OLD:016X}")
    now = kept(SOURCE, ((BLOCK, BLOCK),), counted=f"{OLD + (count << 48):016X}")
    assert (rejoin.together(before, now, (NEW, OLD)).note.short is None) is whole


@pytest.mark.parametrize(("since", "whole"), [(0, True), (1, True), (2, False), (0xFFFF, False)])
def test_resyncs_since_the_note_are_counted(since: int, whole: bool) -> None:
    """Where the handler was not there any more, DRBD's count is."""
    history = ((OLD + (since << 48)) & ((1 << 64) - 1), 0)
    mine = ("a", kept(counted=f"{OLD:016X}"), None)
    found = rejoined.bring_together(CONFIG, mine, ("b", kept(TARGET), None), history)
    assert (found.short == ()) is whole


def test_only_the_note_that_was_compared_is_marked(folder: Path) -> None:
    rejoin.write("r0", 0, kept())
    rejoin.compared("r0", 0, NOW - 1, NOW + 5, "b", "clean")
    assert rejoin.read("r0", 0) == kept(), "another rejoin came in between"
    rejoin.compared("r0", 0, NOW, None, "b", "diverged")
    assert rejoin.read("r0", 0) == kept(leader="b", verdict="diverged"), "stopped, when it had found a difference"
    rejoin.compared("r0", 0, NOW, NOW + 5, "b", "clean")
    assert rejoin.read("r0", 0) == kept(checked=NOW + 5, leader="b", verdict="clean")


def test_a_note_beside_an_attempt_that_was_not_noted_is_not_whole(folder: Path) -> None:
    folder.mkdir()
    (folder / "r0.0.json.begun").write_text("\n")
    with pytest.raises(rejoin.Unknown, match="was not written"):
        rejoin.read("r0", 0)
    rejoin.write("r0", 0, kept())
    assert rejoin.read("r0", 0) == kept(short=rejoin.LOST)
    rejoin.noted("r0", 0)
    assert rejoin.read("r0", 0) == kept()


@given(ranges, st.integers(1, 8))
def test_a_list_that_is_too_long_is_coarser_and_misses_nothing(found: tuple[Range, ...], most: int) -> None:
    coarse, gap = written.coarser(found, GIB, most)
    assert len(coarse) <= most and (gap > BLOCK or coarse == found)
    assert all(two - (one + length) >= gap for (one, length), (two, _) in pairwise(coarse)), (
        "no more than what is near is joined"
    )
    assert {coarse[0][0], sum(coarse[-1])} == {found[0][0], sum(found[-1])} if found else not coarse
    assert all(any(at <= start and start + size <= at + length for at, length in coarse) for start, size in found)


# --- both nodes' lists -----------------------------------------------------------------------------------------------


def test_the_lists_of_both_nodes_are_compared_together() -> None:
    other = kept(TARGET, ((8 * BLOCK, BLOCK),), noted=NOW + 1)
    for here, there in ((("a", kept(), None), ("b", other, None)), (("b", other, None), ("a", kept(), None))):
        found = rejoined.bring_together(CONFIG, here, there, AFTER)
        assert found.ranges == ((0, BLOCK), (8 * BLOCK, BLOCK)) and found.short == ()
        assert (found.parted, found.met) == (NOW - 60, NOW + 1)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (("b", None, None), "it has noted nothing of this rejoin"),
        (("b", None, "ssh: no route"), "ssh: no route"),
        (("b", kept(TARGET, base="0" * 12), None), "it has noted nothing of this rejoin"),
        (("b", kept(TARGET, (), base="0" * 12, size=0, short="no bitmap"), None), "no bitmap"),
    ],
)
def test_a_part_that_is_missing_is_told(other: rejoined.Noted, told: str) -> None:
    found = rejoined.bring_together(CONFIG, ("a", kept(), None), other, AFTER)
    assert found.ranges == ((0, BLOCK),) and len(found.short) == 1 and told in found.short[0], found.short
    assert found.own == NOW and found.other is None


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (None, "a has noted nothing"),
        (kept(base=rejoin.key(NEW)), "is of another resync"),
        (kept(TARGET), "a was the target"),
        (kept(SOURCE, (), base="0" * 12, size=0, short="no bitmap"), "no bitmap"),
    ],
)
def test_without_the_sources_list_nothing_is_claimed(own: Kept | None, told: str) -> None:
    with pytest.raises(VerifyRefused, match=told):
        rejoined.bring_together(CONFIG, ("a", own, None), ("b", kept(TARGET), None), AFTER)


def test_the_other_node_is_answered_with_what_it_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(rejoined.answer(CONFIG, rejoined.SHOW)) is None
    rejoin.write("r0", 0, kept())
    assert rejoin.from_json(json.loads(rejoined.answer(CONFIG, rejoined.SHOW))) == kept()
    asked: list[list[str]] = []

    def run(line: list[str], **_: object) -> command.Result:
        asked.append(line)
        return command.Result(0, rejoined.answer(CONFIG, line[-1].split()[-1]), "")

    monkeypatch.setattr(command, "run", run)
    rejoined.compared(CONFIG, "b", rejoined.Listed((), None, NOW, (), None, NOW), "b", "clean", whole=True)
    found = rejoin.read("r0", 0)
    assert found is not None and found.note.checked is not None and len(asked) == 1
    assert (found.note.leader, found.note.verdict) == ("b", "clean")
    with pytest.raises(ValueError):
        rejoined.answer(CONFIG, "anything")
    with pytest.raises(ValueError):
        rejoined.answer(CONFIG, "compared=1.0=b=splendid")


# --- what is said of it ----------------------------------------------------------------------------------------------

ENDED = Check("rejoin", "a", "clean", NOW + 1, NOW + 5, GIB, GIB)
OLDER = replace(ENDED, ended=NOW - 1)
FOUND = replace(ENDED, verdict="diverged", diverged=BLOCK)


@pytest.mark.parametrize(
    ("one", "known", "record", "stage", "told"),
    [
        (kept(), Identifiers(NEW, OLD, (0, 0)), None, Stage.APART, "the nodes are apart or being synchronized"),
        (kept(), None, None, Stage.APART, "the nodes are apart"),
        (kept(), Identifiers(NEW, 0, AFTER), None, Stage.PENDING, "not compared yet; met 1 minute ago, 4 KiB noted"),
        (kept(), Identifiers(NEW, 0, (NEW, OLD)), None, Stage.NOT_NOTED, "was not noted"),
        (kept(size=0, short="why"), Identifiers(NEW, 0, AFTER), None, Stage.NOT_NOTED, "was not noted (why)"),
        (kept(short="half"), Identifiers(NEW, 0, AFTER), None, Stage.PENDING, "and half"),
        (
            kept(checked=NOW + 5),
            Identifiers(NEW, 0, AFTER),
            Record(ENDED, ENDED),
            Stage.COMPARED,
            "last rejoin: clean, rejoin, moments ago (1 GiB)",
        ),
        (
            kept(TARGET, checked=NOW, leader="a", verdict="diverged"),
            Identifiers(NEW, 0, AFTER),
            Record(OLDER, OLDER),
            Stage.COMPARED,
            "last rejoin: diverged, compared by the other node",
        ),
        (
            kept(checked=NOW + 9, leader="b", verdict="unsettled"),
            Identifiers(NEW, 0, AFTER),
            Record(ENDED, ENDED),
            Stage.COMPARED,
            "last rejoin: unsettled, compared by the other node",
        ),
        (kept(), Identifiers(NEW, OLD, ()), Record(OLDER, OLDER), Stage.APART, "the nodes are apart"),
        (kept(), Identifiers(NEW, 0, AFTER), Record(OLDER, OLDER), Stage.PENDING, "last rejoin: not compared yet"),
        (kept(), Identifiers(NEW, 0, AFTER), Record(FOUND, FOUND), Stage.PENDING, "last rejoin: diverged"),
        (kept(verdict="diverged"), Identifiers(NEW, 0, AFTER), None, Stage.PENDING, "diverged, and not compared to"),
        (kept(late="late"), Identifiers(NEW, 0, AFTER), None, Stage.PENDING, "and late"),
    ],
)
def test_what_is_known_of_a_rejoin(
    one: Kept, known: Identifiers | None, record: Record | None, stage: Stage, told: str
) -> None:
    found = rejoin_status.status(one, known, record)
    assert found is not None and found.stage is stage
    assert told in found.line(format_size, NOW + 60), found.line(format_size, NOW + 60)
    json.dumps(found.as_json())


def test_without_any_note_nothing_is_said() -> None:
    assert rejoin_status.status(None, Identifiers(NEW, 0, AFTER), None) is None


# --- the record ------------------------------------------------------------------------------------------------------


def test_a_clean_rejoin_hides_no_check_of_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "last"))
    full = replace(ENDED, mode="full")
    last.keep("ha", full)
    last.keep("ha", ENDED)
    assert last.read("ha") == Record(full, full, full)
    assert last.read("ha", rejoin=True) == Record(ENDED, ENDED, ENDED)
    worse = replace(ENDED, verdict="diverged", diverged=BLOCK)
    last.keep("ha", worse)
    assert last.read("ha") == last.read("ha", rejoin=True) == Record(worse, worse, worse)
    all_of_it = replace(full, verdict="diverged", diverged=GIB)
    last.keep("ha", all_of_it)
    last.keep("ha", worse)
    assert last.read("ha") == Record(all_of_it, all_of_it, all_of_it), "what is known to differ is not made less"
    last.keep("ha", ENDED)
    assert last.read("ha") == Record(all_of_it, all_of_it, all_of_it)
    met_nothing = replace(ENDED, mode="sample")
    last.keep("ha", met_nothing)
    last.keep("ha", worse)
    assert last.read("ha") == Record(met_nothing, met_nothing, all_of_it), "nor after a sample"
