"""The loop on a node of the test's own: it takes what the plan says, and gives back what led to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpFailed, BringUpRefused, CommandFailed, CommandTimeout, Error
from pvedrbdstor.mirror.bringup.facts import Options, Situation, Step
from pvedrbdstor.mirror.bringup.loop import LIMIT_SECONDS, Hands, bring_up
from tests.mirror.bringup.situations import AWAY, CONFIG, DRBD, READY, facts, with_superblock

DOWN = replace(
    READY, mirror=facts(None), defined=True, registered={}, configfs=False, superblock=None, stack=None, dlmfs=False
)
SECONDARY = replace(DRBD, role="Secondary")


@dataclass
class FakeNode:
    """A node on which every step does what it should, except where `failing` says otherwise. Time passes in sleep()."""

    now: Situation = DOWN
    after_up: Situation = READY
    failing: dict[Step, list[Error | OSError]] = field(default_factory=dict)
    taken: list[Step] = field(default_factory=list)
    demoted: int = 0
    seconds: float = 0.0

    def look(self, config: StorageConfig) -> Situation:
        return self.now

    def act(self, step: Step, now: Situation, config: StorageConfig) -> None:
        self.taken.append(step)
        if self.failing.get(step):
            raise self.failing[step].pop(0)
        changes: dict[Step, Callable[[], Situation]] = {
            Step.UP: lambda: replace(self.now, mirror=facts(SECONDARY)),
            Step.PROMOTE: lambda: replace(self.now, mirror=facts(DRBD), superblock=self.after_up.superblock),
            Step.CONFIGFS: lambda: replace(self.now, configfs=True),
            Step.STACK: lambda: replace(self.now, stack="o2cb"),
            Step.DLMFS: lambda: replace(self.now, dlmfs=True),
            Step.REGISTER: lambda: replace(self.now, registered=READY.registered),
            Step.MOUNT: lambda: replace(self.now, mounted=True),
        }
        self.now = changes[step]()

    def demote(self, resource: str) -> None:
        self.demoted += 1

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def bring_up(self, options: Options | None = None) -> list[str]:
        told: list[str] = []
        hands = Hands(self.look, self.act, self.demote, lambda: self.seconds, self.sleep)
        bring_up(CONFIG, options or Options(), told.append, hands)
        return told


def refusal_to_promote() -> CommandFailed:
    output = "0: State change failed: (-2) Need access\nCommand 'drbdsetup-84 primary 0' terminated with exit code 17"
    return CommandFailed(command="drbdadm primary r0", status="exit status 17", output=output)


def test_each_step_is_taken_once_and_told() -> None:
    node = FakeNode()
    told = node.bring_up()
    assert node.taken == [
        *(Step.UP, Step.PROMOTE, Step.CONFIGFS, Step.STACK, Step.DLMFS, Step.REGISTER, Step.MOUNT),
    ]
    assert told == [step.value for step in node.taken]
    assert node.demoted == 0


def test_a_node_that_is_up_is_not_touched() -> None:
    node = FakeNode(replace(READY, mounted=True))
    assert node.bring_up() == []
    assert node.taken == []


def test_a_lost_race_for_the_promotion_is_run_again() -> None:
    node = FakeNode(failing={Step.PROMOTE: [refusal_to_promote(), refusal_to_promote()]})
    told = node.bring_up()
    assert node.taken.count(Step.PROMOTE) == 3
    assert told.count(Step.PROMOTE.value) == 1


def test_a_promotion_that_never_succeeds_is_refused_with_drbds_words() -> None:
    node = FakeNode(failing={Step.PROMOTE: [refusal_to_promote() for _ in range(200)]})
    with pytest.raises(BringUpRefused, match=r"Primary: State change failed: \(-2\) Need access\. Look at"):
        node.bring_up()
    assert node.demoted == 0


@pytest.mark.parametrize(
    "failure",
    [
        CommandFailed(command="drbdadm up r0", status="exit status 1", output="no metadata"),
        CommandTimeout(command="drbdadm up r0", seconds=30),
        CommandFailed(command="drbdadm up r0", status="exit status 1", output="two\n  lines"),
        PermissionError(1, "Operation not permitted", "/sys/fs/ocfs2/cluster_stack"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_step_that_fails_is_named(failure: Error | OSError) -> None:
    node = FakeNode(failing={Step.UP: [failure]})
    with pytest.raises(BringUpFailed, match="failed at the step 'bringing DRBD up': ") as raised:
        node.bring_up()
    reason = failure.message.rstrip(".") if isinstance(failure, Error) else str(failure.strerror)
    assert " ".join(reason.split()) in str(raised.value)
    assert str(raised.value).isprintable()
    assert ".." not in str(raised.value)


def test_a_promotion_that_led_to_nothing_is_given_back() -> None:
    node = FakeNode(after_up=with_superblock(uuid="F" * 32))
    config = replace(CONFIG, uuid="A" * 32)
    hands = Hands(node.look, node.act, node.demote, lambda: node.seconds, node.sleep)
    with pytest.raises(BringUpRefused, match="with the UUID F"):
        bring_up(config, Options(), lambda _: None, hands)
    assert node.demoted == 1


def test_a_role_that_was_there_before_is_left_alone() -> None:
    node = FakeNode(replace(READY, superblock=None, superblock_problem="none"))
    with pytest.raises(BringUpRefused):
        node.bring_up()
    assert node.demoted == 0


def test_a_peer_that_stays_away_is_waited_for_as_long_as_asked() -> None:
    alone = replace(READY, mirror=facts(replace(SECONDARY, peers=(AWAY,))))
    node = FakeNode(alone)
    with pytest.raises(BringUpRefused, match="cannot be reached"):
        node.bring_up(Options(wait_peer=7))
    assert 7 <= node.seconds < 8
    assert node.taken == []


def test_a_step_that_changes_nothing_is_not_taken_forever() -> None:
    node = FakeNode(replace(READY, missing_modules=("drbd",)))

    def act(step: Step, now: Situation, config: StorageConfig) -> None:
        node.seconds += 1

    hands = Hands(node.look, act, node.demote, lambda: node.seconds, node.sleep)
    with pytest.raises(BringUpFailed, match=f"not done after {LIMIT_SECONDS:.0f} s"):
        bring_up(CONFIG, Options(), lambda _: None, hands)


def test_a_node_that_cannot_be_looked_at_is_a_failure_of_that() -> None:
    def look(config: StorageConfig) -> Situation:
        raise CommandTimeout(command="drbdsetup events2 --now r0", seconds=5)

    with pytest.raises(BringUpFailed, match="'looking at this node': 'drbdsetup events2 --now r0' did not finish"):
        bring_up(CONFIG, Options(), lambda _: None, replace(Hands(), look=look))


def registration_failed() -> CommandFailed:
    return CommandFailed(command="o2cb register-cluster pve", status="exit status 1", output="it exists")


def test_what_the_job_of_another_storage_has_done_meanwhile_is_no_failure() -> None:
    node = FakeNode(replace(READY, registered={}))

    def act(step: Step, now: Situation, config: StorageConfig) -> None:
        if step is not Step.REGISTER:
            return node.act(step, now, config)
        node.now = replace(node.now, registered=READY.registered)
        raise registration_failed()

    bring_up(CONFIG, Options(), lambda _: None, Hands(node.look, act, node.demote, lambda: node.seconds, node.sleep))
    assert node.now.mounted


def test_what_nobody_has_done_meanwhile_is_a_failure() -> None:
    node = FakeNode(replace(READY, registered={}), failing={Step.REGISTER: [registration_failed()]})
    with pytest.raises(BringUpFailed, match=r"at the step 'registering the o2cb cluster': .*it exists"):
        node.bring_up()
    assert node.taken == [Step.REGISTER]
