"""What the kernel believes of the cache of the disk below DRBD."""

from __future__ import annotations

import os

WRITE_BACK, WRITE_THROUGH = "write back", "write through"
"""With a cache that is lost with the power unless it is flushed; without one, where the kernel drops flushes, as nothing needs them
(Documentation/block/writeback_cache_control.rst)."""


def write_cache(device: str) -> str | None:
    """Of the disk, or the disk that a partition is of (Documentation/ABI/stable/sysfs-block, queue/write_cache). None where it is not told."""
    try:
        number = os.stat(device).st_rdev
        folder = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    except OSError:
        return None
    for queue in (f"{folder}/queue", f"{folder}/../queue"):
        try:
            with open(f"{queue}/write_cache", encoding="ascii") as file:
                return file.read(64).strip()
        except (OSError, ValueError):
            continue
    return None
