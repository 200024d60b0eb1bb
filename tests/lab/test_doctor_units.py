"""What `pvedrbdstor doctor` finds of the package's units, under a real systemd; each cleared by its own remedy."""

from __future__ import annotations

import pytest

from pvedrbdstor.doctor.units import UNITS
from tests.lab.cluster import Cluster
from tests.lab.doctoring import Finding, findings
from tests.lab.node import Node
from tests.lab.test_systemd import booted

__all__ = ["booted"]
REPRODUCES = {"unit-failed", "unit-off"}


def of_units(node: Node) -> dict[str, Finding]:
    """By title. An emulated processor may take longer than a source has, which the doctor tells: then once more."""
    for _ in range(5):
        found = findings(node, "--local")
        if not any(each["id"] == "unread" and "package's units" in each["title"] for each in found):
            return {each["title"]: each for each in found if each["id"].startswith("unit-")}
    raise AssertionError(found)


def run_in_its_place(node: Node, program: str) -> None:
    """A stand-in for the guard, which only runs where the package is installed."""
    folder = "/run/systemd/system/pvedrbdstor-fence.service.d"
    text = f"[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nWatchdogSec=0\\nRestart=no\\nExecStart=\\nExecStart={program}\\n"
    node.run(f"mkdir -p {folder} && printf '{text}' >{folder}/stand-in.conf && systemctl daemon-reload", 60)


@pytest.mark.soak
@pytest.mark.alone
def test_units_that_failed_or_are_off_are_told_and_started_as_told(booted: Cluster) -> None:
    node = booted.a
    node.run(f"systemctl enable {' '.join(UNITS)}", 120)
    run_in_its_place(node, "/bin/false")
    node.sh("systemctl restart pvedrbdstor-fence.service", 120)
    node.run("systemctl disable --now pvedrbdstor-boot.service", 120)
    told = of_units(node)
    assert set(told) == {
        "pvedrbdstor-fence.service has failed on nodea",
        "pvedrbdstor-boot.service is disabled on nodea",
        "pvedrbdstor-metadata.timer is not running on nodea",  # enabled above, and not started
    }, list(told)
    run_in_its_place(node, "/bin/true")  # mended
    for command in told["pvedrbdstor-fence.service has failed on nodea"]["commands"]:
        node.run(command, 120)
    for command in told["pvedrbdstor-boot.service is disabled on nodea"]["commands"]:
        node.sh(command, 200)  # there is no storage yet that could come up
    (start,) = told["pvedrbdstor-metadata.timer is not running on nodea"]["commands"]
    node.run(start, 120)
    assert of_units(node).keys() <= {"pvedrbdstor-boot.service has failed on nodea"}
