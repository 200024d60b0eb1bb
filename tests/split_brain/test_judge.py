"""Split brain or not, and who was last: for each case the sentence that an administrator needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.fencing.split import report
from pvedrbdstor.fencing.split.begin import refuse
from pvedrbdstor.fencing.split.compare import Change, Fate, Written
from pvedrbdstor.fencing.split.judge import Case, judge, who_was_last
from pvedrbdstor.fencing.split.plan import Refusal
from pvedrbdstor.fencing.split.report import Report
from pvedrbdstor.fencing.split.side import Side

COMMON, MINE, THEIRS, NONE = "EDD02BC5AF3D82D6", "1F2876730BC74926", "07A2F1D8C90C85B0", "0" * 16


def line(current: str, bitmap: str = NONE, flags: str = "1:1:1:0:0:0:0") -> str:
    return f"{current}:{bitmap}:{NONE}:{NONE}:{flags}"


APART = Side(
    "ha",
    "a",
    0.0,
    role="Primary",
    disk="UpToDate",
    connection="StandAlone",
    identifiers=line(MINE, COMMON),
    mounted=True,
    hint=True,
    resource="r0",
)
OTHER = replace(APART, node="b", identifiers=line(THEIRS, COMMON))
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")


@pytest.mark.parametrize(
    ("own", "other", "case"),
    [
        (APART, OTHER, Case.SPLIT),
        (replace(APART, met=True), None, Case.SPLIT),
        (APART, None, Case.PERHAPS),
        (replace(APART, connection="Connecting"), None, Case.PERHAPS),
        (replace(APART, connection="Connecting", refused=True), None, Case.PERHAPS),
        (replace(APART, connection="Connecting", refused=True), OTHER, Case.SPLIT),
        (APART, replace(OTHER, identifiers=line(COMMON)), Case.AHEAD),
        (replace(APART, identifiers=line(COMMON)), OTHER, Case.BEHIND),
        (APART, replace(OTHER, identifiers=APART.identifiers), Case.SAME),
        (APART, replace(OTHER, identifiers=line("1" * 15 + "2")), Case.UNRELATED),
        (replace(APART, met=True), replace(OTHER, identifiers=line(COMMON)), Case.AHEAD),
        (replace(APART, connection="Connected"), OTHER, Case.CONNECTED),
        (replace(APART, disk="Consistent", role="Secondary", connection="Connecting"), None, Case.ALONE),
        (replace(APART, disk=None, role=None, connection=None), None, Case.DOWN),
    ],
)
def test_cases(own: Side, other: Side | None, case: Case) -> None:
    found = judge(own, other)
    assert found.case is case and all(sentence.endswith(".") for sentence in found.sentences)
    told = Report(own, other, "b", None, found)
    refusal = refuse(told, keep="b", against=None, compares=True, users=())
    assert (refusal is None) == (case is Case.SPLIT)
    assert own.node in report.text(told, CONFIG) and report.document(told)["case"] == case.value
    said = f"{report.text(told, CONFIG)} {report.document(told)} {refusal}"
    assert "RESOURCE" not in said and "STORAGE" not in said


def test_a_node_that_hung_up_has_perhaps_found_a_split_and_perhaps_not() -> None:
    (said,) = judge(replace(APART, connection="Connecting", refused=True), None).sentences
    assert said.count("perhaps") == 2 and "split-brain show ha --local" in said


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("1:1:1:1:0:0:1", "was connected"),
        ("1:1:1:0:0:0:1", "both may have gone on"),
        ("1:1:0:0:0:0:0", "was not writing"),
        ("1:1:1:0:0:1:1", "this node was last"),
        ("1:0:0:0:0:0:0", "the other node went on"),
        ("0:0:0:0:0:0:0", "incomplete"),
    ],
)
def test_who_was_last_from_one_nodes_own_records(flags: str, word: str) -> None:
    own = replace(
        APART, disk="Consistent", role="Secondary", connection="Connecting", identifiers=line(MINE, NONE, flags)
    )
    told = " ".join(who_was_last(own, None))
    assert word in told and "Forcing means" in told
    text = report.text(Report(own, None, "b", "it is off", judge(own, None)), CONFIG)
    assert "drbdadm primary --force r0" in text and "pvedrbdstor mirror up ha --without-peer" in text


def test_who_was_last_from_both() -> None:
    alone = replace(APART, disk="Consistent", role="Secondary", connection="Connecting")
    assert "Never force this one" in " ".join(who_was_last(replace(alone, identifiers=line(COMMON)), OTHER))
    assert "a was last" not in " ".join(who_was_last(alone, OTHER))
    assert "newest" in " ".join(who_was_last(alone, replace(OTHER, identifiers=line(COMMON))))


BY_ITSELF = Refusal("after-sb-0pri is odd", "Set it")


def test_what_else_is_refused() -> None:
    split = Report(APART, OTHER, "b", None, judge(APART, OTHER))
    diskless = refuse(
        replace(split, other=replace(OTHER, disk="Diskless")), keep="b", against=None, compares=True, users=()
    )
    assert diskless is not None and "no whole copy" in diskless.cause
    running = refuse(split, keep="b", against=None, compares=True, users=("VM 100 (kvm, process 7)",))
    assert running is not None and "VM 100" in running.cause and "qm shutdown" in running.remedy
    by_itself = refuse(split, keep="b", against=BY_ITSELF, compares=True, users=())
    assert by_itself is BY_ITSELF
    stranger = refuse(split, keep="c", against=None, compares=True, users=())
    assert stranger is not None and "'c' is neither" in stranger.cause
    many = refuse(replace(split, other_name=None), keep="b", against=None, compares=True, users=())
    assert many is not None and "exactly one" in many.cause
    both = refuse(replace(split, other=replace(OTHER, resolving="a")), keep="b", against=None, compares=True, users=())
    assert both is not None and "b has a resolution of its own open, which keeps a's copy" in both.cause


def test_without_a_common_moment_of_both_bitmaps_only_a_comparison_proves_the_resync() -> None:
    met = Report(replace(APART, met=True), None, "b", "no route to host", judge(replace(APART, met=True), None))
    refused = refuse(met, keep="b", against=None, compares=False, users=())
    assert refused is not None and "verify-alg" in refused.cause
    assert refuse(met, keep="b", against=None, compares=True, users=()) is None


def test_the_text_names_both_ways_and_what_each_side_loses() -> None:
    change = Change("images/100/vm-100-disk-0.raw", Fate.DIFFERS, Written(4096, 4096), Written(0, 0))
    text = report.text(Report(APART, OTHER, "b", None, judge(APART, OTHER), (change,)), CONFIG)
    assert "split-brain resolve ha --keep b" in text and "split-brain resolve ha --keep a" in text
    assert "what was written to images/100/vm-100-disk-0.raw (4 KiB)" in text and "nothing that is known" in text
    lines = text.splitlines()
    assert lines.index("To keep b's copy, run on a, this node:") < lines.index("To keep a's copy, run on b:")
