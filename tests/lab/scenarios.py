"""The table of outages: what is done to the cluster, and who must be found writing in the end."""

from __future__ import annotations

from tests.lab import actions as do
from tests.lab.actions import WIN, Action, booted, link, served, state
from tests.lab.corosync import TOTEM_PORT, Witness
from tests.lab.formation import DRBD_PORT, O2NET_PORT
from tests.lab.network import Rule, around, between, slow
from tests.lab.outage import After, Scenario
from tests.lab.protection import ObviousRule

HEALED = link()
B_ISOLATED, A_ISOLATED = link(*around("b")), link(*around("a"))
AB_CUT = link(*between("a", "b"))
_DECIDED = 18.6  # seconds after a cut by which the quorate node goes on
_QNETD_GONE = (do.kill_qnetd(), do.pause(20))  # until the nodes have noticed


def _once(action: Action) -> tuple[tuple[float, Action], ...]:
    return ((0, action),)


def _flap(seconds: float, survivors: str, observed: float = 95) -> Scenario:
    steps = ((0, B_ISOLATED), (seconds, HEALED))
    shows, spared = f"b is cut off for {seconds:g} s", survivors if survivors in ("a", "ab") else ""
    return Scenario(f"flap-{seconds:g}", "flap", shows, steps, survivors, observed, spared=spared)


def _sleeper(name: str, seconds: float, observed: float = 110) -> Scenario:
    """The other node goes on 12.3 to 18.6 s after a cut (docs/fencing.md): one that is back sooner may find it still waiting."""
    other = "a" if name == "b" else "b"
    steps = ((0, do.stop(name)), (seconds, do.wake(name)))
    shows = f"{name} stands still for {seconds:g} s and goes on as if nothing had happened"
    survivors = other if seconds > _DECIDED else f"{other}|ab"
    return Scenario(f"{name}-stopped-{seconds:g}", "paused node", shows, steps, survivors, observed)


LINKS = (
    Scenario("b-isolated", "isolation", "b is cut off from all", _once(B_ISOLATED), "a"),
    Scenario("a-isolated", "isolation", "a is cut off from all", _once(A_ISOLATED), "b"),
    Scenario("ab-cut", "isolation", "both still reach the witness", _once(AB_CUT), "a"),
    Scenario(
        "drbd-port-cut",
        "one service",
        "both stay in corosync's membership",
        _once(link(*between("a", "b", DRBD_PORT))),
        "a",
        57,
    ),
    Scenario(
        "corosync-port-cut",
        "one service",
        "DRBD is connected: nobody is fenced",
        _once(link(*between("a", "b", TOTEM_PORT))),
        "ab",
        spared="ab",
    ),
    Scenario(
        "o2net-port-cut",
        "one service",
        "OCFS2 resets b",
        ((0, link(*between("a", "b", O2NET_PORT))), (After(booted("b"), 15), HEALED)),
        "a",
        160,  # b is reset at 100 and mounts at 130
    ),
    Scenario("one-way-drbd-ab", "one way", "DRBD from a to b", _once(link(Rule("a", "b", DRBD_PORT))), "a"),
    Scenario("one-way-drbd-ba", "one way", "DRBD from b to a", _once(link(Rule("b", "a", DRBD_PORT))), "a"),
    Scenario("one-way-ab", "one way", "everything from a to b", _once(link(Rule("a", "b"))), "a"),
    Scenario("one-way-ba", "one way", "everything from b to a", _once(link(Rule("b", "a"))), "a"),
    Scenario("b-deaf", "one way", "everything to b", _once(link(Rule(dst="b"))), "a"),
    Scenario("b-mute", "one way", "everything from b", _once(link(Rule(src="b"))), "a"),
    Scenario("a-deaf", "one way", "everything to a", _once(link(Rule(dst="a"))), "b"),
    Scenario(
        "slow-lossy",
        "bad link",
        "200 ms and 5 % loss between a and b for a minute",
        ((0, link(*slow("a", "b", latency=0.2, loss=0.05))), (60, HEALED)),
        "ab|a|b",
        130,
    ),
    _flap(3, "ab"),
    _flap(12, "ab|a", 40),
    _flap(18, "ab|a"),
    _flap(30, "a"),
    Scenario(
        "two-outages",
        "flap",
        "what a node won or lost in one outage is forgotten in the next",
        ((0, B_ISOLATED), (80, HEALED), (After(served("b"), 35), A_ISOLATED)),
        "",
        observed=250,
        winners="ab",
    ),
)

DEATHS = (
    Scenario("b-killed", "dead node", "b loses its power", ((0, do.kill("b")), (90, do.start("b"))), "a", 110),
    Scenario("a-killed", "dead node", "a loses its power", ((0, do.kill("a")), (90, do.start("a"))), "b", 110),
    _sleeper("b", 15),
    _sleeper("b", 40, 55),
    _sleeper("a", 15),
    _sleeper("a", 40),
    Scenario(
        "both-killed",
        "dead node",
        "one returns alone, does not know whether its data are the newest, and waits for the other",
        ((0, do.kill("a")), (0, do.kill("b")), (5, do.start("a"))),
        "",
        60,
        not_served="a",
        eager=True,
    ),
)

