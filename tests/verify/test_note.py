"""DRBD's before-resync handler: what it notes, what it adds later, and what becomes of a note where something fails."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.drbd.metadata import BLOCK
from pvedrbdstor.drbd.metadata_08 import Superblock
from pvedrbdstor.fencing.split import kernel_log
from pvedrbdstor.verify import note, rejoin, written
from pvedrbdstor.verify.rejoin import SOURCE, TARGET
from tests.verify.test_rejoin import GIB, NEW, NOW, OLD, folder, kept

__all__ = ["folder"]

DEADLINE = float("inf")
SUPER = Superblock((NEW, OLD, 0, 0), GIB, (0, 32768), (0, 32768), True)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRBD_RESOURCE", "r0")
    monkeypatch.setenv("DRBD_VOLUME", "0")
    monkeypatch.setenv("DRBD_MINOR", "0")
    monkeypatch.setattr(note.signal, "alarm", lambda seconds: None)
    monkeypatch.setattr(note.signal, "signal", lambda *words: None)
    monkeypatch.setattr(note, "_later", lambda *words: None)
    monkeypatch.setattr(note, "_meta_disk", lambda *words: None)
    monkeypatch.setattr(note, "_parted", lambda *words: NOW - 60)
    monkeypatch.setattr(written, "read", lambda *words: (SUPER, written.Written(((0, BLOCK),), BLOCK, GIB)))


@pytest.mark.usefixtures("handler")
def test_both_sides_of_a_resync_note_the_same_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    assert note.main([SOURCE]) == 0
    source = rejoin.read("r0", 0)
    assert source is not None and source.note.side == SOURCE and source.note.parted == NOW - 60
    target_data = replace(SUPER, uuids=(OLD + (1 << 48), 0, 0, 0))  # receive_sync_uuid() has set that
    monkeypatch.setattr(written, "read", lambda *words: (target_data, written.Written((), BLOCK, GIB)))
    assert note.main([TARGET]) == 0
    target = rejoin.read("r0", 0)
    assert target is not None and target.note.side == TARGET and target.note.base == source.note.base


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize(
    "error", [written.Unknown("none there"), OSError(5, "I/O error"), RuntimeError("a fault of ours")]
)
def test_the_handler_ends_well_whatever_happens(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """DRBD would drop the connection."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(written, "read", fail)
    assert note.main([SOURCE]) == 0
    assert note.main([]) == 0
    found = rejoin.read("r0", 0)
    if not isinstance(error, RuntimeError):
        assert found is not None and found.note.short is not None and not found.ranges and found.note.size == 0
    monkeypatch.delenv("DRBD_RESOURCE")
    assert note.main([SOURCE]) == 0


