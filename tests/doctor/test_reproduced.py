"""Every finding is shown in the lab, on real nodes, and cleared there by its own remedy; or it is said why not."""

from __future__ import annotations

import ast
from pathlib import Path

from pvedrbdstor.doctor.checks import CATALOGUE

LAB = Path(__file__).resolve().parents[1] / "lab"
_NOT_YET = (
    "node-silent",
    "versions-differ",
    "drbd-generations-differ",
    "fault-ocfs2-fallocate",
    "fault-drbd-lost-quorum",
    "ocfs2-slots",
    "ocfs2-features",
    "ocfs2-small-clusters",
    "ocfs2-journal",
    "ocfs2-full",
    "ocfs2-scattered",
    "ocfs2-map-unread",
    "verify-diverged",
    "verify-failed",
    "network-shared",
    "volume-interrupted",
    "volume-fragmented",
    "volume-unlooked",
)
NOT_IN_THE_LAB = dict.fromkeys(_NOT_YET, "not shown yet")


def reproduced(folder: Path = LAB) -> dict[str, list[str]]:
    """id -> the lab's modules whose REPRODUCES has it; read without running them, which takes a cluster."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("test_*.py")):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Assign) and [ast.unparse(name) for name in statement.targets] == [
                "REPRODUCES"
            ]:
                for node in ast.walk(statement.value):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        found.setdefault(node.value, []).append(path.name)
    return found


def test_every_finding_is_reproduced_in_the_lab_or_said_why_not() -> None:
    ids, shown = {entry.id for entry in CATALOGUE}, set(reproduced())
    assert not shown - ids and not set(NOT_IN_THE_LAB) - ids, "there is no such finding"
    assert not shown & set(NOT_IN_THE_LAB), "it is shown after all"
    assert ids - shown - set(NOT_IN_THE_LAB) == set(), "show it in a tests/lab/test_*.py, which names it in REPRODUCES"
    assert all(NOT_IN_THE_LAB.values())
