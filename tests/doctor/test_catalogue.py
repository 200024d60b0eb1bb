"""docs/doctor.md lists every finding as the code has it, and every source of a check has a name."""

from __future__ import annotations

import re
from pathlib import Path

from pvedrbdstor.doctor.checks import CATALOGUE
from pvedrbdstor.doctor.sources import NAMES
from tests.doctor.world import healthy

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| ([a-z, ]+) \| (.+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    """The table as the catalogue would have it."""
    return [(entry.id, ", ".join(severity.word for severity in entry.severities), entry.finds) for entry in CATALOGUE]


def test_the_table_is_the_catalogue() -> None:
    assert _ROW.findall(DOCUMENT.read_text()) == rows()


def test_ids_are_unique_and_every_source_is_public() -> None:
    ids = [entry.id for entry in CATALOGUE]
    assert len(ids) == len(set(ids))
    assert all(entry.source is None or entry.source.startswith("https://") for entry in CATALOGUE)


def test_every_source_has_a_name_for_people() -> None:
    assert {source.partition(":")[0] for node in healthy().nodes for source in node.values} <= set(NAMES)
