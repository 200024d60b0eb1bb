"""What both sides must agree upon, and how long a request can be under way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.config import parse_show
from pvedrbdstor.verify import hello as hellos
from tests.drbd.support import output_of
from tests.verify.world import hello

OWN = hello("a", 1 << 30)


def test_words_arrive() -> None:
    for found in (OWN, replace(OWN, generation=None, read_balancing=None, patience=None, verify_alg="crc32c")):
        assert hellos.from_json(hellos.as_json(found)) == found


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.just([1])


@given(st.dictionaries(st.sampled_from(["version", "node", "size", "patience", "uuid", "generation"]), _values))
def test_any_words_are_read_or_refused(words: dict[str, object]) -> None:
    data = {**hellos.as_json(OWN), **words}
    hellos.another_version(OWN, data)
    try:
        found = hellos.from_json(data)
    except ValueError:
        return
    hellos.obstacle(OWN, found, "ha")


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("", 6 * 7 + 20.5),
        ("timeout 40; ping-int 5; ping-timeout 10;", 28 + 11.0),
        ("ko-count 2;", 12 + 20.5),
        ("ko-count 0;", None),
        ("timeout many;", None),
    ],
)
def test_how_long_a_request_can_be_under_way(net: str, expected: float | None) -> None:
    text = f'resource r0 {{ net {{ {net} }} _this_host {{ volume 0 {{ disk "/dev/a"; }} }} _remote_host {{ }} }}'
    assert hellos.patience_of(parse_show(text)["r0"]) == expected


def test_in_standalone_nobody_knows() -> None:
    text = output_of("8.4/F2-splitbrain-standalone.a.txt", "drbdsetup show")
    assert text is not None and hellos.patience_of(parse_show(text)["r0"]) is None


def test_the_more_patient_node_counts() -> None:
    assert hellos.longest_patience(OWN, replace(OWN, patience=60.0)) == 60.0
    assert hellos.longest_patience(OWN, replace(OWN, patience=None)) is None
