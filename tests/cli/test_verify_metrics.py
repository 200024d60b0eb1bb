"""`pvedrbdstor verify --metrics`: needs no storage, checks nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pvedrbdstor.verify import last, metrics
from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "verified"))


def test_each_storage_of_this_node_is_told(cli: CommandLine) -> None:
    last.keep("ha", last.Check("full", "a", "clean", 1.0, time.time()))
    result = cli("verify", "--metrics")
    assert result.exit_code == 0
    assert 'last_verdict{storage="ha",verdict="clean"} 1' in result.stdout
    assert '"off"' not in result.stdout and '"elsewhere"' not in result.stdout


def test_a_record_that_cannot_be_read_is_left_out_and_said(cli: CommandLine) -> None:
    Path(last.FOLDER).mkdir()
    Path(last.path("ha")).write_text("{")
    result = cli("verify", "--metrics")
    assert result.exit_code == 0 and '"ha"' not in result.stdout and "left out" in result.stderr


def test_it_is_written_for_the_collector(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "collector").mkdir()
    result = cli("verify", "--metrics-to", str(tmp_path / "collector"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert 'verdict="never"} 1' in (tmp_path / "collector" / metrics.FILE).read_text()


def test_a_folder_that_is_not_there_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("verify", "--metrics-to", str(tmp_path / "none")).exit_code == 2
