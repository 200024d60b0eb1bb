"""Writes whose memory was changed while they were under way, as DRBD has said in the kernel's log of either node.

With `data-integrity-alg` the sender compares a digest of the data before and after it has sent them, and says where they are not the same
(drbd_send_dblock(), drbd_main.c). Then the disk and the other node may have been given different data. Without it nobody looks.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.drbd import config as drbd_config
from pvedrbdstor.drbd.metadata import BLOCK, SECTOR, Range, merged
from pvedrbdstor.errors import CommandFailed, CommandTimeout, Error
from pvedrbdstor.verify import kernel

WRITES_MAX = 20_000
_MODIFIED = re.compile(r"Digest mismatch, buffer modified by upper layers during write: ([0-9]{1,18})s \+([0-9]{1,9})")
_ANEW = re.compile(r"Resync done |disk\( [A-Za-z]+ -> Attaching \)")
"""A copy that was made anew, in part or as a whole: what was said before no longer proves that it differs by a write."""
_LENGTH_MAX = 1 << 20
"""Of one write: DRBD_MAX_BIO_SIZE (drbd_protocol.h)."""
_READ_SECONDS = 10.0
_TOOL_SECONDS = 10.0
_ASK_SECONDS = 30.0
_ANSWER_MAX = 2 << 20


@dataclass
class Modified:
    """What the log says of one device. writes: bytes of the device, of each such write, the last WRITES_MAX of them."""

    minor: int
    writes: list[Range] = field(default_factory=list)
    lost: bool = False

    def __post_init__(self) -> None:
        self._name = kernel.of_device(self.minor)

    def see(self, text: str) -> None:
        """One line, without its time."""
        name = self._name.match(text)
        if name is None:
            return
        if _ANEW.search(text, name.end()):
            self.writes.clear()
        found = _MODIFIED.match(text, name.end())
        if found is not None and 0 < int(found[2]) <= _LENGTH_MAX:
            self.writes.append((int(found[1]) * SECTOR, int(found[2])))
            if len(self.writes) > WRITES_MAX:
                del self.writes[0]


@dataclass(frozen=True, slots=True)
class Evidence:
    """writes: of both nodes, in order. watched: whether DRBD looks at all (`data-integrity-alg`), None where that is not known. remarks: what
    could not be looked at."""

    writes: tuple[Range, ...] = ()
    watched: bool | None = None
    remarks: tuple[str, ...] = ()


def of_both(config: StorageConfig, minor: int, there: str) -> Evidence:
    """What both nodes' logs say, as far as they go back. What cannot be asked is a remark: without proof a difference is data."""
    writes: list[Range] = []
    remarks = []
    asked: tuple[tuple[str, Callable[[], tuple[Range, ...]]], ...] = (
        ("this node", partial(own, minor)),
        (there, partial(_others, config, there)),
    )
    for node, ask in asked:
        try:
            writes += ask()
        except (OSError, ValueError, RecursionError, Error) as error:
            why = nodes.why_not(error) if isinstance(error, Error) else str(error)
            remarks.append(f"the kernel's log of {node}, for writes whose memory was changed meanwhile: {why}")
    return Evidence(whole_blocks_within(writes), _watched(config), tuple(remarks))


def own(minor: int, open_log: Callable[[], kernel.Log] = lambda: kernel.Log(fresh=False)) -> tuple[Range, ...]:
    """Since the last resync or attaching, of this node's log, in pieces and for a bounded time: others may write to it faster than it is read. Raises OSError."""
    found = Modified(minor)
    deadline = time.monotonic() + _READ_SECONDS
    with open_log() as log:
        while log.read(found) and time.monotonic() < deadline:
            pass
    return tuple(found.writes)


def as_text(writes: Sequence[Range]) -> str:
    return json.dumps([list(part) for part in writes])


def from_text(text: str) -> tuple[Range, ...]:
    """Raises ValueError."""
    data = json.loads(text)
    if not isinstance(data, list) or len(data) > WRITES_MAX:
        raise ValueError("it is no list, or too long")
    for part in data:
        if not isinstance(part, list) or len(part) != 2 or not all(type(number) is int for number in part):
            raise ValueError("a range is none")
        if part[0] < 0 or not 0 < part[1] <= _LENGTH_MAX:
            raise ValueError("a range is none")
    return tuple((start, length) for start, length in data)


def whole_blocks_within(writes: Sequence[Range]) -> tuple[Range, ...]:
    """The blocks that lie within such writes with all their bytes: of a block that was written in part, the rest proves nothing."""
    found = []
    for start, length in merged(list(writes)):
        first, end = -(-start // BLOCK) * BLOCK, (start + length) // BLOCK * BLOCK
        if first < end:
            found.append((first, end - first))
    return tuple(found)


def _others(config: StorageConfig, there: str) -> tuple[Range, ...]:
    line = nodes.line(there, ["verify", config.id, "--modified"])
    return from_text(command.run(line, timeout=_ASK_SECONDS, limit=_ANSWER_MAX).stdout)


def _watched(config: StorageConfig) -> bool | None:
    try:
        text = command.run(commands.show(config.resource), timeout=_TOOL_SECONDS).stdout
    except (CommandFailed, CommandTimeout):
        return None
    found = drbd_config.parse_show(text).get(config.resource)
    return None if found is None or not found.nets else all(net.data_integrity_alg for net in found.nets)
