"""Telling of verdicts: each change once in the log, and PVE's notification system when it lasts."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.mirror.finding import Finding, Kind, Severity
from pvedrbdstor.mirror.live import announce
from pvedrbdstor.mirror.live.announce import Announcer, message, notify
from pvedrbdstor.mirror.verdict import Verdict

ROOT = Path(__file__).resolve().parents[3]
HEALTHY = Verdict(Kind.HEALTHY, True, True, True, "All is well.", "Nothing.", Severity.OK)
DEGRADED = Verdict(Kind.DEGRADED, True, True, True, "Peer away for 3 s.", "Start it.", Severity.WARNING)
FROZEN = Verdict(Kind.SUSPENDED, False, False, False, "Frozen.", "Thaw it.", Severity.CRITICAL)


@pytest.mark.parametrize(
    ("verdict", "level"),
    [(HEALTHY, logging.INFO), (DEGRADED, logging.WARNING), (FROZEN, logging.CRITICAL)],
)
def test_a_verdict_is_one_line_of_its_severity(caplog: pytest.LogCaptureFixture, verdict: Verdict, level: int) -> None:
    caplog.set_level(logging.INFO)
    assert Announcer("ha").changed(verdict, 0.0)
    (record,) = caplog.records
    assert record.levelno == level
    assert "\n" not in record.getMessage() and verdict.cause in record.getMessage()


def test_progress_is_no_change_and_another_finding_is_one(caplog: pytest.LogCaptureFixture) -> None:
    one = Announcer("ha")
    one.changed(DEGRADED, 0.0)
    assert not one.changed(replace(DEGRADED, cause="Peer away for 4 s."), 1.0)
    unprotected = Finding(Kind.UNPROTECTED, "No fencing.", "Fence.", Severity.ERROR)
    assert one.changed(replace(DEGRADED, also=(unprotected,)), 2.0)
    assert "Also unprotected: No fencing. Fence." in caplog.text


def test_another_thing_of_the_same_kind_is_a_change(caplog: pytest.LogCaptureFixture) -> None:
    """The disk that is lost during a resync, or the peer after it, must not pass in silence."""
    resync = replace(DEGRADED, cause="A resync is running, 3 % done.", what="resync")
    one = Announcer("ha", first=resync)
    assert not one.changed(replace(resync, cause="A resync is running, 4 % done."), 1.0)
    assert one.changed(replace(resync, cause="The disk is lost.", what="own disk lost"), 2.0)
    assert one.changed(replace(resync, cause="The peer is away.", what="peer away"), 3.0)
    assert len(caplog.records) == 2


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PVE with templates, whose notification system is a file."""
    path = tmp_path / "told"

    def tell(text: dict[str, str]) -> dict[str, str]:
        with path.open("a") as file:
            file.write(f"{text['severity']} {text['verdict']}\n")
        return {}

    monkeypatch.setattr(announce, "notify", tell)
    monkeypatch.setattr(announce, "available", lambda: True)
    return path


def wait_for_lines(path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError("nobody was told")


def test_a_verdict_that_lasts_is_notified_once(told: Path) -> None:
    one = Announcer("ha", first=HEALTHY)
    one.changed(FROZEN, 0.0)
    one.notify_settled(FROZEN, 5.0)
    assert not told.exists()
    for now in (11.0, 12.0, 13.0):
        one.notify_settled(FROZEN, now)
    assert wait_for_lines(told, 1) == ["error suspended"]
    one.close()


def test_a_split_brain_is_notified_at_once_and_again_when_it_is_certain(told: Path) -> None:
    feared = Verdict(Kind.SPLIT_BRAIN, True, True, False, "Gone too long.", "Look.", Severity.CRITICAL, what="feared")
    certain = replace(feared, cause="Met again.", what="found")
    one = Announcer("ha", first=HEALTHY)
    assert one.changed(feared, 0.0)
    one.notify_settled(feared, 0.1)
    assert wait_for_lines(told, 1) == ["error split-brain"]
    assert one.changed(certain, 1.0)
    deadline = time.monotonic() + 5
    while len(told.read_text().splitlines()) < 2 and time.monotonic() < deadline:
        one.notify_settled(certain, 1.1)  # the process that notifies may not have told yet that it is free again
        time.sleep(0.02)
    assert wait_for_lines(told, 2) == ["error split-brain"] * 2
    one.close()


def test_a_verdict_that_passes_wakes_nobody(told: Path) -> None:
    one = Announcer("ha", first=HEALTHY)
    one.changed(FROZEN, 0.0)
    one.notify_settled(FROZEN, 5.0)
    one.changed(HEALTHY, 6.0)
    one.notify_settled(HEALTHY, 30.0)
    one.changed(DEGRADED, 31.0)
    one.notify_settled(DEGRADED, 42.0)
    assert wait_for_lines(told, 1) == ["warning degraded"]
    one.close()


def test_pve_is_asked_with_the_severity_the_template_and_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The call is the one PVE::Notify of PVE 8.2 to 9 takes; the module is a double that writes down what it gets."""
    (tmp_path / "PVE").mkdir()
    (tmp_path / "PVE" / "Notify.pm").write_text(
        "package PVE::Notify; use JSON; sub common_template_data { return { hostname => 'a', fqdn => 'a.b' } }\n"
        f"sub notify {{ open(my $f, '>', '{tmp_path}/got'); print $f JSON->new->canonical->encode([@_]); close($f) }} 1;\n"
    )
    monkeypatch.setattr(announce, "NOTIFY_PERL", f"use lib '{tmp_path}';{announce.NOTIFY_PERL}")
    notify(message("ha", FROZEN))
    assert (
        (tmp_path / "got")
        .read_text()
        .startswith('["error","drbdocfs2",{"cause":"Frozen.","fqdn":"a.b","hostname":"a",')
    )
    assert '{"hostname":"a","storage":"ha","type":"drbdocfs2"}]' in (tmp_path / "got").read_text()


def test_where_systemd_runs_it_starts_what_notifies_outside_of_the_services_confines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "systemd-run").write_text(f'#!/bin/sh\necho "$1 $2 $3 $4 $5" >{tmp_path}/got\n')
    (tmp_path / "systemd-run").chmod(0o755)
    monkeypatch.setattr(announce, "_SYSTEMD", str(tmp_path))
    monkeypatch.setattr(command, "PATH", f"{tmp_path}:{command.PATH}")
    notify(message("ha", FROZEN))
    assert (tmp_path / "got").read_text() == "--quiet --collect --property=RuntimeMaxSec=30 perl -e\n"


def test_a_pve_that_does_not_take_it_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    notify(message("ha", FROZEN))
    assert "PVE's notification system did not take a message" in caplog.text


def test_without_pves_templates_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(announce, "TEMPLATES", str(tmp_path))
    (tmp_path / "drbdocfs2-subject.txt.hbs").touch()
    assert not announce.available()
    (tmp_path / "vzdump-subject.txt.hbs").touch()
    assert announce.available()


def test_the_templates_name_only_what_is_passed() -> None:
    import re

    passed = {*message("ha", FROZEN), "hostname", "fqdn", "cluster-name"}
    for name in ("subject", "body"):
        text = (ROOT / "notify" / f"drbdocfs2-{name}.txt.hbs").read_text()
        names = set(re.findall(r"\{\{\s*([a-z-]+)\s*\}\}", text))
        assert names and names <= passed
