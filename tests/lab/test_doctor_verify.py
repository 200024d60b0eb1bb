"""What `pvedrbdstor doctor` tells of comparisons of the copies, each cleared by doing what it says, and what the report says that it points to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, doctor, follow, prepare, settle, told
from tests.lab.formation import STORAGE, on_each, wait_whole
from tests.lab.node import Node
from tests.lab.verifying import MIB, image_of, places, plant, slow_comparison, stopped, verify

REPRODUCES = {"verify-diverged", "verify-failed"}
RECORD = f"/var/lib/pvedrbdstor/verify/last/{STORAGE}.json"
CONF = f"{GUESTS}/100.conf"
COMPARE = f"pvedrbdstor verify {STORAGE} --mode allocated"
WRONG, RIGHT = "on the node whose copy is wrong", "on the other node"
MARKED, ALL = "Let DRBD copy the blocks that differ", "Let DRBD copy everything"


@pytest.fixture
def whole(pair: Cluster) -> Iterator[Cluster]:
    """The small cluster as an administrator should have it, never compared, with the image of one guest."""
    prepare(pair)
    on_each(pair.nodes, lambda node: node.run(f"rm -f {RECORD}"))
    yield pair
    on_each(pair.nodes, lambda node: node.run(f"rm -f {RECORD} {CONF}"))
    storage.free_all(pair.a)


@pytest.fixture
def image(whole: Cluster) -> str:
    """Its path; a guest that is off has it for its disk."""
    path = image_of(whole.a, 100, 4 * MIB)
    on_each(
        whole.nodes,
        lambda node: node.run(f"echo 'scsi0: {STORAGE}:100/{path.rpartition('/')[2]},cache=writeback' >{CONF}"),
    )
    assert set(doctor(whole.a)) == NEVER_COMPARED
    return path


def repairs(node: Node, command: str) -> dict[str, list[tuple[str, str]]]:
    """What the report of a comparison offers: by its title, the commands with where each is run."""
    result = node.sh(f"{command} --json", 120)
    document: dict[str, Any] = json.JSONDecoder().raw_decode(result.out[result.out.index("{") :])[0]
    assert result.rc == 1 and document["verdict"] == "diverged", document
    return {
        each["title"]: [(line["where"], line["command"]) for line in each["commands"]] for each in document["repairs"]
    }


def carry_out(pair: Cluster, commands: list[tuple[str, str]]) -> None:
    """On b, whose copy is wrong, and on a. What is no command is to move or stop the guests, and there are none that run."""
    words = [command for where, command in commands if command.startswith("move or stop all its guests")]
    assert len(words) == 1 and commands[0][1] == words[0], commands
    for where, command in commands[1:]:
        node = pair.b if where == WRONG else pair.a
        assert where in (WRONG, RIGHT, "to check again, on either node"), where
        status = 1 if "--mode kernel" in command else 0  # which finds what differs
        if "until both are UpToDate again" in command:
            wait_whole(pair.nodes)
        result = node.sh(command, 180)
        assert result.rc == status, result.out


def told_of_a_difference(node: Node) -> list[str]:
    """The commands of the finding, which is the only one."""
    found = doctor(node)
    assert set(found) == {"verify-diverged"}, list(found.values())
    return list(told(found["verify-diverged"], "error", "")["commands"])


@pytest.mark.soak
def test_a_difference_is_told_until_the_blocks_are_copied_as_the_report_says(whole: Cluster, image: str) -> None:
    """It lies on b's disk, below DRBD, in one block that a sample does not meet; both nodes tell it, whoever compared."""
    a, b = whole.nodes
    plant(b, places(a, image)[7:8])
    assert verify(b, "--mode", "full").rc == 1
    assert told_of_a_difference(a) == [COMPARE]
    while verify(a, "--fraction", "0.01%").rc == 1:
        pass  # it takes one block of each file, and has met that one
    assert told_of_a_difference(b) == [COMPARE], "a sample that met nothing takes nothing back"
    offered = repairs(a, COMPARE)
    assert {MARKED, ALL} < set(offered), offered
    carry_out(whole, offered[MARKED])
    settle(whole)
    assert doctor(a) == {} == doctor(b)
    assert "DIFFER" not in b.run(f"pvedrbdstor mirror status {STORAGE}"), "the node that had found it was told"


@pytest.mark.soak
def test_a_difference_is_told_until_everything_is_copied_as_the_report_says(whole: Cluster, image: str) -> None:
    a, b = whole.nodes
    plant(b, places(a, image)[7:9])
    offered = repairs(a, COMPARE)
    assert told_of_a_difference(a) == [COMPARE]
    carry_out(whole, offered[ALL])
    settle(whole)
    assert doctor(a) == {}


@pytest.mark.soak
def test_a_comparison_that_came_to_no_verdict_is_run_again(whole: Cluster, image: str) -> None:
    """The other node's part of it is killed."""
    a, b = whole.nodes
    with slow_comparison(a) as running:
        b.run("pkill -9 -f 'pvedrbdstor verify --serve'")
        assert "nodeb does not answer any more" in stopped(running.result())
    found = doctor(a)
    assert set(found) == {"verify-failed"} | NEVER_COMPARED, list(found.values())
    failed = told(found["verify-failed"], "warning", "")
    assert "nodeb does not answer any more" in failed["meaning"]
    follow([a], failed, [f"pvedrbdstor verify {STORAGE} --mode full"])
    assert doctor(a) == {}
