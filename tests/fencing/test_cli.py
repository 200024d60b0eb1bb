"""`pvedrbdstor fencing timeline` and `status`: what they say, and how they end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pvedrbdstor.mirror import gather
from tests.cli.conftest import CommandLine, cli
from tests.fencing.test_corosync_conf import PROXMOX
from tests.fencing.test_status import DOCUMENT

__all__ = ["cli"]

SHOW = """\
resource r0 {
    _this_host { node-id 0; volume 0 { device minor 0; disk "/dev/vg/r0"; } }
    connection { _peer_node_id 1; net { ping-int %s; ping-timeout 10; connect-int 3; allow-two-primaries yes; fencing %s; _name "b"; } }
}
"""
OWN = """\
resource r0 {
    on pve1 { address ipv4 10.0.0.1:7789; }
    on pve2 { address ipv4 10.0.0.2:7789; }
    handlers { fence-peer "/usr/lib/pvedrbdstor/fence-peer"; }
}
"""


@dataclass
class Node:
    """What ask_settings() finds on it; all is well at first."""

    ping_int: str = "3"
    policy: str = "resource-and-stonith"
    dump: str | None = OWN
    corosync: str | None = PROXMOX
    guard: dict[str, object] | None = field(default_factory=lambda: dict(DOCUMENT))
    up: bool = True

    def ask(self, _question: object = None) -> dict[str, object]:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return {
            "show": SHOW % (self.ping_int, self.policy) if self.up else "",
            "dump": self.dump,
            "o2cb": {"heartbeat/dead_threshold": "31", "idle_timeout_ms": "30000"} if self.up else None,
            "corosync": self.corosync,
            "guard": None if self.guard is None else json.dumps({**self.guard, "at": now}),
            "boot": now,
            "node": "pve1",
        }


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(gather, "ask_settings", made.ask)
    return made


def test_a_timeline_that_fits(cli: CommandLine, node: Node) -> None:
    result = cli("fencing", "timeline", "ha")
    assert result.exit_code == 0, result.output
    assert "after the link of 'ha' (DRBD resource r0) is cut" in result.stdout
    assert " 1.0    7.0  DRBD freezes its I/O" in result.stdout
    assert "yes     7.0    7.0  detection" in result.stdout
    assert result.stdout.endswith("All times fit.\n")
    assert "NO" not in result.stdout.replace("NOT", "")
    assert "?" not in result.stdout


def test_a_timeline_that_does_not_fit_says_what_happens_and_what_to_set(cli: CommandLine, node: Node) -> None:
    node.ping_int = "10"
    result = cli("fencing", "timeline", "ha")
    assert result.exit_code == 1
    assert "NO" in result.stdout
    assert "the other node still reads what this one has already overwritten." in result.stdout
    assert result.stdout.count("'ping-int 3;'") == 1
    assert "The same setting mends it." in result.stdout
    assert "All times fit" not in result.stdout


def test_a_timeline_without_what_it_needs_says_what_is_missing(cli: CommandLine, node: Node) -> None:
    node.corosync, node.up = None, False
    result = cli("fencing", "timeline", "ha")
    assert result.exit_code == 1
    assert (
        "Not known: DRBD's ping-int, ping-timeout and connect-int, corosync's token and consensus, OCFS2's dead time, o2net's idle time.\n"
        in result.stdout
    )


def test_a_timeline_for_a_handler_of_others_says_so(cli: CommandLine, node: Node) -> None:
    node.dump = ""
    result = cli("fencing", "timeline", "ha")
    assert result.exit_code == 0
    assert "handler is not /usr/lib/pvedrbdstor/fence-peer" in result.stdout


def test_the_timeline_as_json(cli: CommandLine, node: Node) -> None:
    node.ping_int = "5"
    result = cli("fencing", "timeline", "ha", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (document["fits"], document["own_handler"], document["unknown"]) == (False, True, [])
    assert document["inputs"]["ping_int"] == 5
    detection = document["races"][0]
    assert (detection["code"], detection["fits"], detection["first"], detection["last"]) == ("detection", False, 11, 7)
    assert "'ping-int 3;'" in detection["remedy"]
    assert document["events"][0]["name"] == "the link is cut"


def test_a_status_with_which_a_cut_is_decided(cli: CommandLine, node: Node) -> None:
    result = cli("fencing", "status", "ha")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "The guard runs (process 7, heard 0 s ago).",
        "Corosync is quorate: nodes 1, 2 are members of ring 12.",
        "3 of 3 votes are present, 2 are a majority; the QDevice votes.",
        "Quorum can decide which node goes on.",
        "ha: its fencing asks the guard, and all times fit.",
    ]
    assert cli("fencing", "status").exit_code == 0


def test_a_status_without_a_guard(cli: CommandLine, node: Node) -> None:
    node.guard = None
    result = cli("fencing", "status")
    assert result.exit_code == 1
    assert "The guard does not run" in result.stdout
    assert "systemctl start pvedrbdstor-fence" in result.stdout
    assert "corosync does not run" not in result.stdout
    assert "only the guard would know" in result.stdout


def test_a_status_without_a_judge(cli: CommandLine, node: Node) -> None:
    node.corosync = PROXMOX.replace("model: net", "")
    result = cli("fencing", "status")
    assert result.exit_code == 1
    assert "no safe automatic decision exists" in result.stdout
    assert "pvecm qdevice setup" in result.stdout


def test_a_silent_qdevice_is_a_warning(cli: CommandLine, node: Node) -> None:
    votes = DOCUMENT["votes"]
    assert isinstance(votes, dict)
    node.guard = {**DOCUMENT, "votes": {**votes, "flags": 2}}
    result = cli("fencing", "status")
    assert result.exit_code == 1
    assert "Warning: The QDevice is configured and is not registered" in result.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dump": ""}, "fence-peer handler is not"),
        ({"policy": "dont-care"}, "its policy is 'dont-care'"),
        ({"ping_int": "5"}, "Times do not fit, or are not known (detection)"),
        ({"up": False}, "DRBD does not tell its settings"),
        ({"dump": OWN.replace("on pve2", "on b")}, "DRBD's host 'b' is no other node of corosync's nodelist"),
        ({"guard": {**DOCUMENT, "timing": {"token": 1.0, "consensus": 1.2}}}, "Times do not fit"),
    ],
)
def test_a_storage_that_does_not_use_what_works(
    cli: CommandLine, node: Node, change: dict[str, object], told: str
) -> None:
    for name, value in change.items():
        setattr(node, name, value)
    result = cli("fencing", "status", "ha")
    assert result.exit_code == 1
    assert told in result.stdout
    assert cli("fencing", "status").exit_code == 0


def test_the_status_as_json(cli: CommandLine, node: Node) -> None:
    document = json.loads(cli("fencing", "status", "ha", "--json").stdout)
    assert document["works"] is True
    assert document["guard"]["quorum"] == {"quorate": True, "ring": 12, "members": [1, 2]}
    assert document["guard"]["votes"]["flags"] == 2 | 64 | 128 | 256
    assert document["problems"] == []
    assert document["pending"] is None
    assert document["storage"] == {"id": "ha", "against": []}


def test_a_storage_that_is_not_there(cli: CommandLine, node: Node, tmp_path: Path) -> None:
    assert cli("fencing", "timeline", "nothing").exit_code == 78


def test_a_status_tells_what_holds_for_the_moment_alone(cli: CommandLine, node: Node) -> None:
    assert node.guard is not None
    node.guard |= {"handicap": "corosync was not quorate", "version": "0.0.1"}
    told = cli("fencing", "status").stdout
    assert "Were the other node lost now, this one could not go on: corosync was not quorate.\n" in told
    assert "forgiven after 30 s" in told
    assert "The guard is that of version 0.0.1, as no upgrade restarts it" in told


def test_what_corosync_has_in_force_counts_and_a_file_that_differs_is_told(cli: CommandLine, node: Node) -> None:
    assert node.guard is not None
    node.guard |= {"timing": {"token": 3.0, "consensus": 3.6}}
    node.corosync = PROXMOX.replace("version: 2", "token: 1000")
    told = "Note: corosync has token 3 s and consensus 3.6 s in force where corosync.conf comes to token 1 s"
    for line in ("status", "timeline"):
        result = cli("fencing", line, "ha")
        assert result.exit_code == 0, result.output
        assert told in result.stdout
        assert "corosync-cfgtool -R" in result.stdout
        assert json.loads(cli("fencing", line, "ha", "--json").stdout)["pending"]["code"] == "times-not-in-force"
    document = json.loads(cli("fencing", "timeline", "ha", "--json").stdout)
    assert document["inputs"]["token"] == 3.0
    node.guard = None  # nobody asks corosync: the file is all there is
    assert json.loads(cli("fencing", "timeline", "ha", "--json").stdout)["inputs"]["token"] == 1.0


def test_a_status_tells_of_an_outage(cli: CommandLine, node: Node) -> None:
    assert node.guard is not None
    began = time.clock_gettime(time.CLOCK_BOOTTIME) - 12
    node.guard |= {"outages": {"0": {"began": began, "won": False, "said": "the vote is fresh"}}, "handicap": "x"}
    told = cli("fencing", "status").stdout
    assert "The other node of /dev/drbd0 is lost, for 12 s now; undecided: the vote is fresh.\n" in told
    assert "Were the other node" not in told
    node.guard |= {"outages": {"0": {"began": began, "won": True, "said": None}}}
    assert "this node goes on alone" in cli("fencing", "status").stdout
