"""What is read out of corosync.conf: as Proxmox writes it, by hand, and arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.fencing.corosync_conf import CorosyncConf, Device, Node, Quorum, Timing, Totem, parse

PROXMOX = """\
logging {
  debug: off
  to_syslog: yes
}

nodelist {
  node {
    name: pve1
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 10.0.0.1
    ring1_addr: fd00::1
  }
  node {
    name: pve2
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 10.0.0.2
    ring1_addr: fd00::2
  }
}

quorum {
  device {
    model: net
    net {
      algorithm: ffsplit
      host: 10.0.0.9
      tls: on
    }
    votes: 1
  }
  provider: corosync_votequorum
}

totem {
  cluster_name: lab
  config_version: 4
  interface {
    linknumber: 0
  }
  ip_version: ipv4-6
  link_mode: passive
  secauth: on
  version: 2
}
"""


def test_what_proxmox_writes_for_two_nodes_and_a_qdevice() -> None:
    conf = parse(PROXMOX)
    assert conf == CorosyncConf(
        nodes=(Node(1, "pve1", ("10.0.0.1", "fd00::1")), Node(2, "pve2", ("10.0.0.2", "fd00::2"))),
        totem=Totem(3000, 650, None),
        quorum=Quorum("corosync_votequorum", device=Device("net", 1, 10000, 30000, "ffsplit", "10.0.0.9", "on")),
    )
    assert (conf.timing.token, conf.timing.consensus) == (3.0, pytest.approx(3.6))
    assert (conf.node_votes, conf.device_votes, conf.all_votes) == (2, 1, 3)


def nodes(count: int, more: str = "") -> CorosyncConf:
    members = "".join(f"node {{\nnodeid: {number}\n}}\n" for number in range(1, count + 1))
    return parse(f"nodelist {{\n{members}}}\n{more}")


@pytest.mark.parametrize(("count", "token"), [(0, 3.0), (1, 3.0), (2, 3.0), (3, 3.65), (5, 4.95)])
def test_the_token_grows_from_the_third_node_on(count: int, token: float) -> None:
    conf = nodes(count)
    assert conf.timing.token == pytest.approx(token)
    assert conf.timing.consensus == pytest.approx(token * 1.2)


def test_times_that_are_written_count() -> None:
    conf = nodes(4, "totem {\ntoken: 5000\ntoken_coefficient: 0\nconsensus: 9000\n}\n")
    assert conf.timing == Timing(5.0, 9.0)


def test_a_qdevice_without_votes_has_one_less_than_the_nodes() -> None:
    conf = nodes(4, "quorum {\ndevice {\nmodel: net\n}\n}\n")
    assert (conf.device_votes, conf.all_votes) == (3, 7)


def test_a_device_without_a_model_is_none() -> None:
    assert nodes(2, "quorum {\ndevice {\nvotes: 1\n}\n}\n").quorum.device is None


def test_the_switches_of_the_quorum() -> None:
    text = (
        "quorum {\nexpected_votes: 2\ntwo_node: 1\nauto_tie_breaker: 1\nlast_man_standing: yes\nallow_downscale: 1\n}\n"
    )
    found = parse(text).quorum
    assert (found.expected_votes, found.two_node, found.auto_tie_breaker) == (2, True, True)
    assert (found.last_man_standing, found.allow_downscale) == (True, True)
    assert found.wait_for_all, "two_node switches it on"
    assert not parse("quorum {\ntwo_node: 1\nwait_for_all: 0\n}\n").quorum.wait_for_all
    assert not parse("quorum {\ntwo_node: 0\n}\n").quorum.two_node


def test_comments_spaces_and_parts_are_read_as_corosync_reads_them() -> None:
    text = "# two_node: 1\r\n\tquorum  {\n  provider :  corosync_votequorum \n}\nquorum{\nexpected_votes: 3\n}\n  # }\n"
    conf = parse(text)
    assert (conf.quorum.provider, conf.quorum.expected_votes) == ("corosync_votequorum", 3)
    assert conf.problems == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("quorum {\nprovider: corosync_votequorum\n", "ends within a section"),
        ("}\n", "line 1 closes"),
        ("hello\n", "line 1 is neither"),
        ("totem {\ntoken: soon\n}\n", "token is 'soon'"),
        ("nodelist {\nnode {\nquorum_votes: -1\n}\n}\n", "quorum_votes is '-1'"),
    ],
)
def test_what_corosync_would_refuse_is_told(text: str, told: str) -> None:
    (problem,) = parse(text).problems
    assert told in problem


def test_a_file_cut_off_anywhere_before_its_last_brace_is_not_taken_for_whole() -> None:
    whole = PROXMOX.rstrip()
    for end in range(len(whole)):
        conf = parse(whole[:end])
        assert conf.problems or whole[:end].rstrip().endswith("}") or not whole[:end].strip()


LINES = st.sampled_from(
    [
        "nodelist {",
        "node {",
        "quorum {",
        "device {",
        "net {",
        "totem {",
        "}",
        "nodeid: 1",
        "token: x",
        "model: net",
        "#",
    ]
)


@given(st.lists(LINES | st.text(max_size=12), max_size=30).map("\n".join))
def test_arbitrary_text_gives_values(text: str) -> None:
    conf = parse(text)
    assert conf.timing.token >= 0
    assert conf.timing.consensus >= 0
    assert conf.all_votes >= 0


def test_deep_nesting_is_no_recursion() -> None:
    assert parse("a {\n" * 100_000).problems
