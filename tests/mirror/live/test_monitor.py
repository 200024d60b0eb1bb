"""The monitor on a node of doubles: what DRBD, the mount and storage.cfg do, and what the view says then."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from pvedrbdstor.errors import SystemCallFailed
from pvedrbdstor.mirror import gather
from pvedrbdstor.mirror.live import knowledge, peer_off, view
from pvedrbdstor.mirror.live.monitor import Monitor
from tests.hung_mount import hung_mount
from tests.mirror.live.world import BACK, CUT, EVENTS, GOOD_MOUNT, PEER, World


def test_a_healthy_storage_is_seen_so_with_its_sizes(world: World) -> None:
    world.start()
    seen = world.until_kind("healthy")
    assert seen.fresh and seen.verdict.active
    assert seen.sizes == GOOD_MOUNT["sizes"]


def test_nothing_is_said_before_the_first_answers_are_there(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.start()
    world.until_kind("healthy")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["Storage 'ha' is healthy (active)"]


def test_what_the_stream_tells_is_in_the_view_at_once_and_back_again(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, "change resource name:r0 suspended:user\n")
    assert not world.until_kind("suspended").verdict.active
    world.stream(1, "change resource name:r0 suspended:no\n")
    world.until_kind("healthy")


def test_the_role_of_a_lost_peer_is_remembered_from_the_stream(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, f"change connection name:r0 {PEER} role:Secondary\n{CUT}")
    assert "was not writing when it left" in world.until_kind("degraded").verdict.cause


def test_a_frozen_device_that_only_proc_drbd_tells_of_is_seen(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.proc.write_text(world.proc.read_text().replace(" C r-----", " C s-----"))
    world.until_kind("suspended")


@pytest.mark.parametrize("looks", [True, False], ids=["looks go on", "no look answers either"])
def test_a_stream_that_ends_is_started_anew(world: World, looks: bool) -> None:
    world.start()
    world.until_kind("healthy")
    if not looks:
        (world.tools / "now").unlink()
    world.stream(2, EVENTS + CUT, now=looks)
    world.stream(1, "END\n", now=False)
    assert world.until(lambda seen: seen.verdict.kind.value != "healthy").verdict.admits is False
    world.until(lambda _: world.starts() == 2)


def test_garbage_in_the_stream_changes_nothing(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, "\0\xff no event\nexists\nchange device name:r0 volume:x disk:Failed\n- skipped 4\n", now=False)
    world.run(0.6)
    assert world.view().verdict.kind.value == "healthy" and world.starts() == 1


def test_a_stream_that_has_stalled_is_found_out_and_started_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.start()
    world.until_kind("healthy")
    world.now(EVENTS + "change device name:r0 volume:0 disk:Diskless\n")
    world.until_kind("degraded")
    world.stream(2, EVENTS + "change device name:r0 volume:0 disk:Diskless\n")
    world.until(lambda _: world.starts() == 2)
    assert "has stalled" in caplog.text


def test_a_stream_that_stalls_while_no_look_answers_leaves_nothing_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "STALE_SECONDS", 0.5)
    world.start()
    world.until_kind("healthy")
    (world.tools / "now").unlink()
    seen = world.until_kind("unknown")
    assert seen.fresh and seen.verdict.active and not seen.verdict.admits
    world.now(EVENTS)
    world.until_kind("healthy")


def test_a_mount_that_hangs_blocks_nobody_and_is_said_to_be_silent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_storages("ha", "other")
    world.mount("other", GOOD_MOUNT)
    world.start()
    world.until_kind("healthy")
    world.until_kind("healthy", "other")
    monkeypatch.setattr("pvedrbdstor.mirror.gather.mounted_at", _table_with_the_mount)
    world.mount("ha", None)
    started = time.monotonic()
    assert "not answered" in world.until_kind("suspended").verdict.cause
    assert time.monotonic() - started < 3
    assert world.view("other").fresh and world.view("other").verdict.active
    world.mount("ha", GOOD_MOUNT)
    world.until_kind("healthy")


def _table_with_the_mount(path: str) -> object:
    from pvedrbdstor.mirror.mountinfo import MountEntry

    return MountEntry(1, (147, 0), "/", path, "ocfs2", "/dev/drbd0", ("rw",))


def test_a_real_mount_that_hangs_is_silent_from_the_table_of_mounts_alone(world: World, tmp_path: Path) -> None:
    with hung_mount(tmp_path / "hung") as path:
        world.storage_cfg.write_text(f"drbdocfs2: ha\n\tpath {path}\n\tdrbdocfs2-resource r0\n")
        world.start(ask_mount=gather.ask_mount)
        assert "not answered" in world.until_kind("suspended").verdict.cause
    world.until_kind("not-up")


def test_a_mount_that_hangs_and_is_gone_from_the_table_is_not_mounted(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.mount("ha", None)
    world.until_kind("not-up")


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"read_only": True}, "read-only"), ({"mounted": False}, "not-up"), ({"wrong": "Something else."}, "not-up")],
)
def test_what_a_probe_answers_is_in_the_view(world: World, change: dict[str, object], kind: str) -> None:
    world.start()
    world.until_kind("healthy")
    world.mount("ha", {**GOOD_MOUNT, **change})
    world.until_kind(kind)
    world.mount("ha", GOOD_MOUNT)
    world.until_kind("healthy")


def test_without_drbds_module_the_storage_is_not_up_and_comes_when_it_is_loaded(world: World) -> None:
    proc = world.proc.read_text()
    world.proc.unlink()
    (world.tools / "now").unlink()
    world.mount("ha", {"mounted": False})
    world.start()
    assert "module is not loaded" in " ".join(
        [(seen := world.until_kind("not-up").verdict).cause, *(found.cause for found in seen.also)]
    )
    assert world.starts() == 0
    world.proc.write_text(proc)
    world.now(EVENTS)
    world.mount("ha", GOOD_MOUNT)
    world.until_kind("healthy")


def test_a_storage_that_is_added_is_watched_and_a_removed_one_forgotten(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.mount("other", GOOD_MOUNT)
    world.put_storages("other")
    world.until_kind("healthy", "other")
    world.until(lambda seen: seen.last is None)


def test_a_storage_for_other_nodes_only_is_not_watched(world: World) -> None:
    world.storage_cfg.write_text(world.storage_cfg.read_text() + "\tnodes b,c\n")
    world.start()
    world.run(0.6)
    assert world.view().last is None


def test_a_configuration_that_cannot_be_read_changes_nothing(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.storage_cfg.unlink()
    world.run(0.5)
    assert world.view().fresh and world.view().verdict.kind.value == "healthy"


def test_the_heart_beats_while_nothing_happens(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    first = view.read_record("ha", str(world.live))["at"]
    world.run(view.HEARTBEAT_SECONDS)
    assert view.read_record("ha", str(world.live))["at"] - first >= view.HEARTBEAT_SECONDS / 2


def test_a_new_monitor_knows_the_losses_its_predecessor_saw(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, f"change connection name:r0 {PEER} role:Secondary\n{CUT}")
    world.until_kind("degraded")
    world.stop()
    world.stream(2, (world.tools / "now").read_text())
    before = view.read_record("ha", str(world.live))["at"]
    world.start()
    world.until(
        lambda seen: (
            view.read_record("ha", str(world.live))["at"] > before + 0.5
            and "was not writing when it left" in seen.verdict.cause
        )
    )


def test_a_new_monitor_after_a_long_time_does_not_trust_an_old_role(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, f"change connection name:r0 {PEER} role:Secondary\n{CUT}")
    world.until_kind("degraded")
    world.stop()
    record = world.live / "ha.json"
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "at": data["at"] - 60}))
    world.stream(2, (world.tools / "now").read_text())
    world.start()
    world.until(lambda seen: seen.fresh and "was not writing" not in seen.verdict.cause)
    assert not world.view().verdict.admits


def test_a_new_monitor_does_not_repeat_what_was_already_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start()
    world.until_kind("healthy")
    world.stop()
    caplog.clear()
    caplog.set_level(logging.INFO)
    world.stream(2, EVENTS)
    world.start()
    world.run(1.0)
    assert world.view().fresh
    assert "healthy" not in caplog.text


def test_there_is_one_monitor_at_a_time(world: World) -> None:
    world.live.mkdir()
    with open(world.live / ".lock", "w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        one = Monitor(str(world.live), node="a")
        with pytest.raises(SystemCallFailed, match="another monitor runs"):
            one.run()
        one.close()


def test_an_orphaned_monitor_ends(world: World) -> None:
    world.start()
    assert world.monitor is not None
    world.monitor.run(orphaned=lambda: True)
    world.monitor = None


def test_the_vendors_start_scripts_are_looked_after_when_the_first_storage_comes_and_the_last_one_goes(
    world: World,
) -> None:
    def asked() -> list[str]:
        """How many storages there were each time."""
        return (world.tools / "vendor-units").read_text().split()

    world.start()
    world.until(lambda _: (world.tools / "vendor-units").exists())
    world.put_storages("ha", "hb")
    world.until(lambda seen: seen.fresh, "hb")
    assert asked() == ["1"]  # nothing changes for them
    world.put_storages()
    world.until(lambda _: asked() == ["1", "0"])
    world.put_storages("hb")
    world.until(lambda _: asked() == ["1", "0", "1"])


def test_a_peer_said_to_be_off_is_no_second_writer_until_it_connects_again(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    world.stream(1, CUT)
    world.until(lambda seen: not seen.verdict.admits)
    peer_off.say("ha", str(world.live))
    assert "switched off" in world.until(lambda seen: seen.verdict.admits).verdict.cause
    world.stream(1, BACK)
    world.until_kind("healthy")
    world.stream(1, CUT)
    world.until(lambda seen: not seen.verdict.admits)


def test_a_peer_said_to_be_off_before_drbd_has_missed_it_stays_so(world: World) -> None:
    world.start()
    world.until_kind("healthy")
    peer_off.say("ha", str(world.live))
    world.run(0.5)
    world.stream(1, CUT)
    assert world.until_kind("degraded").verdict.admits
