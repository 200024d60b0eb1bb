"""Moments of a split in the kernel's log; the lines are those of DRBD 8.4.11 in the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvedrbdstor.fencing.split.kernel_log import Moments, moments, records

LOG = """60.0 drbd r0: conn( Unconnected -> WFConnection )
61.0 block drbd0: peer( Unknown -> Primary ) conn( WFReportParams -> Connected ) pdsk( DUnknown -> UpToDate )
62.0 block drbd0: conn( Connected -> VerifyS )
63.0 block drbd0: conn( VerifyS -> Connected )
64.8 drbd r0: peer( Primary -> Unknown ) conn( Connected -> NetworkFailure ) pdsk( UpToDate -> DUnknown )
64.9 block drbd0: new current UUID EDD02BC5AF3D82D7:365BCF83F6A9C585:0000000000000000:0000000000000000
64.9 drbd r0: conn( NetworkFailure -> Unconnected )
74.8 drbd r0: conn( WFConnection -> WFReportParams )
75.1 block drbd0: Split-Brain detected but unresolved, dropping connection!
75.1 drbd r0: conn( WFReportParams -> NetworkFailure )
75.3 drbd r0: conn( Disconnecting -> StandAlone )
90.1 block drbd0: Split-Brain detected but unresolved, dropping connection!
"""


def lines(text: str) -> list[tuple[float, str]]:
    return [(float(line.partition(" ")[0]), line.partition(" ")[2]) for line in text.splitlines()]


def test_parted_when_the_copy_began_a_history_of_its_own_and_found_at_the_first_handshake() -> None:
    assert moments(lines(LOG), "r0", 0) == Moments(64.9, 75.1, 75.1)


@pytest.mark.parametrize(("resource", "minor"), [("r1", 1), ("r", None)])
def test_another_resource_has_none_of_it(resource: str, minor: int | None) -> None:
    assert moments(lines(LOG), resource, minor) == Moments()


def test_a_connection_ends_it() -> None:
    solved = (
        LOG
        + "99.0 block drbd0: peer( Unknown -> Primary ) conn( WFReportParams -> WFBitMapT ) disk( UpToDate -> Outdated )\n"
    )
    assert moments(lines(solved), "r0", 0) == Moments()


def test_a_history_begun_while_connected_is_no_parting() -> None:
    before = "1.0 drbd r0: conn( WFReportParams -> Connected )\n2.0 block drbd0: new current UUID 1:2:3:4\n"
    assert moments(lines(before), "r0", 0) == Moments()
    assert moments(lines("2.0 block drbd0: new current UUID 1:2:3:4\n"), "r0", 0) == Moments(2.0)


def test_nine_says_it_with_the_peers_name() -> None:
    text = (
        "5.0 drbd r0 nodeb: conn( Connected -> NetworkFailure ) peer( Primary -> Unknown )\n"
        "5.1 drbd r0/0 drbd0: new current UUID: 1F2876730BC74927 weak: FFFFFFFFFFFFFFFE\n"
        "9.0 drbd r0 nodeb: conn( Connecting -> Connected )\n"
        "9.1 drbd r0/0 drbd0 nodeb: Split-Brain detected but unresolved, dropping connection!\n"
    )
    assert moments(lines(text), "r0", 0) == Moments(5.1, 9.1)
    assert moments(lines(text + "20.0 drbd r0/0 drbd0 nodeb: repl( Off -> Established )\n"), "r0", 0) == Moments()


def test_a_log_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert records(str(tmp_path / "none")) == []
