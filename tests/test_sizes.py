"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import BadSize
from pvedrbdstor.sizes import format_size, parse_new_size, parse_size

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32G", 32 << 30),
        ("32g", 32 << 30),
        ("32GiB", 32 << 30),
        ("32GB", 32 << 30),
        ("1.5T", 3 << 39),
        ("512M", 512 << 20),
        ("4K", 4096),
        ("33554432", 32 << 30),
    ],
)
def test_size_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "G", "-1", "-1G", "+1G", "0", "0G", "0.0T", "1e3", "1_000", "1,5G", "32 G", "32X", "0x10", "nan", "inf"),
        *("1.5", "1B", "1iB", "1.0001K", "0.000000001G", "1G\n", "\uff11G", "1" * 21, "1" * 5000),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadSize):
        parse_size(text)


@given(st.integers(1, 10**12), st.sampled_from(list(UNITS)))
def test_whole_number_with_a_unit_is_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * UNITS[unit]


@given(st.integers(1, 10**18))
def test_bare_number_counts_kib(number: int) -> None:
    assert parse_size(str(number)) == number * 1024


@given(st.text())
def test_any_text_is_a_size_in_whole_kib_or_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except BadSize:
        return
    assert size > 0
    assert size % 1024 == 0


@given(st.integers(1, 1 << 60), st.integers(1, 10**6))
def test_plus_adds_to_the_current_size(current: int, number: int) -> None:
    assert parse_new_size(f"+{number}M", current) == current + (number << 20)
    assert parse_new_size(f"{number}M", current) == number << 20


@pytest.mark.parametrize("text", ["-1G", "-", "+", "+-1G", "++1G", "+0"])
def test_new_size_only_grows(text: str) -> None:
    with pytest.raises(BadSize):
        parse_new_size(text, 1 << 30)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (200 << 20, "200 MiB"),
        (32 << 30, "32 GiB"),
        (100 << 30, "100 GiB"),
        (1500 << 30, "1.46 TiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_size_as_people_read_it(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 63))
def test_size_people_read_is_near_the_real_one(size: int) -> None:
    number, unit = format_size(size).split(" ")
    factor = {"B": 1, **{f"{name}iB": value for name, value in UNITS.items()}, "EiB": 1 << 60}[unit]
    assert abs(float(number) * factor - size) <= 0.01 * size
