"""What the bench calls met and missed, and how it says so."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

from bench.goals import Comparison, Faster, Goal, NoGoal, Series, Share, Timing, Within, percentile
from bench.picture import svg
from bench.report import Report, as_json, between, markdown, replace_between, table


def series(*own: float, sync: float = 0.0) -> Series:
    return Series("some", tuple(Timing(seconds + sync, sync) for seconds in own))


def test_syncing_is_counted_apart() -> None:
    measured = series(0.004, 0.002, 0.003, sync=0.5)
    assert measured.own == pytest.approx(0.003)
    assert measured.sync == pytest.approx(0.5)


@pytest.mark.parametrize(("ours", "met"), [(0.0049, True), (0.005, True), (0.0051, False)])
def test_a_factor_is_met_when_ours_is_that_much_faster(ours: float, met: bool) -> None:
    assert Faster(200).judge(series(ours), series(1.0)).met is met


def test_a_limit_holds_for_the_95th_percentile_of_the_cpu_time_too() -> None:
    calm, restless = (
        Series("some", tuple(Timing(0.04, cpu=cpu) for cpu in times))
        for times in ([0.01] * 20, [0.01] * 18 + [0.03] * 2)
    )
    assert Faster(2, limit=0.025).judge(calm, series(1.0)).met is True
    assert Faster(2, limit=0.025).judge(restless, series(1.0)).met is False


def test_what_other_programs_take_counts_against_the_factor() -> None:
    assert Faster(30, limit=0.025).judge(Series("some", (Timing(0.04, cpu=0.01),)), series(1.0)).met is False


@pytest.mark.parametrize(("ours", "met"), [(0.0032, True), (0.0034, False)])
def test_a_bound_grows_with_the_bare_call(ours: float, met: bool) -> None:
    assert Within(1.3, plus=0.002).judge(series(ours), series(0.001)).met is met


@pytest.mark.parametrize(("ours", "met"), [(1.0, True), (1.11, True), (1.12, False)])
def test_a_share_of_the_reference_s_rate_is_met_by_who_takes_not_much_longer(ours: float, met: bool) -> None:
    verdict = Share(0.9, 2_000_000_000).judge(series(ours), series(1.0))
    assert verdict.met is met
    assert verdict.measured.endswith("GB/s and 2 GB/s")


def test_what_has_no_goal_is_neither_met_nor_missed() -> None:
    verdict = NoGoal().judge(series(2.0), series(1.0))
    assert (verdict.met, verdict.measured) == (None, "2 times slower")


def test_the_95th_percentile_is_a_value_that_was_measured() -> None:
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([7.0], 95) == 7.0


def report(goal: Goal) -> Report:
    row = Comparison("list <1000> images", series(0.01, 0.012), series(5.0, sync=0.001), goal)
    return Report("Title & more", "./dev bench", {"cores": "2"}, "a baseline", [row])


def test_a_missed_goal_is_shown_as_missed() -> None:
    missed, met = report(Faster(1000)), report(Faster(200))
    assert "NOT MET" in table(missed) and "NOT MET" in markdown(missed)
    assert "goal missed" in svg(missed) and 'class="missed"' in svg(missed)
    assert json.loads(as_json(missed))["rows"][0]["met"] is False
    assert "NOT MET" not in table(met) and "goal missed" not in svg(met)
    assert len(missed.missed) == 1 and met.missed == []


def test_the_picture_is_well_formed() -> None:
    root = ElementTree.fromstring(svg(report(Faster(200))))
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "list <1000> images" in words and "Title & more" in words


def test_the_table_in_the_docs_replaces_the_one_between_the_markers() -> None:
    page = "before\n<!-- x -->\nold\n<!-- /x -->\nafter\n"
    assert between(page, "x") == "old"
    assert replace_between(page, "x", "new") == "before\n<!-- x -->\nnew\n<!-- /x -->\nafter\n"
    with pytest.raises(ValueError, match="markers"):
        replace_between("no markers", "x", "new")
