"""Outages of every kind: never two sides writing, nothing lost that was acknowledged, and the loser back without an administrator.

The scenarios run side by side, each on a cluster of its own, as most of their time is waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.lab import outage, scenarios
from tests.lab.outage import Outcome, Scenario
from tests.lab.results import Results

TABLE = "Fencing"
QUICK = (
    "b-isolated",
    "drbd-port-cut",
    "one-way-ba",
    "slow-lossy",
    "flap-12",
    "both-killed",
    "b-stopped-40",
    "no-qnetd-cut",
    "full-third-node",
    "cut-during-resync",
    "no-guard-a",
    "corosync-killed-b",
    "flip",
)
QUICK_CONTROLS = ("control-flip",)
"""One of each kind, which every `./dev test` runs; the rest are for `./dev soak`."""
_CLUSTERS = 4
_MEMORY_OF_A_CLUSTER = 3 << 29  # bytes; three nodes, and disks of which little is written


def parameters(wanted: tuple[Scenario, ...], quick: tuple[str, ...]) -> list[object]:
    """All of them for `./dev soak`, whose table names them all; some of them always."""
    soak = [pytest.mark.soak, pytest.mark.alone]
    return [
        *(pytest.param(scenario, id=scenario.name) for scenario in wanted if scenario.name in quick),
        *(pytest.param(scenario, id=f"soak-{scenario.name}", marks=soak) for scenario in wanted),
    ]


def test_every_run_has_one_outage_of_each_kind() -> None:
    quick = [scenario.kind for scenario in scenarios.ALL if scenario.name in (*QUICK, *QUICK_CONTROLS)]
    assert sorted(quick) == sorted({scenario.kind for scenario in scenarios.ALL})


def side_by_side() -> int:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(_CLUSTERS, 2 * (os.cpu_count() or 1), free // _MEMORY_OF_A_CLUSTER))


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Outcome]]]:
    """What comes of the scenarios that were chosen; they are under way already."""
    mine = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    wanted = [item.callspec.params["scenario"] for item in mine if hasattr(item, "callspec")]
    chosen = {scenario.name: scenario for scenario in wanted}
    cancelled = threading.Event()
    with ThreadPoolExecutor(side_by_side(), thread_name_prefix="lab-scenario") as pool:
        try:
            longest_first = sorted(chosen.values(), key=lambda scenario: scenario.observed, reverse=True)
            yield {scenario.name: pool.submit(outage.run, scenario, cancelled) for scenario in longest_first}
        finally:
            cancelled.set()
            pool.shutdown(cancel_futures=True)


def row(results: Results, outcome: Outcome) -> None:
    """What was measured, in seconds from the first step on."""
    survivors = [name for name in outcome.survivors if name in outcome.stalls]
    resets = [f"{name} at {when:.0f}" for name, times in outcome.resets.items() for when in times]
    results.row(
        TABLE,
        key=("scenario",),
        kind=outcome.scenario.kind,
        scenario=outcome.scenario.name,
        goes_on=" and ".join(survivors) or "nobody",
        stall=", ".join(f"{outcome.stalls[name]:.1f}" for name in survivors) or "-",
        reset=", ".join(resets) or "nobody",
        missing=max((len(lost) for lost in outcome.missing.values()), default=0),
        in_sync_after_the_repair="never" if outcome.back is None else f"{outcome.back:.0f}",
    )


@pytest.mark.parametrize(
    "scenario", parameters(tuple(each for each in scenarios.ALL if each not in scenarios.CONTROLS), QUICK)
)
def test_outage_never_leaves_two_sides_writing(
    scenario: Scenario, outcomes: Mapping[str, Future[Outcome]], results: Results
) -> None:
    outcome = outcomes[scenario.name].result()
    row(results, outcome)
    assert outcome.problems() == [], outcome.report()


@pytest.mark.parametrize("scenario", parameters(scenarios.CONTROLS, QUICK_CONTROLS))
def test_obvious_rule_leaves_two_sides_writing(
    scenario: Scenario, outcomes: Mapping[str, Future[Outcome]], results: Results
) -> None:
    """These scenarios find a split brain where there is one: with the right rule they are among the others."""
    outcome = outcomes[scenario.name].result()
    row(results, outcome)
    assert outcome.two_sides_wrote, outcome.report()
    assert outcome.back is None, outcome.report()
