"""Whatever a node, a tool or a file says, the doctor never fails over it."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pvedrbdstor.doctor import words
from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.facts import BadFacts, Look, Node, as_json, from_json
from pvedrbdstor.doctor.guests import volumes_in
from pvedrbdstor.doctor.kernels import order
from tests.doctor.world import HA, healthy, node

GOOD = dict(node("a").values)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def damaged(value: object) -> st.SearchStrategy[object]:
    """The good value with some of it cut out, put twice, or of another kind."""
    if isinstance(value, str):
        places = st.integers(0, len(value))
        return st.tuples(places, places, st.text(max_size=10)).map(
            lambda cut: value[: cut[0]] + cut[2] + value[cut[1] :]
        )
    if isinstance(value, dict) and value:
        key = st.sampled_from(sorted(value))
        return key.flatmap(lambda name: (damaged(value[name]) | JSON).map(lambda other: {**value, name: other}))
    if isinstance(value, list) and value:
        return damaged(value[0]).map(lambda other: [other, *value])
    return JSON


SOURCE = st.sampled_from(sorted(GOOD))
DAMAGE = SOURCE.flatmap(lambda name: st.tuples(st.just(name), damaged(GOOD[name])))


def told(look: Look) -> None:
    found = examine(look)
    assert [finding.title for finding in found if finding.id == "check-broke"] == []
    assert words.text(look, found)
    json.dumps(words.as_json(look, found))


@example([("guests:ha", {"named": [{"vmid": [], "key": [], "volume": []}]})], [])
@settings(max_examples=50, deadline=None)
@given(st.lists(DAMAGE, max_size=3), st.lists(DAMAGE, max_size=3))
def test_damaged_sources(here: list[tuple[str, object]], there: list[tuple[str, object]]) -> None:
    a, b = (
        replace(node(letter), values={**node(letter).values, **dict(damage)})
        for letter, damage in (("a", here), ("b", there))
    )
    told(Look(a, (b,), {}, (HA,)))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(SOURCE, JSON, max_size=6))
def test_sources_of_any_kind(values: dict[str, object]) -> None:
    told(Look(Node("nodea", "0.1.0", 1.8e9, values), (), {}, (HA,)))


@settings(max_examples=40, deadline=None)
@given(
    JSON
    | st.fixed_dictionaries(
        {"format": st.just(1), "node": SCALARS, "version": SCALARS, "at": SCALARS, "values": JSON, "unread": JSON}
    )
)
def test_any_document_of_another_node(document: object) -> None:
    try:
        found = from_json(document, asked=0.0, heard=1.0)
    except BadFacts as error:
        assert str(error)
    else:
        told(Look(node("a"), (found,), {}, (HA,)))


def test_a_node_comes_back_as_it_was_told() -> None:
    there = healthy().others[0]
    assert from_json(json.loads(json.dumps(as_json(there))), asked=there.asked, heard=there.heard) == there


@given(st.text())
def test_any_configuration_of_a_guest(text: str) -> None:
    assert all(volume.count("/") == 1 for _, volume in volumes_in(text, ["ha"], "/mnt/o"))


@given(st.lists(st.text(), max_size=5))
def test_any_releases_have_an_order(releases: list[str]) -> None:
    assert len(sorted(releases, key=order)) == len(releases)
    assert sorted(["6.8.12-10-pve", "6.14.0-1-pve", "6.8.12-9-pve"], key=order)[-1] == "6.14.0-1-pve"
