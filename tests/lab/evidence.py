"""What a failure looked like from inside: consoles, kernel logs, DRBD's events and states of the nodes, in artifacts/."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.lab import formation, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.node import Node

ARTIFACTS = REPOSITORY / "artifacts" / "lab"
_KEPT = 10
_STATES = {
    "dmesg.txt": "dmesg",
    "drbd.txt": "cat /proc/drbd; drbdsetup events2 --now --statistics",
    "service.log": f"cat {storage.LOG}",
    "mounts.txt": "cat /proc/mounts",
    "storage.txt": "timeout 10 find /mnt/pve/ha -xdev -exec ls -ldi --time-style=full-iso {} +",
    "processes.txt": "for p in /proc/[0-9]*; do echo \"${p##*/} $(cut -d' ' -f3 $p/stat) $(tr '\\0' ' ' <$p/cmdline)\"; done",
}


def keep(cluster: Cluster, title: str) -> Path:
    """Write everything to artifacts/lab/TITLE and return that folder; all but the last ten of those are removed.

    Nodes that do not answer leave their console and DRBD's events only.
    """
    target = ARTIFACTS / re.sub(r"[^A-Za-z0-9_.-]+", "_", title)
    for node in cluster.nodes:
        folder = target / node.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (node.console, node.share / formation.EVENTS):
            if file.exists():
                shutil.copy(file, folder)
        if node.running:
            _ask(node, folder)
    target.touch()
    prune(ARTIFACTS, _KEPT)
    return target


def prune(folder: Path, kept: int) -> None:
    """Remove all but the ``kept`` folders that changed last."""
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[kept:]:
        shutil.rmtree(old, ignore_errors=True)


def _ask(node: Node, folder: Path) -> None:
    for name, command in _STATES.items():
        try:
            result = node.sh(command, timeout=15)
        except LabError:
            return
        (folder / name).write_text(result.out + f"\nrc={result.rc}\n")
