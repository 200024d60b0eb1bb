"""What can be done to a cluster under trial: the steps of which scenarios are made."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab import storage
from tests.lab.corosync import COROSYNC, QDEVICE, QNETD
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.network import Rule
from tests.lab.trial import Trial, drbd_state

_DISK = 64 << 20  # bytes of the image that is snapshotted
_VMID = 100
_VOLUME = f"{STORAGE}:{_VMID}/vm-{_VMID}-disk-0.raw"
_TO_RESYNC = 48  # MiB
PRESSURE = "pressure"
"""What spawn() is told of the process that eats memory."""


@dataclass(frozen=True)
class Action:
    """Something that is done to the cluster. what: for people."""

    what: str
    do: Callable[[Trial], object]


@dataclass(frozen=True)
class Event:
    """Something to wait for. what: for people."""

    what: str
    has_come: Callable[[Trial], bool]


WIN = Event("a node was told to go on", lambda trial: trial.won() > 0)


def booted(name: str) -> Event:
    return Event(f"{name} has booted again", lambda trial: trial.node(name).boots > 1)


def served(name: str) -> Event:
    return Event(f"{name} is back in service", lambda trial: name in trial.served)


def state(name: str, words: str) -> Event:
    """DRBD on a node says these words (trial.drbd_state)."""
    return Event(f"{name} is {words}", lambda trial: words in drbd_state(trial.node(name)))


def link(*rules: Rule) -> Action:
    """The network obeys these rules only from now on."""
    return Action(f"network: {rules or 'healed'}", lambda trial: trial.network.only(*rules))


def pause(seconds: float) -> Action:
    return Action(f"wait {seconds} s", lambda _trial: time.sleep(seconds))


def kill(name: str) -> Action:
    """Take a node's power. Nothing but start(), or the end of the observation, gives it back."""
    return Action(f"kill {name}", lambda trial: trial.switch_off(trial.node(name)))


def start(name: str) -> Action:
    return Action(f"start {name}", lambda trial: trial.switch_on(trial.node(name)))


def stop(name: str) -> Action:
    """A whole node stands still, as when its hypervisor pauses it."""
    return Action(f"stop {name}", lambda trial: trial.node(name).stop())


def wake(name: str) -> Action:
    return Action(f"wake {name}", lambda trial: trial.node(name).wake())


def _signalled(name: str, program: str, number: signal.Signals) -> Action:
    what = f"{number.name} to {program} on {name}"
    return Action(what, lambda trial: trial.corosync.signal(trial.node(name), program, number))


def kill_corosync(name: str) -> Action:
    return _signalled(name, COROSYNC, signal.SIGKILL)


def stop_corosync(name: str) -> Action:
    return _signalled(name, COROSYNC, signal.SIGSTOP)


def wake_corosync(name: str) -> Action:
    return _signalled(name, COROSYNC, signal.SIGCONT)


def kill_qdevice(name: str) -> Action:
    return _signalled(name, QDEVICE, signal.SIGKILL)


def kill_qnetd() -> Action:
    return _signalled("c", QNETD, signal.SIGKILL)


def kill_guard(name: str) -> Action:
    return Action(f"kill the guard on {name}", lambda trial: trial.protection.kill(trial.node(name)))


def remove_handler(name: str) -> Action:
    return Action(f"no handler on {name}", lambda trial: trial.protection.remove_handler(trial.node(name)))


def kill_handler(name: str) -> Action:
    """Kill the handler that DRBD waits for: at once, so that bash looks at the processes without starting any."""

    def do(trial: Trial) -> None:
        trial.node(name).run(
            f"""for command in /proc/[0-9]*/cmdline; do
    read -rd '' program <$command && [ "$program" = {trial.protection.fencing.handler} ] || continue
    pid=${{command%/cmdline}}
    kill -9 ${{pid#/proc/}} && exit 0
done 2>/dev/null
exit 1"""
        )

    return Action(f"kill the handler on {name}", do)


def take_down(name: str) -> Action:
    """Unmount and leave DRBD in good order."""
    return Action(f"take {name} down", lambda trial: trial.take_down(trial.node(name)))


def bring_back(name: str) -> Action:
    """What take_down() has taken down comes back, in the background."""
    return Action(f"bring {name} back", lambda trial: trial.away.discard(name))


def fall_behind(name: str) -> Action:
    """Writes that a peer which is down will lack, and a resync slow enough to be cut in its middle."""
    fill = f"dd if=/dev/urandom of={MOUNT_POINT}/behind bs=1M count={_TO_RESYNC} conv=fsync status=none"
    slow = f"drbdadm disk-options --resync-rate=2M --c-plan-ahead=0 {RESOURCE}"
    return Action(f"{name} writes {_TO_RESYNC} MiB", lambda trial: trial.node(name).run(f"{fill} && {slow}", 120))


def snapshot(name: str) -> Action:
    """A snapshot of the image of use_storage() begins, in the background. Whether the file system is whole is checked."""

    def do(trial: Trial) -> None:
        trial.background.submit(storage.call, trial.node(name), "volume_snapshot", _VOLUME, "during")

    return Action(f"snapshot on {name}", do)


def use_storage() -> Action:
    """Start the storage's service, and make a disk image."""

    def do(trial: Trial) -> None:
        storage.install(trial.cluster.nodes)
        assert storage.alloc(trial.cluster.a, _VMID, _DISK) == _VOLUME

    return Action("start the storage's service", do)


def memory_pressure(name: str) -> Action:
    """A process eats the node's memory and dirties its page cache until the node, or the outage, ends."""
    module = f"tests.lab.guest.pressure {MOUNT_POINT}/pressure.node{name}"
    return Action(f"memory pressure on {name}", lambda trial: trial.spawn(trial.node(name), PRESSURE, module))
