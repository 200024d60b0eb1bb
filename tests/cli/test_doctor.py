"""`pvedrbdstor doctor` and `report` as people and scripts see them; the look itself is a test's."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pvedrbdstor.cli import configuration
from pvedrbdstor.cli.app import app
from pvedrbdstor.cli.session import Session
from pvedrbdstor.doctor import look
from pvedrbdstor.doctor.facts import Look
from tests.cli.conftest import CommandLine
from tests.doctor.test_checks import silent
from tests.doctor.world import broken, drive, healthy


def seen(monkeypatch: pytest.MonkeyPatch, found: Look) -> None:
    monkeypatch.setattr(look, "look", lambda *_, **__: found)
    monkeypatch.setattr(look, "peers", lambda *_: ((), {}))


WARNING = broken({"speeds": {"eth1": "100"}})
ERROR = broken({"vendor": {"ocfs2.service": "FREE"}, "speeds": {"eth1": "100"}})
HINT = broken({"guests:ha": {"drives": [drive()]}})


@pytest.mark.parametrize(("found", "status"), [(healthy(), 0), (HINT, 0), (WARNING, 1), (silent(), 1), (ERROR, 2)])
def test_the_exit_status_is_that_of_the_worst(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, found: Look, status: int
) -> None:
    seen(monkeypatch, found)
    for words in (("doctor",), ("doctor", "--json"), ("doctor", "ha")):
        assert cli(*words).exit_code == status
    assert json.loads(cli("doctor", "--json").stdout)["exit_status"] == status


def test_the_worst_comes_first_with_what_it_means_and_what_helps(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, ERROR)
    text = cli("doctor").stdout
    assert text.index("ERROR: ") < text.index("WARNING: ")
    assert "What it means: " in text and "What helps: " in text and "[vendor-unmasked]" in text
    assert "1 error, 1 warning." in text and "Looked at on nodea and nodeb: " in text


def test_what_could_not_be_looked_at_stands_at_the_end(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, silent())
    assert cli("doctor").stdout.splitlines()[-1] == "Not looked at: nodeb, as no route to host"
    assert json.loads(cli("doctor", "--json").stdout)["not_looked_at"] == {"nodeb": {"": "no route to host"}}


def test_nothing_found(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, healthy())
    assert cli("doctor").stdout.startswith("Nothing found: ")
    assert json.loads(cli("doctor", "--json").stdout)["findings"] == []


def test_a_storage_that_does_not_exist_is_refused(cli: CommandLine) -> None:
    assert cli("doctor", "nowhere").exit_code == 78


def test_a_cluster_file_system_that_is_not_there_is_no_healthy_node(tmp_path: Path) -> None:
    """Where pve-cluster has failed, /etc/pve is an empty folder: that is not a node without storages."""
    result = CliRunner().invoke(app, ["doctor", "--local"], obj=Session(config_path=str(tmp_path / "storage.cfg")))
    assert result.exit_code == 78 and "pve-cluster" in result.output


def test_a_storage_cfg_that_hangs_keeps_the_report_and_not_for_long(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(configuration, "SECONDS", 0.2)
    monkeypatch.setattr(configuration, "_ask", lambda _question: time.sleep(5))
    assert cli("doctor").exit_code == 78
    monkeypatch.chdir(tmp_path)
    seen(monkeypatch, healthy())
    answer = json.loads(cli("report", "--json").stdout)
    assert "STORAGES-NOT-READ.txt" in answer["contents"]


def test_a_storage_whose_section_is_not_right_is_an_error_and_a_disabled_one_is_none(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen(monkeypatch, healthy())
    file = tmp_path / "broken.cfg"
    file.write_text(
        "drbdocfs2: bad\n\tpath /mnt/bad\n\ndrbdocfs2: off\n\tpath /mnt/off\n\tdrbdocfs2-resource r1\n\tdisable\n"
    )
    result = CliRunner().invoke(app, ["doctor"], obj=Session(config_path=str(file)))
    assert result.exit_code == 2
    assert "'bad' in storage.cfg" in result.output and "[storage-unusable]" in result.output
    file.write_text(file.read_text().partition("\n\n")[2])
    assert CliRunner().invoke(app, ["doctor"], obj=Session(config_path=str(file))).exit_code == 0


def test_one_nodes_facts_are_json(cli: CommandLine) -> None:
    document = json.loads(cli("doctor", "--facts").stdout)
    assert document["format"] == 1 and "release" in document["values"]
    assert not any(source.startswith(("volumes:", "guests:")) for source in document["values"])


def test_a_report_is_written_into_the_current_folder(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen(monkeypatch, ERROR)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    answer = json.loads(cli("report", "--json").stdout)
    (path,) = (tmp_path / "here").iterdir()
    assert answer["path"] == str(path) and answer["bytes"] == path.stat().st_size
    with tarfile.open(path) as archive:
        assert sorted(name.partition("/")[2] for name in archive.getnames()) == answer["contents"]


def test_two_reports_of_the_same_second_are_two_files(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen(monkeypatch, healthy())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    paths = {json.loads(cli("report", "--json").stdout)["path"] for _ in range(2)}
    assert paths == {str(path) for path in (tmp_path / "here").iterdir()} and len(paths) == 2


def test_a_folder_that_cannot_be_written_to_is_told(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen(monkeypatch, healthy())
    monkeypatch.chdir("/proc")
    result = cli("report")
    assert result.exit_code == 74 and "Run it in a folder" in result.stderr
