"""What a failure looked like from inside: consoles, kernel logs and states of the nodes, kept below artifacts/."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.node import Node

ARTIFACTS = REPOSITORY / "artifacts"
_STATES = {
    "dmesg.txt": "dmesg",
    "drbd.txt": "cat /proc/drbd; drbdsetup events2 --now --statistics",
    "service.log": f"cat {storage.LOG}",
    "mounts.txt": "cat /proc/mounts",
    "storage.txt": "timeout 10 find /mnt/pve/ha -xdev -exec ls -ldi --time-style=full-iso {} +",
    "processes.txt": "for p in /proc/[0-9]*; do echo \"${p##*/} $(cut -d' ' -f3 $p/stat) $(tr '\\0' ' ' <$p/cmdline)\"; done",
}


def keep(cluster: Cluster, title: str) -> Path:
    """Write everything to artifacts/TITLE and return that folder. Nodes that do not answer leave their console only."""
    target = ARTIFACTS / re.sub(r"[^A-Za-z0-9_.-]+", "_", title)
    for node in cluster.nodes:
        folder = target / node.name
        folder.mkdir(parents=True, exist_ok=True)
        if node.console.exists():
            shutil.copy(node.console, folder)
        if node.running:
            _ask(node, folder)
    return target


def _ask(node: Node, folder: Path) -> None:
    for name, command in _STATES.items():
        try:
            result = node.sh(command, timeout=15)
        except LabError:
            return
        (folder / name).write_text(result.out + f"\nrc={result.rc}\n")
