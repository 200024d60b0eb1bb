"""Two nodes played on one XFS: its loop device is the disk below DRBD of both, DRBD's own words are made up.

`python3 -m tests.verify.write_path_world NODE FOLDER DEVICE`: the other node, what ssh would start there. FOLDER/NODE.json changes what the
node does: `lower`: another disk; `hello`: other words; `hang`: the question that is never answered; `die`: the one that kills it; `looks`: how many times DRBD is well.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import VerifyRefused
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify.write_path import serve
from pvedrbdstor.verify.write_path.facts import Ground
from pvedrbdstor.verify.write_path.probe import Node, Probe
from pvedrbdstor.verify.write_path.side import Here, There
from pvedrbdstor.volumes.store import Store
from tests.verify import world

GUESTS = "nodes"


class Played(Probe):
    def __init__(self, node: Node, told: Mapping[str, Any]) -> None:
        super().__init__(node)
        self._told = told

    def answer(self, asked: Mapping[str, Any]) -> dict[str, object]:
        if asked["do"] == self._told.get("hang"):
            time.sleep(3600)
        if asked["do"] == self._told.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(asked)


def probe(name: str, folder: Path, device: str) -> Probe:
    config = StorageConfig("ha", str(folder), "r0")
    told = _told(name, folder)
    looks = 0

    def look() -> tuple[Mapping[str, object], Ground]:
        nonlocal looks
        looks += 1
        if looks > int(told.get("looks", 1000)):
            raise VerifyRefused(storage="ha", cause=f"{name} is Diskless", remedy="Attach it")
        return hellos.as_json(hello), ground

    hello = replace(world.hello(name, 1 << 30), **told.get("hello", {}))
    ground = Ground(str(told.get("lower", device)), ("C",), True, "write through")
    return Played(
        Node(
            storage="ha",
            path=str(folder),
            name=name,
            open_store=lambda: Store(config, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)),
            look=look,
            nodes=str(folder / GUESTS),
        ),
        told,
    )


def sides(folder: Path, device: str) -> tuple[Here, There]:
    argv = [sys.executable, "-m", "tests.verify.write_path_world", "b", str(folder), device]
    argv = ["env", f"PYTHONPATH={world.REPOSITORY}", "PYTHONDONTWRITEBYTECODE=1", *argv]
    here = Here("a", "ha", lambda read, write: serve.serve(read, write, lambda: probe("a", folder, device)))
    return here, There("b", "ha", argv)


def started(folder: Path, device: str) -> tuple[ExitStack, Here, There]:
    here, there = sides(folder, device)
    stack = ExitStack()
    stack.enter_context(here)
    stack.enter_context(there)
    return stack, here, there


def _told(name: str, folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return {}
    assert isinstance(found, dict)
    return found


if __name__ == "__main__":
    node, where, lower = sys.argv[1:]
    sys.exit(serve.serve(0, 1, lambda: probe(node, Path(where), lower)))
