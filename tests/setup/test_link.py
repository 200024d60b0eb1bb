"""What follows from what was measured: the speed that DRBD goes by, what is told, what is in the way; and a plan that stays the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import blocks
from pvedrbdstor.setup import link, values
from pvedrbdstor.setup.facts import Interface
from pvedrbdstor.setup.link import Measured
from pvedrbdstor.setup.network import Link
from pvedrbdstor.setup.plan import Plan, make
from tests.setup import world

TEN = Link("10.10.10.0/24", {"pve1": "10.10.10.1", "pve2": "10.10.10.2"}, 10000, {"pve1": 9000, "pve2": 9000})
UNTOLD = replace(TEN, speed=None)


def measured(one: int, other: int | None = None, round_trip: int = 90) -> Measured:
    return Measured({"pve1": one, "pve2": one if other is None else other}, round_trip, True)


FAILED = Measured({}, problem="port 7789 is in use on pve2", remedy="Look who has it")


@pytest.mark.parametrize(
    ("of", "found", "speed"),
    [
        (TEN, None, 10000),
        (TEN, FAILED, 10000),
        (TEN, measured(9400), 10000),
        (TEN, measured(40000), 10000),
        (TEN, measured(8900), 8900),
        (TEN, measured(9400, 940), 940),
        (UNTOLD, None, None),
        (UNTOLD, FAILED, None),
        (UNTOLD, measured(930), 930),
    ],
)
def test_the_speed_is_the_slower_of_what_is_told_and_measured(
    of: Link, found: Measured | None, speed: int | None
) -> None:
    assert link.speed(of, found) == speed


@given(st.integers(0, 10**7))
def test_numbers_are_rounded_to_two_digits(number: int) -> None:
    found = link.rounded(number)
    assert len(str(found).rstrip("0")) <= 2 and abs(found - number) <= number * 0.05
    assert link.rounded(found) == found


def settings(plan: Plan) -> dict[str, str]:
    text = next(file.content for step in plan.steps for file in step.files if file.path.endswith("r0.res"))
    return {
        key: value
        for name in ("net", "disk")
        for each in blocks.parse(text).blocks[0].named(name)
        for key, (value, *_) in each.options.items()
    }


def planned(found: Measured | None, told: int | None = 10000) -> Plan:
    nodes = {
        node: replace(
            each, interfaces=tuple(replace(one, speed=told) if one.name == "ens1" else one for one in each.interfaces)
        )
        for node, each in world.nodes().items()
    }
    made = make(nodes, world.answers(), "pve1", found)
    assert isinstance(made, Plan), made
    return made


@pytest.mark.parametrize(
    ("found", "told", "rate", "floor", "buffers"),
    [
        (measured(9400), 10000, "715M", "59M", "20000"),
        (measured(9400), None, "672M", "56M", "20000"),
        (measured(2300), 10000, "164M", "13M", "8000"),
        (measured(930), 10000, "66M", "5M", None),
        (FAILED, 10000, "715M", "59M", "20000"),
        (None, None, None, None, None),
    ],
)
def test_drbd_s_rates_and_buffers_go_by_it(
    found: Measured | None, told: int | None, rate: str | None, floor: str | None, buffers: str | None
) -> None:
    had = settings(planned(found, told))
    assert (had.get("c-max-rate"), had.get("c-min-rate")) == (rate, floor)
    assert had.get("max-buffers") == had.get("max-epoch-size") == buffers


def noted(plan: Plan, words: str) -> bool:
    return any(words in note for note in plan.notes)


def test_a_good_link_is_no_matter_for_a_note() -> None:
    assert not any("10.10.10.0/24" in note for note in planned(measured(9400)).notes)


def test_what_is_wrong_with_it_is_told_with_what_to_do() -> None:
    assert noted(planned(measured(900)), "gave 900 Mbit/s of the 10 Gbit/s that its driver tells")
    assert noted(
        planned(measured(9400, 940)),
        "far slower in one direction than in the other (9.4 Gbit/s to pve1, 940 Mbit/s to pve2)",
    )
    assert noted(planned(measured(9400, round_trip=1500)), "takes 1.5 ms")
    assert noted(planned(FAILED), "Look who has it, then plan again.")
    assert noted(planned(FAILED, None), "stay what they are by default")
    assert noted(planned(None), "as you have said")


def test_where_the_plan_opens_the_firewall_itself_that_is_said() -> None:
    on = {node: world.with_files(each, firewall="[OPTIONS]\nenable: 1\n") for node, each in world.nodes().items()}
    made = make(on, world.answers(), "pve1", FAILED)
    assert isinstance(made, Plan) and noted(made, "'setup apply' opens Proxmox's own, which is on.")


def test_an_mtu_that_does_not_pass_is_refused() -> None:
    made = make(world.nodes(), world.answers(), "pve1", Measured({}, 90, False))
    assert not isinstance(made, Plan)
    (refusal,) = made
    assert "9000 bytes" in refusal.cause and "mtu 1500" in refusal.remedy


@pytest.mark.parametrize("found", [measured(9400, 8800), FAILED, None])
def test_a_plan_keeps_it_and_is_made_again_from_it(found: Measured | None) -> None:
    plan = planned(found)
    assert values.decode(Plan, values.encode(plan)) == plan
    assert planned(plan.measured) == plan


def test_the_smaller_mtu_of_two_is_what_is_told() -> None:
    mixed = replace(TEN, mtus={"pve1": 9000, "pve2": 1500})
    assert "MTU 1500 and 9000" in link.words(mixed, measured(9400))
    assert Interface("ens1", (), 1500).speed is None and "the driver tells no speed" in link.words(
        UNTOLD, measured(930)
    )
