"""What `pvedrbdstor doctor` finds of the package's units, under a real systemd; each cleared by its own remedy."""

from __future__ import annotations

import pytest

from pvedrbdstor.doctor.units import UNITS
from tests.lab.cluster import Cluster
from tests.lab.doctoring import findings
from tests.lab.node import Node
from tests.lab.test_systemd import booted

__all__ = ["booted"]
REPRODUCES = {"unit-failed", "unit-off"}


def of_units(node: Node) -> dict[str, str]:
    """Title -> id."""
    return {each["title"]: each["id"] for each in findings(node, "--local") if each["id"].startswith("unit-")}


@pytest.mark.soak
@pytest.mark.alone
def test_units_that_failed_or_are_off_are_told_and_started_as_told(booted: Cluster) -> None:
    node = booted.a
    node.run(f"systemctl enable {' '.join(UNITS)}", 120)
    node.run("mkdir -p /run/systemd/system/pvedrbdstor-fence.service.d")
    node.run(
        "printf '[Service]\\nType=oneshot\\nWatchdogSec=0\\nRestart=no\\nExecStart=\\nExecStart=/bin/false\\n' "
        ">/run/systemd/system/pvedrbdstor-fence.service.d/broken.conf && systemctl daemon-reload"
    )
    node.sh("systemctl restart pvedrbdstor-fence.service", 120)
    node.run("systemctl disable --now pvedrbdstor-boot.service", 120)
    found = [each for each in findings(node, "--local") if each["id"].startswith("unit-")]
    told = {each["title"]: each for each in found}
    assert set(told) == {
        "pvedrbdstor-fence.service has failed on nodea",
        "pvedrbdstor-boot.service is disabled on nodea",
        "pvedrbdstor-metadata.timer is not running on nodea",  # enabled above, and not started
    }, found
    node.run("rm /run/systemd/system/pvedrbdstor-fence.service.d/broken.conf && systemctl daemon-reload", 60)
    for command in told["pvedrbdstor-fence.service has failed on nodea"]["commands"]:
        node.run(command, 120)
    for command in told["pvedrbdstor-boot.service is disabled on nodea"]["commands"]:
        node.sh(command, 200)  # there is no storage yet that could come up
    (start,) = told["pvedrbdstor-metadata.timer is not running on nodea"]["commands"]
    node.run(start, 120)
    assert of_units(node).keys() <= {"pvedrbdstor-boot.service has failed on nodea"}
