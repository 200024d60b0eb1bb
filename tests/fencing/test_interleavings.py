"""Whatever breaks in whatever order: at most one side goes on. And what the model is worth: weaker rules fail in it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.fencing import rules
from pvedrbdstor.fencing.core import Core
from tests.examples import examples
from tests.fencing.world import LINKS, NODES, Draw, Node, SplitBrain, World, obvious

TOGETHER = (
    ("drbd",),
    ("drbd", "corosync"),
    ("drbd", "corosync", "q1"),
    ("drbd", "corosync", "q2"),
    LINKS,
    ("corosync",),
    ("q1",),
    ("q2",),
)


def short_absence(world: World, node: int, duration: float, *, whole_node: bool) -> None:
    """A pause that may be too short to count."""
    if whole_node:
        world.pause(node)
    else:
        world.nodes[node].corosync.stopped = True
    world.run(duration)
    world.wake(node)
    world.nodes[node].corosync.stopped = False


def break_things(world: World, choose: Callable[[int], int], draw: Draw) -> None:
    """Up to nine failures and repairs at any time, then everything is well again."""
    if choose(
        2
    ):  # a node without its vote, which nobody notices, then a cut with a short pause across the forming of the rings
        node = NODES[choose(2)]
        world.up[f"q{node}"] = False
        world.run(draw(0, 30))
        world.up.update(drbd=False, corosync=False)
        world.run(draw(0, 6))
        short_absence(world, node, draw(0, 4), whole_node=choose(2) == 1)
        world.run(draw(0, 4))
        world.up[f"q{node}"] = True
        world.run(draw(0, 20))
    for _ in range(2 + choose(8)):
        action = choose(11)
        node = NODES[choose(2)]
        if action < 3:
            world.up.update(dict.fromkeys(TOGETHER[choose(len(TOGETHER))], False))
        elif action < 5:  # one cut heals as another begins
            cut = TOGETHER[choose(len(TOGETHER))]
            world.up = {link: link not in cut for link in LINKS}
        elif action == 5:
            world.up = {link: up or choose(2) == 1 for link, up in world.up.items()}
        elif action == 6:
            world.pause(node)
        elif action == 7:
            for number in NODES:
                world.wake(number)
        elif action == 8:
            world.kill(node)
        else:
            world.nodes[node].corosync.stopped = action == 9
        world.run(draw(0, (1, 3, 6, 10, 14, 20, 40)[choose(7)]))
    world.up = dict.fromkeys(LINKS, True)
    for number in NODES:
        world.wake(number)
        world.nodes[number].corosync.stopped = False
    world.run(60)


def split(seeds: range, decide: Callable[[World, Node], rules.Decision] | None = None) -> str | None:
    """The story of the first of these runs that ended in a split brain, None when none did."""
    for seed in seeds:
        chance = random.Random(seed)
        try:
            break_things(World(chance.uniform, decide), chance.randrange, chance.uniform)
        except SplitBrain as story:
            return f"seed {seed}\n{story}"
    return None


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_at_most_one_side_is_told_to_go_on(data: st.DataObject) -> None:
    def draw(low: float, high: float) -> float:
        return data.draw(st.floats(low, high))

    break_things(World(draw), lambda count: data.draw(st.integers(0, count - 1)), draw)


def test_at_most_one_side_is_told_to_go_on_in_many_random_runs() -> None:
    assert split(range(examples(400))) is None


def test_the_model_shows_that_the_obvious_rule_splits() -> None:
    assert split(range(300), obvious)


def unnoticed_loss_of_the_vote(before: float, pause: float, heal: float, whole_node: bool) -> World:
    """Node 1 loses its vote while both are members, which changes no majority; then they are cut, and it pauses for a moment."""
    world = World(lambda low, high: (low + high) / 2)
    world.up["q1"] = False
    world.run(30)
    world.up.update(drbd=False, corosync=False)
    world.run(before)
    short_absence(world, 1, pause, whole_node=whole_node)
    world.run(heal)
    world.up["q1"] = True
    world.run(40)
    return world


ABSENCES = [
    (before, pause, heal, whole_node)
    for before in (0.25, 1, 2, 3, 4, 5)
    for pause in (0, 1, 2, 3, 3.75)
    for heal in (0, 1, 2, 3)
    for whole_node in (True, False)
]


def test_a_vote_that_was_lost_while_it_was_not_needed_is_remembered() -> None:
    for absence in ABSENCES:
        unnoticed_loss_of_the_vote(*absence)


@pytest.mark.parametrize("second", [4, 6])
def test_a_link_that_is_soon_back_resets_nobody_even_without_votes(second: float) -> None:
    for seed in range(30):
        world = World(random.Random(seed).uniform)
        world.up.update(q1=False, q2=False)
        world.run(40)
        for cut in (8, second):
            world.up.update(drbd=False, corosync=False)
            world.run(cut)
            world.up.update(drbd=True, corosync=True)
            world.run(20)
        assert not any("gives way" in line for line in world.log), "\n".join(world.log)


def _forget_the_qdevice(patch: pytest.MonkeyPatch) -> None:
    confirmed = Core.confirmed
    patch.setattr(Core, "confirmed", lambda self, at, quorate, _: confirmed(self, at, quorate))


def test_the_model_shows_that_a_rule_which_forgets_lost_votes_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_the_qdevice(monkeypatch)
    monkeypatch.setattr(rules, "_vote_lost", lambda *_: None)
    assert split(range(200))


def test_a_corosync_that_slept_while_the_other_node_won_and_died_wins_nothing() -> None:
    """Then the ring of the one has the number that the other's had."""
    world = World(lambda low, high: (low + high) / 2)
    world.up.update(dict.fromkeys(("drbd", "corosync"), False))
    world.nodes[1].corosync.stopped = True
    world.run(40)
    assert world.winner == 2
    world.kill(2)
    world.nodes[1].corosync.stopped = False
    world.up = dict.fromkeys(LINKS, True)
    world.run(25)
    assert world.winner == 2


@pytest.mark.parametrize(
    ("cut", "winner"),
    [(("drbd", "corosync"), 1), (("drbd", "corosync", "q2"), 1), (("drbd", "corosync", "q1"), 2), (("drbd",), 1)],
)
def test_the_side_that_keeps_the_vote_goes_on_and_the_other_comes_back(cut: tuple[str, ...], winner: int) -> None:
    world = World(lambda low, high: (low + high) / 2)
    world.up.update(dict.fromkeys(cut, False))
    world.run(50)
    assert world.winner == winner
    world.up = dict.fromkeys(LINKS, True)
    world.run(100)
    assert all(node.mirror.whole and node.role == "Primary" for node in world.nodes.values())


@pytest.mark.parametrize("dead", NODES)
def test_a_node_goes_on_when_the_other_dies(dead: int) -> None:
    world = World(lambda low, high: (low + high) / 2)
    world.kill(dead)
    world.run(25)
    assert world.winner == 3 - dead
    assert not world.nodes[3 - dead].suspended


def test_without_the_third_vote_nobody_goes_on() -> None:
    world = World(lambda low, high: (low + high) / 2)
    world.up.update(dict.fromkeys(LINKS, False))
    world.run(100)
    assert world.winner is None
    assert all(node.suspended for node in world.nodes.values())