WITNESSES = (
    Scenario("no-qnetd-cut", "witness gone", "nobody may go on", _once(AB_CUT), "", 80, before=_QNETD_GONE),
    Scenario(
        "no-qnetd-cut-12",
        "witness gone",
        "the link is back before anybody is reset",
        ((0, AB_CUT), (12, HEALED)),
        "ab",
        60,
        before=_QNETD_GONE,
        spared="ab",
    ),
    Scenario("full-third-node", "other witness", "b is cut off", _once(B_ISOLATED), "a", witness=Witness(full=True)),
    Scenario(
        "full-third-node-ab-cut",
        "other witness",
        "a and b reach only c, whose ring is with either",
        _once(AB_CUT),
        "a|b|",
        witness=Witness(full=True),
    ),
    Scenario("tls", "other witness", "b is cut off", _once(B_ISOLATED), "a", witness=Witness(tls=True)),
)

MOMENTS = (
    Scenario(
        "cut-during-activation",
        "bad moment",
        "b mounts",
        ((0, do.bring_back("b")), (After(state("b", "Primary/Primary"), 1), B_ISOLATED)),
        "a",
        110,
        before=(do.take_down("b"),),
    ),
    Scenario(
        "cut-during-resync",
        "bad moment",
        "b is being brought up to date",
        ((0, do.bring_back("b")), (After(state("b", "SyncTarget"), 2), B_ISOLATED)),
        "a",
        60,
        before=(do.take_down("b"), do.fall_behind("a")),
    ),
    Scenario(
        "cut-during-snapshot",
        "bad moment",
        "b makes a snapshot",
        ((0, do.snapshot("b")), (0.3, B_ISOLATED)),
        "a",
        before=(do.use_storage(),),
    ),
    Scenario(
        "memory-pressure",
        "bad moment",
        "both nodes are short of memory: a may fail to go on, but b does not either",
        _once(B_ISOLATED),
        "a|",
        before=(do.memory_pressure("a"), do.memory_pressure("b"), do.pause(10)),
    ),
)

BROKEN = (
    Scenario(
        "no-handler-a", "fencing broken", "a may not go on", _once(B_ISOLATED), "", before=(do.remove_handler("a"),)
    ),
    Scenario("no-handler-b", "fencing broken", "a goes on", _once(B_ISOLATED), "a", before=(do.remove_handler("b"),)),
    Scenario(
        "handler-killed-a",
        "fencing broken",
        "a may not go on",
        ((0, B_ISOLATED), (After(state("a", "s-----"), 1), do.kill_handler("a"))),
        "",
    ),
    Scenario(
        "no-guard-a", "fencing broken", "a may not go on", _once(B_ISOLATED), "", 80, before=(do.kill_guard("a"),)
    ),
    Scenario("no-guard-b", "fencing broken", "a goes on", _once(B_ISOLATED), "a", before=(do.kill_guard("b"),)),
    Scenario(
        "corosync-killed-b", "corosync broken", "DRBD is connected", _once(do.kill_corosync("b")), "ab", 60, spared="ab"
    ),
    Scenario(
        "corosync-killed-a-cut", "corosync broken", "b goes on", ((0, do.kill_corosync("a")), (15, AB_CUT)), "b", 110
    ),
    Scenario(
        "corosync-stopped-b-cut",
        "corosync broken",
        "b's last word from corosync is old",
        ((0, do.stop_corosync("b")), (2, AB_CUT), (50, do.wake_corosync("b"))),
        "a",
    ),
    Scenario(
        "corosync-stopped-a-50",
        "corosync broken",
        "DRBD is connected",
        ((0, do.stop_corosync("a")), (50, do.wake_corosync("a"))),
        "ab",
        70,
        spared="ab",
    ),
)

_FLIP = ((0, B_ISOLATED), (After(WIN, 3), A_ISOLATED))
_STALE = ((0, B_ISOLATED), (After(booted("b"), 5), A_ISOLATED))
HARD = (
    Scenario("flip", "flip", "a goes on; 3 s later b is let in and a cut off", _FLIP, "a"),
    Scenario(
        "stale",
        "flip",
        "b, reset and booted again, has a majority, and old data",
        _STALE,
        "a",
        130,
        not_served="b",
        eager=True,
    ),
)
"""What breaks the obvious rule."""

CONTROLS = (
    Scenario("control-flip", "control", "the same as flip", _FLIP, "ab", 60, in_sync=False, protection=ObviousRule),
    Scenario(
        "control-stale",
        "control",
        "the same as stale",
        _STALE,
        "a",
        130,
        in_sync=False,
        protection=ObviousRule,
        eager=True,
    ),
)
"""The obvious rule, which fails."""

ALL = (*LINKS, *DEATHS, *WITNESSES, *MOMENTS, *BROKEN, *HARD, *CONTROLS)
