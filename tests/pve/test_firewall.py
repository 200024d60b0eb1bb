"""Proxmox's firewall by its files: open, shut, or not to be told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.pve import firewall
from pvedrbdstor.pve.firewall import Answer, Way

ON = "[OPTIONS]\nenable: 1\n"
OURS = (
    "IN ACCEPT -source 10.0.0.1,10.0.0.2 -dest 10.0.0.1,10.0.0.2 -p tcp -dport 7789 -log nolog # pvedrbdstor: DRBD r0"
)


def asked(rules: str = "", *, options: str = ON, host: str = "", way: Way = Way.IN, port: int = 7789) -> Answer:
    text = options + (f"[RULES]\n{rules}\n" if rules else "")
    return firewall.answer(text, host, way, "10.0.0.2", "10.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "host", "on"),
    [
        ("", "", False),
        ("[OPTIONS]\nenable: 0\n", "", False),
        (ON, "", True),
        (ON, "[OPTIONS]\nenable: 0\n", False),
        ("[options]\n  ENABLE: 1\n", "[OPTIONS]\nlog_level_in: nolog\n", True),
    ],
)
def test_it_is_on_where_the_cluster_says_so_and_the_host_does_not_say_otherwise(
    options: str, host: str, on: bool
) -> None:
    assert firewall.is_on(options, host) is on
    assert asked(options=options, host=host) is (Answer.CLOSED if on else Answer.OPEN)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (OURS, Answer.OPEN),
        (f"|{OURS}", Answer.CLOSED),
        ("IN ACCEPT", Answer.OPEN),
        ("IN ACCEPT -p tcp", Answer.OPEN),
        ("IN ACCEPT -p udp -dport 7789", Answer.CLOSED),
        ("IN ACCEPT -p tcp -dport 7700:7800", Answer.OPEN),
        ("IN ACCEPT -p tcp -dport 80,7789", Answer.OPEN),
        ("IN ACCEPT -p tcp -dport ssh", Answer.UNKNOWN),
        ("IN ACCEPT -p tcp -dport 80,443", Answer.CLOSED),
        ("IN ACCEPT -source 10.0.0.0/24 -p tcp", Answer.OPEN),
        ("IN ACCEPT -source 10.0.0.1-10.0.0.9", Answer.OPEN),
        ("IN ACCEPT -source 10.0.1.0/24", Answer.CLOSED),
        ("IN ACCEPT -source fd00::/8", Answer.CLOSED),
        ("IN ACCEPT -source 10.0.0.2 -dest 10.0.0.7", Answer.CLOSED),
        ("IN ACCEPT -source elsewhere", Answer.UNKNOWN),
        ("IN ACCEPT -source +nobody-knows", Answer.UNKNOWN),
        ("IN ACCEPT -i vmbr1 -p tcp", Answer.UNKNOWN),
        ("IN DROP -i vmbr1 -p tcp", Answer.CLOSED),
        ("IN SSH(ACCEPT) -source 10.0.0.2", Answer.CLOSED),
        ("IN DROP -p tcp -dport 7789\nIN ACCEPT -p tcp", Answer.CLOSED),
        ("IN ACCEPT -p tcp -dport 7789\nIN DROP -p tcp", Answer.OPEN),
        ("IN DROP -source elsewhere\nIN ACCEPT -p tcp", Answer.UNKNOWN),
        ("OUT ACCEPT -p tcp", Answer.CLOSED),
        ("GROUP mirror\n\n[group mirror] # ours\nIN ACCEPT -p tcp -dport 7789", Answer.OPEN),
        ("GROUP mirror -i vmbr1\n\n[group mirror]\nIN ACCEPT -p tcp -dport 7789", Answer.UNKNOWN),
        ("GROUP nowhere", Answer.CLOSED),
        ("IN ACCEPT -source +dc/nodes -p tcp\n[IPSET nodes]\n10.0.0.1\n10.0.0.2 # b", Answer.OPEN),
        ("IN ACCEPT -source +nodes -p tcp\n[IPSET nodes]\n10.0.0.0/24\n!10.0.0.2", Answer.UNKNOWN),
        ("IN ACCEPT -source +nodes\n[IPSET nodes]\n10.9.0.1", Answer.CLOSED),
        ("IN ACCEPT -source +management\n[IPSET management]\n10.9.0.1", Answer.UNKNOWN),
        ("IN ACCEPT -source other -p tcp\n[ALIASES]\nOther 10.0.0.2 # b", Answer.OPEN),
        ("IN ACCEPT -source dc/other -p tcp\n[ALIASES]\nother 10.0.0.9", Answer.CLOSED),
        ("nonsense", Answer.CLOSED),
        ("IN ACCEPT -p tcp and more", Answer.CLOSED),
    ],
)
def test_rules(rules: str, found: Answer) -> None:
    assert asked(rules) is found


def test_the_hosts_rules_come_before_the_clusters() -> None:
    assert asked(OURS, host="[RULES]\nIN REJECT -p tcp -dport 7789\n") is Answer.CLOSED
    assert asked("IN DROP -p tcp", host="[RULES]\nIN ACCEPT -p tcp -dport 7789\n") is Answer.OPEN


def test_policies() -> None:
    assert asked(options=ON + "policy_in: ACCEPT\n") is Answer.OPEN
    assert asked(way=Way.OUT) is Answer.OPEN
    assert asked(options=ON + "policy_out: DROP\n", way=Way.OUT) is Answer.CLOSED
    assert asked("OUT ACCEPT -p tcp", options=ON + "policy_out: REJECT\n", way=Way.OUT) is Answer.OPEN


def test_a_macro_may_have_a_port_that_no_mirror_usually_has() -> None:
    assert asked("IN Web(ACCEPT)", port=443) is Answer.UNKNOWN
    assert asked("IN Ceph(ACCEPT)", port=7100) is Answer.UNKNOWN


def test_groups_and_aliases_that_name_themselves_end() -> None:
    assert asked("GROUP a\n[group a]\nGROUP a") is Answer.CLOSED
    assert asked("IN ACCEPT -source me\n[ALIASES]\nme me") is Answer.UNKNOWN


@given(st.text(), st.text())
def test_any_files(cluster: str, host: str) -> None:
    assert firewall.answer(f"{ON}{cluster}", host, Way.IN, "10.0.0.2", "fd00::1", 7789) in Answer


WORDS = st.sampled_from(
    [
        "IN",
        "OUT",
        "GROUP",
        "|IN",
        "ACCEPT",
        "DROP",
        "-p",
        "tcp",
        "-dport",
        "1:9",
        "-source",
        "+x",
        "10.0.0.0/8",
        "-i",
        "a-b",
        "#",
        "\n",
        "[RULES]\n",
        "[IPSET x]\n",
        "!",
        "(ACCEPT)",
    ]
)


@given(st.lists(WORDS, max_size=30))
def test_any_words_of_rules(words: list[str]) -> None:
    assert asked(" ".join(words)) in Answer
