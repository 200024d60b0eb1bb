"""`pvedrbdstor vendor-units`: what the package's scripts and units call."""

from __future__ import annotations

import json
from pathlib import Path

from pvedrbdstor.mirror.vendor import UNITS
from tests.cli.conftest import CommandLine


def test_command_masks_gives_back_and_tells(cli: CommandLine, tmp_path: Path) -> None:
    root = ["--root", str(tmp_path / "system")]
    assert cli("vendor-units", "mask", *root).stdout == f"Masked: {', '.join(UNITS)}.\n"
    assert json.loads(cli("vendor-units", "status", "--json", *root).stdout) == dict.fromkeys(UNITS, "ours")
    assert "masked by pvedrbdstor" in cli("vendor-units", "status", *root).stdout
    assert cli("vendor-units", "mask", *root).stdout == "Nothing to change.\n"
    assert cli("vendor-units", "follow", *root).stdout == "Nothing to change.\n"
    assert cli("vendor-units", "unmask", *root).stdout == f"Gave back: {', '.join(UNITS)}.\n"


def test_command_is_for_scripts_and_not_listed(cli: CommandLine) -> None:
    assert "vendor-units" not in cli("--help").stdout
    assert cli("vendor-units", "--help").exit_code == 0
