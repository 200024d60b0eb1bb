"""How the other node is reached: what is told to be typed is what the program runs."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import nodes
from pvedrbdstor.doctor import look
from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.nodes import Way, asking, copying
from pvedrbdstor.verify.remote import same_version
from tests.doctor.breaking import silent
from tests.doctor.world import broken

WAYS = (Way("b"), Way("b", "10.0.0.2"), Way("b", "fd00::2", "/etc/pve/nodes/b/ssh_known_hosts"))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As Proxmox 8.2 and later have it: pve2 with its host key, pve3 without."""
    (tmp_path / "members").write_text(
        json.dumps({"nodelist": {"pve2": {"ip": "10.0.0.2"}, "pve3": {"ip": "10.0.0.3"}}})
    )
    (tmp_path / "pve2").touch()
    monkeypatch.setattr(nodes, "MEMBERS", str(tmp_path / "members"))
    monkeypatch.setattr(nodes, "KNOWN_HOSTS", f"{tmp_path}/{{node}}")
    return tmp_path


@pytest.mark.parametrize("way", WAYS, ids=["a name", "an address", "a host key"])
def test_what_is_to_be_typed_is_what_runs(way: Way) -> None:
    assert shlex.split(asking(way, "true")) == nodes.ssh(way, ["true"])
    typed = shlex.split(copying(way, "/etc/x", "/etc/y"))
    options = nodes.ssh(way, ["true"])[1:-3]
    assert typed[1:-2] == options and typed[-1] == "/etc/y"
    host = way.address or way.node
    assert typed[-2] == (f"root@[{host}]:/etc/x" if ":" in host else f"root@{host}:/etc/x")


@pytest.mark.usefixtures("cluster")
def test_texts_have_the_address_and_the_host_key_of_the_cluster() -> None:
    assert (
        shlex.split(asking(nodes.way("pve2"), "pvedrbdstor --version"))[:-2] == nodes.line("pve2", ["--version"])[:-1]
    )
    assert "UserKnownHostsFile" in asking(nodes.way("pve2"), "true")
    assert nodes.way("pve3") == Way("pve3", "10.0.0.3") and nodes.way("pve4") == Way("pve4")
    assert asking(nodes.way("pve2"), "pvedrbdstor --version") in same_version("pve2")
    assert "'pvecm updatecerts' on pve2" in same_version("pve2")


def test_the_doctor_sees_how_both_nodes_are_reached(cluster: Path) -> None:
    found = look._told_ways(look._ways(["pve2", "pve3"]))
    assert found == {"pve2": Way("pve2", "10.0.0.2", f"{cluster}/pve2"), "pve3": Way("pve3", "10.0.0.3")}
    assert look._told_ways(None) == {} and look._told_ways({"error": "it broke"}) == {}


def test_the_doctors_remedies_have_the_line_that_runs() -> None:
    there = Way("nodeb", "10.77.0.2", "/etc/pve/nodes/nodeb/ssh_known_hosts")
    (finding,) = (each for each in examine(replace(silent(), ways={"nodeb": there})) if each.id == "node-silent")
    assert finding.commands == (asking(there, "true"), "pvecm updatecerts", "pvedrbdstor doctor")
    pair = replace(broken({"dump": "common { }\n"}), ways={"nodeb": there})
    (finding,) = (each for each in examine(pair) if each.id == "drbd-undefined")
    assert finding.commands[0] == copying(there, "/etc/drbd.d/r0.res", "/etc/drbd.d/")


def test_a_node_of_which_nothing_is_known_is_reached_as_this_one() -> None:
    pair = replace(broken({"cluster_conf": None}), ways={"nodea": Way("nodea", "10.77.0.1", "/etc/pve/nodes/nodea/x")})
    assert pair.way("OTHER-NODE") == Way("OTHER-NODE", None, "/etc/pve/nodes/OTHER-NODE/ssh_known_hosts")
    assert replace(pair, ways={}).way("OTHER-NODE") == Way("OTHER-NODE")
