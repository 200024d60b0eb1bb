"""Command lines of DRBD's tools, as they were used on real clusters."""

from __future__ import annotations

import inspect
import itertools

import pytest

from pvedrbdstor.drbd import commands


@pytest.mark.parametrize(
    ("built", "line"),
    [
        (commands.events2_now(), "drbdsetup events2 --now"),
        (commands.events2_now("r0", statistics=True), "drbdsetup events2 --now --statistics r0"),
        (commands.events2_stream(), "drbdsetup events2"),
        (commands.events2_stream("r0", statistics=True), "drbdsetup events2 --statistics r0"),
        (commands.show(), "drbdsetup show"),
        (commands.show("r0"), "drbdsetup show r0"),
        (commands.version(), "drbdadm --version"),
        (commands.dump(), "drbdadm dump"),
        (commands.dump("r0"), "drbdadm dump r0"),
        (commands.defined_resources(), "drbdadm sh-resources"),
        (commands.up("r0"), "drbdadm up r0"),
        (commands.down("r0"), "drbdadm down r0"),
        (commands.adjust("r0"), "drbdadm adjust r0"),
        (commands.primary("r0"), "drbdadm primary r0"),
        (commands.secondary("r0"), "drbdadm secondary r0"),
        (commands.connect("r0"), "drbdadm connect r0"),
        (commands.disconnect("r0"), "drbdadm disconnect r0"),
    ],
)
def test_a_command_line(built: list[str], line: str) -> None:
    assert built == line.split()


def test_no_builder_but_one_forces_resumes_or_discards() -> None:
    """The one is for the resolution of a split brain, whose plan preserves first (tests/split_brain/test_plan.py)."""
    apart = ("connect_discarding", "verify_part", "verify_all")
    builders = [
        f
        for name, f in inspect.getmembers(commands, inspect.isfunction)
        if not name.startswith("_") and name not in apart
    ]
    assert len(builders) > 10
    words = {*itertools.chain.from_iterable(f("r0") if inspect.signature(f).parameters else f() for f in builders)}
    assert words.isdisjoint(
        {"--force", "resume-io", "--discard-my-data", "new-current-uuid", "invalidate", "create-md"}
    )


def test_a_part_of_a_volume_is_verified_by_sectors_on_both_generations() -> None:
    assert commands.verify_part(("r0", 0), 3, None, 1 << 20, 2 << 20) == [
        *("drbdsetup", "verify", "3", "--start=2048s", "--stop=4096s")
    ]
    assert commands.verify_part(("r0", 1), 3, 2, 0, 4096)[:5] == ["drbdsetup", "verify", "r0", "2", "1"]
