"""The disk below a DRBD device, from what both generations of the tools have printed."""

from __future__ import annotations

import pytest

from pvedrbdstor.drbd.lower import LowerDisk, lower_disk
from tests.drbd.support import output_of

SHOWN = """\
resource r0 {
    net { protocol %s; }
    _remote_host { address ipv4 10.0.0.2:7789; }
    _this_host {
        address ipv4 10.0.0.1:7789;
        volume 0 { device minor 0; disk "/dev/vg/other"; meta-disk internal; }
        volume 1 { device minor 1; disk "/dev/vg/lower"; meta-disk internal; disk { disk-flushes no; } }
    }
}
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("8.4/04-mounted-both.a.txt", LowerDisk("/dev/ubda", ("C",), True)),
        ("9/04-mounted-both.a.txt", LowerDisk("/dev/vda", ("C",), True)),
        ("8.4/F4-b-diskless-mounted.b.txt", None),
    ],
)
def test_it_is_told_by_both_generations_and_not_where_there_is_none(name: str, expected: LowerDisk | None) -> None:
    shown = output_of(name, "drbdsetup show")
    assert shown and lower_disk(shown, "r0", 0) == expected


def test_each_volume_has_its_own_and_what_makes_it_less_safe() -> None:
    assert lower_disk(SHOWN % "A", "r0", 1) == LowerDisk("/dev/vg/lower", ("A",), False)


@pytest.mark.parametrize(("resource", "volume"), [("r1", 0), ("r0", 2)])
def test_another_resource_or_volume_has_none_here(resource: str, volume: int) -> None:
    assert lower_disk(SHOWN % "C", resource, volume) is None


def test_what_is_cut_off_tells_nothing() -> None:
    assert lower_disk((SHOWN % "C")[:-4], "r0", 0) is None
