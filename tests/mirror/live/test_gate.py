"""What a view lets through: status without the mount, no call into frozen I/O, no newcomers in a split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotAdmitted, NotUsable
from pvedrbdstor.mirror.finding import Finding, Kind, Severity
from pvedrbdstor.mirror.live import view
from pvedrbdstor.mirror.live.view import STALE_SECONDS, InUse, Record, boot_clock, write_view
from pvedrbdstor.mirror.verdict import Verdict
from pvedrbdstor.service.methods import Dispatcher
from pvedrbdstor.volumes.store import Store

SIZES = {"total": 300, "avail": 200, "used": 100}
VOLUME = "100/vm-100-disk-0.raw"


def verdict(kind: Kind, active: bool, admits: bool) -> Verdict:
    return Verdict(kind, active, active, admits, "The cause.", "The remedy.", Severity.ERROR)


HEALTHY = verdict(Kind.HEALTHY, True, True)
SPLIT = verdict(Kind.SPLIT_BRAIN, True, False)
FROZEN = verdict(Kind.SUSPENDED, False, False)
STALE = verdict(Kind.STALE, False, False)


class Backend:
    """The real dispatcher on a plain folder, and a view beside it. opened: how often the mount was touched."""

    def __init__(self, folder: Path) -> None:
        self.config = StorageConfig("ha", str(folder), "r0")
        self.opened = 0
        self._dispatcher = Dispatcher(self._open)
        image = folder / "images" / VOLUME
        image.parent.mkdir(parents=True)
        image.write_bytes(bytes(4096))
        self.inode = image.stat().st_ino

    def see(self, found: Verdict, *, age: float = 0.0, in_use: InUse = InUse(), **config: str) -> None:  # noqa: B008
        of = StorageConfig(self.config.id, config.get("path", self.config.path), self.config.resource)
        write_view(Record(of, found, boot_clock() - age, 0.0, SIZES, in_use))

    def call(self, method: str, **params: object) -> object:
        storage = {"id": "ha", "path": self.config.path, "resource": "r0"}
        return self._dispatcher.dispatch(method, {"storage": storage, **params}, Call(method, "ha"))

    @contextmanager
    def _open(self, config: StorageConfig) -> Iterator[Store]:
        self.opened += 1
        with Store(config, os.open(config.path, os.O_RDONLY | os.O_DIRECTORY)) as store:
            yield store


@pytest.fixture
def backend(reflink_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setattr(view, "FOLDER", str(tmp_path / "live"))
    return Backend(reflink_dir)


def test_status_comes_from_the_view_and_does_not_touch_the_mount(backend: Backend) -> None:
    backend.see(HEALTHY)
    assert backend.call("status") == {**SIZES, "active": True, "reason": None}
    assert backend.opened == 0


def test_an_inactive_storage_has_no_size_and_a_reason(backend: Backend) -> None:
    backend.see(FROZEN)
    answer = backend.call("status")
    assert answer == {"total": 0, "avail": 0, "used": 0, "active": False, "reason": "suspended: The cause."}
    assert backend.opened == 0


@pytest.mark.parametrize("view_is", ["missing", "old", "of another path"])
def test_without_a_fresh_view_status_looks_for_itself(backend: Backend, view_is: str) -> None:
    if view_is == "old":
        backend.see(FROZEN, age=STALE_SECONDS + 1)
    elif view_is == "of another path":
        backend.see(FROZEN, path="/mnt/pve/other")
    answer = backend.call("status")
    assert isinstance(answer, dict) and answer["active"] is True and answer["total"] > SIZES["total"]
    assert backend.opened == 1


@pytest.mark.parametrize("method", ["list_images", "space", "activate_storage", "activate_volume", "volume_snapshot"])
def test_no_call_that_somebody_waits_for_goes_into_frozen_io(backend: Backend, method: str) -> None:
    backend.see(FROZEN)
    with pytest.raises(NotUsable, match=r"'ha' is suspended on node .*The cause\. The remedy\."):
        backend.call(method, volname=VOLUME)
    assert backend.opened == 0


def test_work_may_wait_for_frozen_io_until_its_deadline(backend: Backend) -> None:
    backend.see(FROZEN)
    assert backend.call("alloc_image", vmid=101, format="raw", name=None, size_kib=1024) == "101/vm-101-disk-0.raw"


def test_a_volume_of_a_stale_storage_is_refused_with_the_reason_and_bringing_it_up_is_not(backend: Backend) -> None:
    backend.see(STALE)
    with pytest.raises(NotUsable, match="stale"):
        backend.call("activate_volume", volname=VOLUME)
    assert backend.call("activate_storage", content_dirs=[]) is None


def test_a_volume_on_a_mount_that_the_view_has_not_seen_yet_is_activated(backend: Backend) -> None:
    """Proxmox starts each guest once at boot, a moment after it activated the storage."""
    down = verdict(Kind.NOT_UP, False, False)
    backend.see(down)
    assert backend.call("activate_volume", volname=VOLUME) is None
    drifting = Finding(Kind.DEGRADED, "Drifting apart.", "Look.", Severity.CRITICAL, admits=False)
    backend.see(replace(down, also=(drifting,)))
    with pytest.raises(NotUsable):
        backend.call("activate_volume", volname=VOLUME)


def test_a_volume_is_activated_where_guests_are_admitted(backend: Backend) -> None:
    backend.see(HEALTHY)
    assert backend.call("activate_volume", volname=VOLUME) is None


def test_in_a_split_a_volume_that_nobody_used_here_is_refused(backend: Backend) -> None:
    backend.see(SPLIT, in_use=InUse(frozenset({backend.inode + 1}), frozenset({"101/vm-101-disk-0.raw"})))
    with pytest.raises(NotAdmitted, match=rf"split-brain on node .*'{VOLUME}'.*The remedy\."):
        backend.call("activate_volume", volname=VOLUME)


def test_in_a_split_the_volumes_of_guests_that_run_here_go_on(backend: Backend) -> None:
    backend.see(SPLIT, in_use=InUse(inodes=frozenset({backend.inode})))
    assert backend.call("activate_volume", volname=VOLUME) is None
    backend.see(SPLIT, in_use=InUse(volumes=frozenset({VOLUME})))
    assert backend.call("activate_volume", volname=VOLUME) is None


def test_in_a_split_a_guest_that_runs_here_has_all_its_volumes(backend: Backend) -> None:
    """QEMU does not lock a TPM's state; a rollback makes a new file; RAM is written to one that was not there before."""
    for used in (InUse(guests=frozenset({100})), InUse(volumes=frozenset({"100/vm-100-disk-9.raw"}))):
        backend.see(SPLIT, in_use=used)
        assert backend.call("activate_volume", volname=VOLUME) is None
    backend.see(SPLIT, in_use=InUse(guests=frozenset({10, 1000}), volumes=frozenset({"1001/vm-1001-disk-0.raw"})))
    with pytest.raises(NotAdmitted):
        backend.call("activate_volume", volname=VOLUME)


def test_in_a_split_a_running_guest_is_not_stopped_from_being_listed_and_snapshotted(backend: Backend) -> None:
    backend.see(SPLIT)
    assert backend.call("volume_size_info", volname=VOLUME)
    assert backend.call("volume_snapshot", volname=VOLUME, snap="before") is None


def test_a_split_seen_last_still_keeps_newcomers_out_when_the_monitor_is_gone(backend: Backend) -> None:
    backend.see(SPLIT, age=STALE_SECONDS + 100)
    with pytest.raises(NotAdmitted):
        backend.call("activate_volume", volname=VOLUME)


def test_without_any_view_a_volume_is_activated_as_the_mount_allows(backend: Backend) -> None:
    assert backend.call("activate_volume", volname=VOLUME) is None
