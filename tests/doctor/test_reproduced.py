"""Every finding is shown in the lab, on real nodes, and cleared there by its own remedy; or it is said why not."""

from __future__ import annotations

import ast
from pathlib import Path

from pvedrbdstor.doctor.checks import CATALOGUE

LAB = Path(__file__).resolve().parents[1] / "lab"
_OTHER_DRBD, _MENDED = "the lab has DRBD 8.4 alone", "the lab's kernel has it mended"
NOT_IN_THE_LAB = {
    "check-broke": "only a bug in a check does it, and none is known",
    "drbd-generations-differ": _OTHER_DRBD,
    "fault-drbd-lost-quorum": _OTHER_DRBD,
    "fault-ocfs2-credits": _MENDED,
    "fault-ocfs2-fallocate": _MENDED,
}


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
