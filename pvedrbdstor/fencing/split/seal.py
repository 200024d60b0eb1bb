"""A seal on the side to lose: whether anything was written to it since what it has was preserved."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.events2 import State


@dataclass(frozen=True, slots=True)
class Seal:
    """boot: its id. device: the number of its folder in sysfs, another one for every device that DRBD makes; None while it is
    down. written: KiB that DRBD has written to its disk since it made the device, None where it does not tell. requests: writes
    and discards that it was asked for here, so that what is less than a KiB counts, too.
    """

    boot: str
    device: int | None = None
    written: int | None = None
    requests: int | None = None


def holds(seal: Seal, now: Seal) -> bool:
    """Nothing was written through DRBD since ``seal``. False also where nobody can tell, as after a reboot."""
    return seal == now and now.device is not None and now.written is not None


def take(config: StorageConfig, state: State) -> Seal:
    """This moment, of a state with its counters. Raises OSError."""
    found = next((it for it in state.devices if (it.resource, it.volume) == (config.resource, config.volume)), None)
    if found is None or found.minor is None:
        return Seal(boot_id())
    folder = f"/sys/block/drbd{found.minor}"
    return Seal(boot_id(), os.stat(folder).st_ino, found.written, _requests(folder))


def _requests(folder: str) -> int:
    """Completed writes and discards (Documentation/block/stat.rst: the 5th and the 12th number, of which old kernels lack one)."""
    with open(f"{folder}/stat", encoding="ascii") as file:
        numbers = [int(word) for word in file.read().split()]
    return sum(numbers[at] for at in (4, 11) if at < len(numbers))


def boot_id() -> str:
    """Of the running kernel (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
