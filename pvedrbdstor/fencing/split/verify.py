"""Compare the blocks that either side had changed on both disks, by DRBD's own verify of just those parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import blocks, commands
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import SplitStepFailed
from pvedrbdstor.fencing.split import look
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.replication import VERIFYING
from pvedrbdstor.fencing.split.resync import STALL_SECONDS, Stall, Watch
from pvedrbdstor.fencing.split.steps import Step
from pvedrbdstor.mirror.facts import Drbd, drbd_facts

PARTS_MAX = 16
_ALIGNMENT = 1 << 20
_SECONDS = 15.0
_PAUSE = 0.1
_SETTLED_SECONDS = 5.0
"""After so long in step nothing more comes of a reconnect."""
_IDLE_SECONDS = 120.0
"""Without any word of an end while nothing is verified: the connection is gone."""


def parts(ranges: Sequence[Range], size: int, most: int = PARTS_MAX) -> list[Range]:
    """The ranges as at most so many (start, end), whole MiB but for the end of the device: the smallest gaps are verified along."""
    whole: list[list[int]] = []
    for start, length in sorted(ranges):
        first, last = start // _ALIGNMENT * _ALIGNMENT, min(size, -(-(start + length) // _ALIGNMENT) * _ALIGNMENT)
        if first >= last:
            continue
        if whole and first <= whole[-1][1]:
            whole[-1][1] = max(whole[-1][1], last)
        else:
            whole.append([first, last])
    while len(whole) > most:
        at = min(range(1, len(whole)), key=lambda index: whole[index][0] - whole[index - 1][1])
        whole[at - 1][1] = whole[at][1]
        del whole[at]
    return [(first, last) for first, last in whole]


def compare(config: StorageConfig, journal: Journal, say: Callable[[str], None]) -> int:
    """Bytes that were compared. Raises SplitStepFailed where the disks differ, or where nothing could be compared to the end.

    What a guest on the other node writes in that moment may be found different (drbdadm(8), verify): what was found is copied
    anew by a reconnect, which this Secondary can afford, and compared once more.
    """
    if not has_algorithm(config):
        say(
            "the disks were not compared: no 'verify-alg' is set in net { } of the resource. DRBD's resync alone says that they "
            "are equal."
        )
        return 0
    if _differing(config, journal):
        say(
            "some blocks were found different, perhaps because they were just written: they are copied and compared again."
        )
        with Watch(config) as watch:
            command.run(commands.disconnect(config.resource), timeout=_SECONDS)
            command.run(commands.connect(config.resource), timeout=_SECONDS)
            _copied_anew(config, journal, watch)
        if found := _differing(config, journal):
            raise _failed(
                journal,
                f"{found} KiB differ on the two disks after the resync, which DRBD calls complete; guests that write on "
                f"{journal.keep} just now may be the reason. What {journal.discard} had is still preserved ({journal.target}). Look at "
                "both disks and at 'dmesg', and run it again; '--abandon' closes it without a comparison",
            )
    _, _, size = _state(config, journal)
    return sum(end - start for start, end in parts(journal.ranges, size))


def _differing(config: StorageConfig, journal: Journal) -> int:
    """KiB that a verify of the ranges has found different."""
    drbd, minor, size = _state(config, journal)
    for start, end in parts(journal.ranges, size):
        nine = None if drbd.peers[0].name in (None, "peer") else drbd.peers[0].node_id
        line = commands.verify_part((config.resource, config.volume), minor, nine, start, end)
        command.run(line, timeout=_SECONDS)
        drbd = _verified(config, journal)
    return drbd.peers[0].out_of_sync or 0


def has_algorithm(config: StorageConfig) -> bool:
    """Of the resource as it is written, its own or the common one."""
    top = blocks.parse(command.run(commands.dump(config.resource), timeout=_SECONDS).stdout)
    owners = [
        *(block for block in top.named("resource") if block.words[1:2] == (config.resource,)),
        *top.named("common"),
    ]
    return any(net.value("verify-alg") for owner in owners for net in owner.named("net"))


def _state(config: StorageConfig, journal: Journal) -> tuple[Drbd, int, int]:
    """And the device's minor number and size in bytes."""
    state = look.drbd_state(config.resource)
    drbd, minor = (
        drbd_facts(state, config.resource, config.volume),
        state.minor_of(config.resource, config.volume),
    )
    if drbd is None or minor is None:
        raise _failed(journal, "DRBD is down")
    with open(f"/sys/block/drbd{minor}/size", encoding="ascii") as file:
        return drbd, minor, int(file.read()) * 512


def _copied_anew(config: StorageConfig, journal: Journal, watch: Watch) -> None:
    """Wait for the reconnect's resync, and see that there was one: the blocks found different were marked (out-of-sync), and only a
    resync takes the marks away. Without one the second comparison would say nothing."""
    stall, apart, settled = Stall(), Stall(), Stall(_SETTLED_SECONDS)
    while True:
        followed = watch.look()
        drbd, _, _ = _state(config, journal)
        peer, now = drbd.peers[0], time.monotonic()
        if watch.witness.was_source:
            detail = f"DRBD has copied this node's data to {journal.keep} after a reconnect, not the other way. Look at 'dmesg'"
            raise _failed(journal, detail)
        in_step = peer.has_the_data and drbd.disk == "UpToDate" and peer.replication == "Established"
        if in_step and peer.out_of_sync == 0 and watch.witness.was_target:
            return
        if not followed or settled.seen(1 if in_step else None, now):
            raise _failed(
                journal,
                f"blocks were found different ({peer.out_of_sync or 0} KiB are marked), and nothing says that DRBD has copied them "
                f"anew after a reconnect. Is the storage up on {journal.keep}? If not: 'pvedrbdstor mirror up {journal.storage}' there",
            )
        if apart.seen(None if peer.connected else 0, now):
            raise _failed(journal, f"the nodes did not connect again within {STALL_SECONDS:.0f} s")
        if stall.seen(peer.out_of_sync if peer.connected else None, now):
            detail = (
                f"the resync stands still: {peer.out_of_sync} KiB are left, as {STALL_SECONDS:.0f} s ago. Look at the link, the "
                "disks and 'dmesg'"
            )
            raise _failed(journal, detail)
        time.sleep(_PAUSE)


def _verified(config: StorageConfig, journal: Journal) -> Drbd:
    """Wait for the end of a verify."""
    quiet = time.monotonic()
    while True:
        drbd, _, _ = _state(config, journal)
        replication = drbd.peers[0].replication
        if replication in VERIFYING:
            quiet = time.monotonic()
        elif replication == "Established":
            return drbd
        elif time.monotonic() - quiet > _IDLE_SECONDS or not drbd.peers[0].connected:
            raise _failed(journal, "the connection was lost while the disks were compared")
        time.sleep(_PAUSE)


def _failed(journal: Journal, detail: str) -> SplitStepFailed:
    return SplitStepFailed(storage=journal.storage, step=Step.COMPARE.value, detail=detail)
