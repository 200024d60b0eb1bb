"""A node's own firewall, which comes before the cluster's: what it shuts is told before anything is written."""

from __future__ import annotations

import pytest

from pvedrbdstor.setup import look
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.plan import Plan
from tests.setup import world
from tests.setup.test_taken import CLUSTER, written

ON = "[OPTIONS]\nenable: 1\n"
BOTH = "-source 10.10.10.1,10.10.10.2 -dest 10.10.10.1,10.10.10.2 -p tcp"


def behind(host: str, cluster: str = ON) -> dict[str, Facts]:
    """Both nodes behind the cluster's firewall; pve2 has a file of its own."""
    found = {node: world.with_files(each, firewall=cluster) for node, each in world.nodes().items()}
    return {**found, "pve2": world.with_files(found["pve2"], host=host)}


def notes(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "firewall of" in note]


@pytest.mark.parametrize(
    ("host", "what", "rule"),
    [
        ("[RULES]\nIN DROP\n", "DRBD r0", f"IN ACCEPT {BOTH} -dport 7789"),
        ("[RULES]\nIN REJECT -p tcp -dport 7000:7778\n", "OCFS2", f"IN ACCEPT {BOTH} -dport 7777"),
        ("[RULES]\nOUT DROP -dest 10.10.10.0/24 -p tcp -dport 7789\n", "DRBD r0", f"OUT ACCEPT {BOTH} -dport 7789"),
    ],
)
def test_what_a_node_s_own_rules_shut_is_in_the_way(host: str, what: str, rule: str) -> None:
    refused = world.refused(behind(host))
    found = [each for each in refused if f"the firewall of pve2 would not let {what} through" in each.cause]
    assert (
        len(found) == 1 and "10.10.10.1)" in found[0].cause and not any("pve1 would" in each.cause for each in refused)
    )
    assert (
        rule in found[0].remedy
        and "first in [RULES] of /etc/pve/nodes/pve2/host.fw, then plan again" in found[0].remedy
    )


def test_after_the_remedy_it_is_not() -> None:
    shut = "[RULES]\nIN DROP\n"
    rules = [each.remedy.split("`")[1] for each in world.refused(behind(shut))]
    assert len(rules) == 2
    world.planned(behind(shut.replace("[RULES]\n", "[RULES]\n" + "\n".join(rules) + "\n")))


@pytest.mark.parametrize(
    ("host", "cluster"),
    [
        ("", ON),
        ("[RULES]\nIN ACCEPT -p tcp -dport 22\n", ON),
        ("[OPTIONS]\nenable: 0\n\n[RULES]\nIN DROP\n", ON),
        ("[RULES]\n|IN DROP\n", ON),
        ("[RULES]\nIN DROP\n", "[OPTIONS]\nenable: 0\n"),
        ("[RULES]\nIN DROP\n", ""),
    ],
    ids=["none", "others", "off on the node", "a rule that is off", "off in the cluster", "no file of the cluster"],
)
def test_one_that_shuts_nothing_is_not(host: str, cluster: str) -> None:
    assert notes(world.planned(behind(host, cluster))) == []


def test_what_cannot_be_told_is_a_note() -> None:
    plan = world.planned(behind("[RULES]\nIN DROP -source +dc/bad -p tcp -dport 7789\n"))
    (note,) = notes(plan)
    assert "pve2 lets DRBD r0 through (TCP 7789 with 10.10.10.1) cannot be told" in note and "host.fw" in note


def test_a_rule_of_the_plan_that_is_there_behind_one_that_shuts_it_does_not_help() -> None:
    rule = f"IN ACCEPT {BOTH} -dport 7789 -log nolog # pvedrbdstor: DRBD r0"
    refused = world.refused(behind("", f"{ON}[RULES]\nIN DROP -p tcp -dport 7789\n{rule}\n"))
    assert {each.cause.split()[3] for each in refused} == {"pve1", "pve2"}
    assert all("of /etc/pve/firewall/cluster.fw" in each.remedy for each in refused)


def test_ocfs2_is_asked_for_where_its_cluster_has_it() -> None:
    conf = CLUSTER.replace("10.10.10.", "192.0.2.1").replace("7777", "7778")
    host = "[RULES]\nIN DROP -p tcp -dport 7778\n"
    (defaults, _) = written(world.planned(), "/etc/default/o2cb")
    found = {node: world.with_files(each, cluster=conf, o2cb=defaults) for node, each in behind(host).items()}
    (refused,) = world.refused(found)
    assert "OCFS2 through (TCP 7778 with 192.0.2.11)" in refused.cause
    assert "-source 192.0.2.11,192.0.2.12" in refused.remedy


def test_the_node_s_own_file_is_among_what_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_content", lambda path: f"of {path}")
    assert look._files()["/etc/pve/local/host.fw"] == "of /etc/pve/local/host.fw"
