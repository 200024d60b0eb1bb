"""`pvedrbdstor doctor` and `report` as people and scripts see them; the look itself is a test's."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pvedrbdstor import command
from pvedrbdstor.cli.app import app
from pvedrbdstor.cli.session import Session
from pvedrbdstor.doctor import look, storage_file
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.errors import CommandFailed
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.ocfs2 import o2cb
from tests.cli.conftest import CommandLine
from tests.doctor.breaking import silent
from tests.doctor.world import CONF, broken, drive, healthy


def seen(monkeypatch: pytest.MonkeyPatch, found: Look) -> None:
    monkeypatch.setattr(look, "look", lambda *_, **__: found)
    for whose in ("peers_of", "peers_of_any_storage"):
        monkeypatch.setattr(look, whose, lambda *_: look.Peers())


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


def test_hints_alone_are_healthy(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest with PVE's own defaults has one: whoever monitors would never see anything else."""
    seen(monkeypatch, HINT)
    assert "No error and no warning: 1 hint." in cli("doctor").stdout
    assert json.loads(cli("doctor", "--json").stdout)["healthy"] is True
    seen(monkeypatch, WARNING)
    assert json.loads(cli("doctor", "--json").stdout)["healthy"] is False


def test_what_is_accepted_is_told_and_not_counted(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, ERROR)
    result = cli("doctor", "--accept", "vendor-unmasked")
    assert result.exit_code == 1 and "What it means" in result.stdout and "\n1 warning.\n" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("Accepted, and not counted: ERROR: "))
    assert "ocfs2.service" in line
    both = ("--accept", "vendor-unmasked", "--accept", "network-slow")
    assert cli("doctor", *both).exit_code == 0
    document = json.loads(cli("doctor", "--json", *both).stdout)
    assert (document["healthy"], document["exit_status"]) == (True, 0)
    assert [finding["accepted"] for finding in document["findings"]] == [True, True]


def test_only_what_is_of_that_storage_is_accepted(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, broken({"superblock:ha": {}, "verdict:ha": {"kind": "not-up", "cause": "It is not mounted."}}))
    assert cli("doctor", "--accept", "mirror-not-up:other").exit_code == cli("doctor").exit_code != 0
    assert cli("doctor", "--accept", "mirror-not-up:ha").exit_code == 0


def test_an_id_that_no_finding_has_is_no_acceptance(cli: CommandLine) -> None:
    result = cli("doctor", "--accept", "netwerk-slow")
    assert result.exit_code == 2 and "'netwerk-slow' is no id of a finding" in result.stderr


def test_a_storage_that_does_not_exist_is_refused(cli: CommandLine) -> None:
    assert cli("doctor", "nowhere").exit_code == 78


def test_a_cluster_file_system_that_is_not_there_is_no_healthy_node(tmp_path: Path) -> None:
    """Where pve-cluster has failed, /etc/pve is an empty folder: that is not a node without storages."""
    result = CliRunner().invoke(app, ["doctor", "--local"], obj=Session(config_path=str(tmp_path / "storage.cfg")))
    assert result.exit_code == 78 and "pve-cluster" in result.output


def hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_file, "SECONDS", 0.2)
    monkeypatch.setattr(storage_file, "_ask", lambda _question: time.sleep(5))


def test_a_storage_cfg_that_hangs_keeps_the_report_and_not_for_long(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hang(monkeypatch)
    assert cli("doctor").exit_code == 78
    monkeypatch.chdir(tmp_path)
    seen(monkeypatch, healthy())
    answer = json.loads(cli("report", "--json").stdout)
    assert "STORAGES-NOT-READ.txt" in answer["contents"]
    with tarfile.open(answer["path"]) as archive:
        text = archive.extractfile(next(name for name in archive.getnames() if name.endswith("doctor.txt")))
        told = text.read().decode() if text is not None else ""
    assert "[unread]" in told and "'systemctl status pve-cluster'" in told, (
        "nothing found, though no storage was looked at"
    )
    assert "There is no storage" not in told


TWO = """resource r0 {
    on nodea { device /dev/drbd0 minor 0; disk /dev/sda; meta-disk internal; address ipv4 10.0.0.1:7789; }
    on nodeb { device /dev/drbd0 minor 0; disk /dev/sda; meta-disk internal; address ipv4 10.0.0.2:7789; }
}
resource r1 {
    on nodea { device /dev/drbd1 minor 1; disk /dev/sdb; meta-disk internal; address ipv4 10.0.0.1:7790; }
    on noded { device /dev/drbd1 minor 1; disk /dev/sdb; meta-disk internal; address ipv4 10.0.0.4:7790; }
}
"""


@pytest.mark.parametrize(
    ("dump", "cluster", "asked"),
    [
        (TWO, None, {"nodeb", "noded"}),
        (None, CONF, {"nodeb"}),
        (None, "node:\n", {"nodeb", "nodee"}),
        (None, None, {"nodeb", "nodee"}),
    ],
)
def test_a_report_has_the_other_node_also_where_storage_cfg_does_not_tell_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dump: str | None, cluster: str | None, asked: set[str]
) -> None:
    """By DRBD's configuration of any resource, or by cluster.conf, or by corosync.conf."""

    def run(argv: list[str], **_: object) -> command.Result:
        if argv[:2] == ["drbdadm", "dump"] and dump is not None:
            return command.Result(0, dump, "")
        raise CommandFailed(command=" ".join(argv), status="exit status 1", output="no route to host")

    hang(monkeypatch)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(o2cb, "CLUSTER_CONF", str(tmp_path / "cluster.conf"))
    monkeypatch.setattr(corosync_conf, "PATH", str(tmp_path / "corosync.conf"))
    if cluster is not None:
        (tmp_path / "cluster.conf").write_text(cluster)
    (tmp_path / "corosync.conf").write_text(
        "nodelist {\n" + "".join(f"  node {{\n    name: node{letter}\n  }}\n" for letter in "abe") + "}\n"
    )
    monkeypatch.chdir(tmp_path)
    session = Session(config_path=str(tmp_path / "storage.cfg"), node="nodea")
    answer = json.loads(CliRunner().invoke(app, ["report", "--json"], obj=session).stdout)
    assert {name.partition("/")[0] for name in answer["contents"] if name.endswith("/NOT-READ.txt")} == asked


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
