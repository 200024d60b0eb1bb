"""Real guests in an outage: the survivor's goes on, the other's is started there, and neither lacks a write it was told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.lab import storage
from tests.lab.actions import Action, kill, link, start
from tests.lab.corosync import Witness
from tests.lab.formation import DRBD_PORT
from tests.lab.guests.acknowledged import longest_silence
from tests.lab.guests.machine import DISK_SIZE, NODE_MEMORY, Guest, guest
from tests.lab.network import around, between
from tests.lab.node import Node
from tests.lab.ops import wait_until
from tests.lab.protection import Protection
from tests.lab.results import Results
from tests.lab.trial import Trial, running

TABLE = "Real guests in an outage"
TAKEOVER = 180.0  # seconds from an outage to the lost guest's first write on the survivor
BACK = 240.0
_COROSYNC_MEMORY = 160  # MiB a node more than guests and cluster need


@dataclass(frozen=True)
class Case:
    """An outage that a survives and b does not, and what ends it. gone: whether b's guest runs no more for certain."""

    name: str
    begin: Action
    repair: Action
    gone: Callable[[Node], bool]


def reset(node: Node) -> bool:
    return node.boots > 1


def dead(node: Node) -> bool:
    return not node.running


CASES = (
    Case("b is cut off from all", link(*around("b")), link(), reset),
    Case("only DRBD's port is cut", link(*between("a", "b", DRBD_PORT)), link(), reset),
    Case("b loses its power", kill("b"), start("b"), dead),
)


def start_on(survivor: Node, lost: Guest) -> None:
    """Start a guest as often as it takes, as Proxmox's HA does: the storage refuses until it is decided who goes on."""
    deadline = time.monotonic() + TAKEOVER
    while True:
        try:
            lost.start(survivor)
            return
        except storage.PluginError as error:
            if time.monotonic() > deadline:
                raise
            print(error)
            time.sleep(2)


def outage(trial: Trial, case: Case, stays: Guest, moves: Guest, results: Results) -> None:
    a, b = trial.cluster.nodes
    stays.start(a)
    moves.start(b)
    for each in (stays, moves):
        each.wait_for_writes(time.monotonic(), 100)
    begun = time.monotonic()
    case.begin.do(trial)
    wait_until(lambda: case.gone(b), f"{case.name}: b is gone", TAKEOVER)
    gone = time.monotonic() - begun
    moves.lost_with_its_node()
    acknowledged = moves.acknowledged.last()
    start_on(a, moves)
    moved = time.monotonic() - begun
    found = moves.found()
    stays.wait_for_writes(time.monotonic(), 20, TAKEOVER)
    silence = longest_silence(stays.acknowledged.said(), begun)
    case.repair.do(trial)
    wait_until(trial.in_sync, "both nodes are in sync again", BACK)
    results.row(
        TABLE,
        key=("outage",),
        outage=case.name,
        guest_on_the_survivor_stood_still=f"{silence:.1f} s",
        other_node_gone_after=f"{gone:.1f} s",
        its_guest_wrote_again_after=f"{moved:.1f} s",
        acknowledged=acknowledged,
        found=found,
    )
    assert found >= acknowledged
    stays.check_console()
    for each in (stays, moves):
        each.stop()
        for node in (a, b):
            each.check_disk(node, each.acknowledged.last())
    assert a.boots == 1


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_guests_go_on_where_the_outage_is_survived(case: Case, results: Results) -> None:
    with running(Protection(), Witness(), NODE_MEMORY + _COROSYNC_MEMORY) as trial:
        storage.install(trial.cluster.nodes)
        disks = [storage.alloc(trial.cluster.a, vmid, DISK_SIZE) for vmid in (100, 101)]
        for disk in disks:  # written before, as cache=none wants it (docs/lab.md)
            path = storage.path(trial.cluster.a, disk)
            trial.cluster.a.run(
                f"dd if=/dev/zero of={path} bs=1M count={DISK_SIZE >> 20} conv=notrunc,fsync status=none"
            )
        with guest(100, disks[0]) as stays, guest(101, disks[1]) as moves:
            outage(trial, case, stays, moves, results)
