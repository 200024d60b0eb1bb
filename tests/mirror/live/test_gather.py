"""One look at everything, for who asks without a monitor."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.mirror import gather
from pvedrbdstor.mirror.facts import Mount
from pvedrbdstor.mirror.finding import Kind
from pvedrbdstor.mirror.verdict import verdict_of
from tests.fencing.test_corosync_conf import PROXMOX
from tests.fencing.test_status import DOCUMENT
from tests.hung_mount import hung_mount
from tests.mirror.live.world import GOOD_MOUNT, HANDLER, World

CONFIG = StorageConfig("ha", "/nowhere/mounted", "r0")


def test_drbd_o2cb_and_the_settings_are_gathered(world: World) -> None:
    facts = gather.gather(CONFIG)
    assert facts.drbd is not None and facts.drbd.role == "Primary" and facts.view.good
    assert facts.config is not None and facts.config.fencing(0) == "resource-and-stonith"
    assert facts.fence_handler is True
    assert facts.o2cb is not None and facts.o2cb.dead_seconds == 60
    assert facts.mount == Mount(False)
    assert verdict_of(facts).kind is Kind.NOT_UP


def test_a_good_mount_makes_it_healthy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "ask_mount", lambda storage: GOOD_MOUNT)
    assert verdict_of(gather.gather(CONFIG)).kind is Kind.HEALTHY


def test_a_mount_that_hangs_costs_its_deadline_and_is_not_called_well(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_PATIENCE", 0.5)
    with hung_mount(tmp_path / "hung") as path:
        started = time.monotonic()
        facts = gather.gather(StorageConfig("ha", str(path), "r0"))
        assert time.monotonic() - started < 3
    assert facts.mount.mounted is True and facts.mount.silent == 0.5
    assert verdict_of(facts).kind is Kind.SUSPENDED


def test_our_handler_the_guard_and_corosync_are_gathered(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather.corosync_conf, "PATH", str(tmp_path / "corosync.conf"))
    monkeypatch.setattr(gather.status, "PATH", str(tmp_path / "status.json"))
    facts = gather.gather(CONFIG)
    assert (facts.own_handler, facts.corosync, facts.guard) == (False, None, None)
    (world.tools / "dump").write_text(HANDLER.replace("/usr/lib/fence", "/usr/lib/pvedrbdstor/fence-peer"))
    (tmp_path / "corosync.conf").write_text(PROXMOX)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    (tmp_path / "status.json").write_text(json.dumps({**DOCUMENT, "at": now}))
    facts = gather.gather(CONFIG)
    assert facts.own_handler
    assert facts.corosync is not None and facts.corosync.all_votes == 3
    assert facts.guard is not None and facts.guard.votes is not None and facts.guard.votes.expected == 3
    (tmp_path / "status.json").write_text(json.dumps({**DOCUMENT, "at": now - 20}))
    assert gather.gather(CONFIG).guard is None


def test_tools_that_fail_leave_drbd_unknown(world: World) -> None:
    (world.tools / "now").unlink()
    facts = gather.gather(CONFIG)
    assert not facts.view.good
    assert verdict_of(facts).kind is Kind.UNKNOWN


def test_without_drbds_module_nothing_is_up_and_that_is_known(world: World) -> None:
    world.proc.unlink()
    facts = gather.gather(CONFIG)
    assert facts.view.good and facts.drbd is None and facts.generation is None
    assert verdict_of(facts).kind is Kind.NOT_UP
