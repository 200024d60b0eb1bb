"""What the doctor tells of a replication link that runs through a bridge."""

from __future__ import annotations

import json

import pytest

from pvedrbdstor.doctor.checks import examine
from tests.doctor.world import addresses, broken


def upon(*ports: tuple[str, str], vlan: bool = False) -> str:
    """A bridge that has the address, or below a VLAN that has it, with these ports."""
    bridge = json.loads(addresses("10.77.0.1", linkinfo={"info_kind": "bridge"}))
    bridge[1]["ifname"] = "vmbr0"
    if vlan:
        own = {**bridge[1], "ifname": "vmbr0.50", "link": "vmbr0", "linkinfo": {"info_kind": "vlan"}}
        bridge = [bridge[0], {**bridge[1], "addr_info": []}, own]
    return json.dumps([*bridge, *({"ifname": name, "master": master} for name, master in ports)])


@pytest.mark.parametrize("vlan", [False, True])
def test_the_speed_of_a_bridge_is_that_of_its_wire_and_not_of_a_guest(vlan: bool) -> None:
    """The bridge tells that of its fastest port, which a guest's is where the cable has fallen back."""
    told = upon(("eno1", "vmbr0"), ("tap100i0", "vmbr0"), ("eno2", "vmbr1"), vlan=vlan)
    speeds = {"vmbr0": "10000", "vmbr0.50": "10000", "eno1": "100", "tap100i0": "10000", "eno2": "10"}
    found = {finding.id: finding for finding in examine(broken({"addresses": told, "speeds": speeds}))}
    assert found["network-slow"].title.startswith("eno1 on nodea") and "network-shared" in found
    assert "network-slow" not in {
        each.id for each in examine(broken({"addresses": told, "speeds": {**speeds, "eno1": "1000"}}))
    }
