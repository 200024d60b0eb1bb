"""The seal: what DRBD counts tells whether anything was written, and nobody's word is no word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.fencing.split.seal import Seal, holds

SEAL = Seal("boot", 4711, 1200, 77)


@pytest.mark.parametrize(
    "now",
    [
        replace(SEAL, written=1204),
        replace(SEAL, written=0),
        replace(SEAL, requests=78),
        replace(SEAL, device=4712),
        replace(SEAL, boot="another"),
        Seal("boot"),
    ],
)
def test_it_is_broken_by_a_write_a_new_device_a_boot_and_while_drbd_is_down(now: Seal) -> None:
    assert holds(SEAL, SEAL) and not holds(SEAL, now)


def test_where_drbd_does_not_count_it_holds_nothing() -> None:
    silent = replace(SEAL, written=None)
    assert not holds(silent, silent) and not holds(Seal("boot"), Seal("boot"))
