"""`python3 -m bench.sample`: how much sooner a sample ends because its blocks are read 32 at a time, on disks that take 8 ms for a read.

Two copies of 1 GiB, each on a disk of the bench's making (tests/faulty_disk.py) with 1, 8 or 32 spindles, compared by two processes as
`pvedrbdstor verify` does; DRBD is played (tests/verify/world.py). One block at a time is what it was before: slices of one range.
A real spindle gains besides, as it takes what waits in the order of its tracks; these do not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pvedrbdstor.verify import plan
from pvedrbdstor.verify.lead import Findings, Leader
from pvedrbdstor.verify.link import Link
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.pair import Pair
from pvedrbdstor.verify.plan import Plan, sample
from pvedrbdstor.verify.settle import Settling, Verdict
from tests.faulty_disk import faulty_disk
from tests.verify.world import FileCopy, far

_SIZE = 1 << 30
_BLOCK = 65536
_SECONDS = 0.008
_FRACTION = 0.05


def measure(spindles: int, ranges: int) -> float:
    """Seconds of a sample of 820 blocks, so many ranges to a slice."""
    plan.SLICE_RANGES = ranges
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for node in "ab":
            place = folder / node
            place.mkdir()
            disk = stack.enter_context(faulty_disk(bytes(_SIZE), place))
            disk.slow(_SECONDS, spindles)
            (folder / f"{node}.img").symlink_to(disk.path)
        here = stack.enter_context(FileCopy("a", folder))
        there = stack.enter_context(Link(far(folder), "ha", "b"))
        there.greet(here.hello)
        pair = stack.enter_context(Pair(here, there, here.hello, "ha", lambda: False))
        found = Findings(settling=Settling(5.0))
        chosen = Plan(_SIZE, _BLOCK, picked=sample(_SIZE, _BLOCK, _FRACTION, seed=1))
        began = time.monotonic()
        Leader(pair, chosen, found, Pace()).run()
        assert found.settling.verdict is Verdict.CLEAN and found.compared == chosen.total
        return time.monotonic() - began


def main() -> int:
    os.chdir(Path(__file__).resolve().parent.parent)
    for spindles in (1, 8, 32):
        one, many = measure(spindles, 1), measure(spindles, 32)
        print(
            f"{spindles:2} spindle(s): {one:5.1f} s one at a time, {many:5.1f} s 32 at a time: {one / many:.1f} times as fast"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
