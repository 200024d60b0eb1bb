"""Two copies in files, read by the real digester, and DRBD played: what it says is in a file beside each, and may change meanwhile.

`python3 -m tests.verify.world NODE FOLDER` is the other node: what ssh would start there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from pvedrbdstor.mirror import readers
from pvedrbdstor.verify import peer
from pvedrbdstor.verify.digesters import Digesters
from pvedrbdstor.verify.hello import Hello
from pvedrbdstor.verify.plan import blocks_of
from pvedrbdstor.verify.state import NodeState, as_json, from_json
from pvedrbdstor.verify.wire import VERSION, Answer, Request

REPOSITORY = Path(__file__).resolve().parents[2]
UUID = "0123456789ABCDEF0123456789ABCDEF"
GOOD = NodeState("Primary", "UpToDate", "Connected", "Established", "UpToDate", False, None, 0, 0, 100, 0, 5, 10)


def hello(node: str, size: int) -> Hello:
    return Hello(VERSION, node, "1.0", "r0", 0, size, 512, UUID, "00000000000000AA", "prefer-local", 5.0)


class FileCopy:
    """A node's copy in FOLDER/NODE.img; FOLDER/NODE.json: what is otherwise than in GOOD, and how the node behaves.

    unread: reads DRBD does not count. bad: blocks of 4 KiB that cannot be read. slow: seconds for each digest. hello: other words.
    """

    def __init__(self, node: str, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.path = folder / f"{node}.img"
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        self.digesters = Digesters(self.fd, str(self.path))
        size = os.fstat(self.fd).st_size
        self.hello = replace(hello(node, size), **self.told().get("hello", {}))
        self.read = 0
        self.cancelled = False

    def __enter__(self) -> FileCopy:
        return self

    def __exit__(self, *_: object) -> None:
        self.digesters.close()
        os.close(self.fd)

    def told(self) -> dict[str, object]:
        try:
            found = json.loads((self.folder / f"{self.node}.json").read_text())
        except FileNotFoundError:
            return {}
        assert isinstance(found, dict)
        return found

    def state(self) -> NodeState:
        state = replace(GOOD, read=self.read >> 10)
        return from_json({**as_json(state), **self.told().get("state", {})})

    def digest(self, asked: Request) -> Answer:
        told = self.told()
        deadline = time.monotonic() + float(told.get("slow", 0))
        while time.monotonic() < deadline:
            if self.cancelled:
                raise OSError(125, "cancelled")
            time.sleep(0.01)
        found = self.digesters.digest(asked)
        self.read += 0 if told.get("unread") else asked.length
        bad = {block * 4096 // asked.granularity for block in told.get("bad", [])}
        numbers = enumerate(blocks_of(asked.ranges, asked.granularity))
        return Answer(asked.id, found.values, found.errors | {at: 5 for at, number in numbers if number in bad})

    def cancel(self) -> None:
        self.cancelled = True
        self.digesters.cancel()


def tell(folder: Path, node: str, **words: object) -> None:
    """Change how a node is, at once."""
    path = folder / f"{node}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(words))
    new.rename(path)


def far(folder: Path, node: str = "b") -> list[str]:
    """The command line that takes the place of ssh's."""
    return [sys.executable, "-m", "tests.verify.world", node, str(folder)]


def main(node: str, folder: Path) -> int:
    readers.FOLDER = str(folder / "readers")
    (folder / f"{node}.pid").write_text(str(os.getpid()))
    idle = float(os.environ.get("IDLE", "60"))
    ending = peer.Ending("ha", node)
    signal.signal(signal.SIGTERM, lambda _number, _frame: ending.ask())
    with readers.reading("ha"):
        return peer.serve(0, 1, lambda: FileCopy(node, folder), idle=idle, ending=ending)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
