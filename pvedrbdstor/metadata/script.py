"""The shell commands that cut one file out of a device by its map. No I/O here."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator

from pvedrbdstor.metadata.places import Placed, Run


def script(placed: Placed, at: float, device: str, target: str) -> str:
    """A script of sh(1) that makes ``target`` out of ``device``. at: when the map was made, in seconds since 1970.

    What was reserved and never written is in it as comments: it read as zeroes then, and may have been written since.
    """
    return "".join(f"{line}\n" for line in _lines(placed, at, device, target))


def _lines(placed: Placed, at: float, device: str, target: str) -> Iterator[str]:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    source, made_of = shlex.quote(device), shlex.quote(target)
    yield "#!/bin/sh"
    yield f"# Copies {_plain(placed.path)} from where it lay at {made}. What was allocated, moved or freed since is not as it was:"
    yield "# check what comes out before anything relies on it. The device is only read; the target must not lie on it."
    if not placed.whole:
        yield "# NOT WHOLE: some of the file lay inside its inode, or nowhere yet, and is not copied."
    yield "set -eu"
    yield f"if [ -e {made_of} ]; then echo {shlex.quote(f'{target} is there already')} >&2; exit 1; fi"
    yield f"truncate -s {placed.size} {made_of}"
    if any(run.unwritten for run in placed.runs):
        yield "# Lines that begin with '#unwritten' are of space that was reserved and read as zeroes. If a guest has written there"
        yield "# since, its data are there: take '#unwritten ' away from these lines. If not, something old is there instead of zeroes."
    for run in placed.runs:
        length = min(run.length, placed.size - run.logical)
        if length > 0:
            yield f"{'#unwritten ' if run.unwritten else ''}{_dd(run, length, source, made_of)}"


def _dd(run: Run, length: int, source: str, target: str) -> str:
    """count, skip and seek in bytes, so that pieces of any length are copied in large blocks."""
    return (
        f"dd if={source} of={target} bs=1M iflag=fullblock,skip_bytes,count_bytes oflag=seek_bytes conv=notrunc status=none"
        f" skip={run.physical} seek={run.logical} count={length}"
    )


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