@pytest.mark.usefixtures("handler")
def test_what_is_written_until_the_resync_begins_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["WFBitMapS", "WFBitMapS", "SyncSource"]
    monkeypatch.setattr(note, "_connection", lambda minor: states.pop(0) if len(states) > 1 else states[0])
    monkeypatch.setattr(note.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(written, "read_log", lambda disk: ((8 * BLOCK, BLOCK),) if states == ["SyncSource"] else ())
    first = note.note("r0", 0, 0, SOURCE, DEADLINE)
    assert first.note.missing == rejoin.LATE, "it begins as one that is not whole"
    note.add_late("r0", 0, 0, first.note.noted - 1)
    assert rejoin.read("r0", 0) == first, "of another rejoin"
    note.add_late("r0", 0, 0, first.note.noted)
    found = rejoin.read("r0", 0)
    assert found is not None and found.ranges == ((0, BLOCK), (8 * BLOCK, BLOCK)) and found.note.missing is None


def fails(*_: object) -> None:
    raise OSError(5, "I/O error")


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("spoilt", ["_connection", "_meta_disk", "read_log", "locked"])
def test_where_the_last_writes_cannot_be_added_the_note_stays_not_whole(
    monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """And what was noted is compared all the same."""
    first = note.note("r0", 0, 0, SOURCE, DEADLINE)
    started: list[str] = []
    monkeypatch.setattr(note, "_connection", lambda minor: "SyncSource")
    monkeypatch.setattr(written, "read_log", lambda disk: ())
    monkeypatch.setattr(note, "_compare", lambda resource, volume: started.append(resource))
    monkeypatch.setattr(note.syslog, "syslog", lambda *words: None)
    where = {"read_log": written, "locked": rejoin}.get(spoilt, note)
    monkeypatch.setattr(where, spoilt, fails if spoilt != "locked" else lambda *_, **__: fails())
    note.finish("r0", 0, 0, SOURCE, first.note)
    found = rejoin.read("r0", 0)
    assert found is not None and found.note.missing == rejoin.LATE and started == ["r0"]


@pytest.mark.parametrize("text", [None, "version: 8.4.11\n", "version: 8.4.11\n 0: cs:Unconfigured\n"])
def test_without_drbds_state_nobody_knows_that_the_resync_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(note, "_PROC_DRBD", str(tmp_path / "drbd"))
    if text is not None:
        (tmp_path / "drbd").write_text(text)
    with pytest.raises((OSError, written.Unknown)):
        note.add_late("r0", 0, 0, NOW)


def test_the_configuration_of_the_storages_may_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/pve is there some time after the nodes have met."""
    answers: list[list[str] | OSError] = [FileNotFoundError(2, "not there"), FileNotFoundError(2, "not there"), ["ha"]]
    lines: list[list[str]] = []

    def storages_of(*_: object) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(note, "storages_of", storages_of)
    monkeypatch.setattr(note.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(command, "run", lambda line, **_: lines.append(line))
    note._compare("r0", 0)
    assert lines == [["systemctl", "start", "--no-block", "pvedrbdstor-rejoin@ha.service"]]


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("before", ["torn", "never noted", "failed"])
def test_an_earlier_attempt_that_is_not_known_is_told(folder: Path, before: str) -> None:
    folder.mkdir()
    if before == "torn":
        (folder / "r0.0.json").write_text("{")
    elif before == "failed":
        rejoin.write("r0", 0, kept(SOURCE, (), size=0, short="no bitmap"))
    else:
        rejoin.write("r0", 0, kept(checked=NOW))
    (folder / "r0.0.json.begun").write_text("\n\n" if before == "never noted" else "\n")
    assert note.main([SOURCE]) == 0
    found = rejoin.read("r0", 0)
    assert found is not None and found.note.short is not None and found.ranges == ((0, BLOCK),)
    assert not (folder / "r0.0.json.begun").exists(), "this attempt is noted"


@pytest.mark.usefixtures("handler")
def test_an_attempt_that_leaves_no_note_makes_the_older_one_not_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rejoin.write("r0", 0, kept())
    (folder / "r0.0.json.begun").write_text("\n")
    monkeypatch.setattr(rejoin, "write", fails)
    assert note.main([SOURCE]) == 0
    assert rejoin.read("r0", 0) == kept(short=rejoin.LOST)


def test_the_handlers_first_act_is_to_say_that_it_began(tmp_path: Path) -> None:
    """Also where nothing after it works: here there is no Python package that it could load."""
    script = tmp_path / "before-resync-source"
    text = (Path(__file__).parents[2] / "handler" / "before-resync").read_text()
    spoilt = text.replace("/var/lib/pvedrbdstor", str(tmp_path)).replace("/usr/bin/python3", "/bin/false")
    script.write_text(spoilt)
    for count in (1, 2):
        environment = {"PATH": command.PATH, "DRBD_RESOURCE": "r0"}
        assert subprocess.run(["/bin/sh", str(script)], env=environment, check=False).returncode == 0
        assert (tmp_path / "verify/rejoin/r0.0.json.begun").read_text() == "\n" * count


@pytest.mark.usefixtures("handler")
def test_what_hangs_is_given_up_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        note._too_long(0, None)

    monkeypatch.setattr(written, "read", hang)
    assert note.main([SOURCE]) == 0
    found = rejoin.read("r0", 0)
    assert found is not None and found.note.size == 0 and "too long" in str(found.note.short)


@pytest.mark.usefixtures("handler")
def test_a_bitmap_that_was_not_read_whole_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "read", lambda *words: (SUPER, written.Written((), BLOCK, GIB // 2)))
    assert "took more than" in str(note.note("r0", 0, 0, SOURCE, DEADLINE).note.short)


def test_each_path_of_the_volume_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note.socket, "gethostname", lambda: "a.example")
    section = "drbdocfs2: {}\n\tpath /mnt/{}\n\tdrbdocfs2-resource {}\n\tcontent images\n{}\n"
    file = tmp_path / "storage.cfg"
    file.write_text(
        section.format("ha", "ha", "r0", "")
        + section.format("other", "other", "r1", "")
        + section.format("away", "away", "r0", "\tnodes b\n")
    )
    assert note.storages_of("r0", 0, str(file)) == ["ha"]
    assert note.storages_of("r0", 1, str(file)) == []


def test_when_the_connection_was_lost_last() -> None:
    log = [
        (1.0, "drbd r0: conn( WFConnection -> WFReportParams )"),
        (
            2.0,
            "block drbd0: peer( Unknown -> Primary ) conn( WFReportParams -> Connected ) pdsk( DUnknown -> UpToDate )",
        ),
        (3.0, "drbd r0: peer( Primary -> Unknown ) conn( Connected -> NetworkFailure ) pdsk( UpToDate -> DUnknown )"),
        (4.0, "drbd r0: conn( NetworkFailure -> Unconnected )"),
        (5.0, "block drbd0: conn( WFReportParams -> WFBitMapS ) pdsk( DUnknown -> Consistent )"),
    ]
    assert kernel_log.lost(log, "r0", 0) == 3.0
    assert kernel_log.lost(log[:2], "r0", 0) is None
    assert kernel_log.lost(log, "r1", 1) is None
