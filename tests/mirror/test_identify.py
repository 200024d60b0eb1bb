"""From a mount made by hand to the DRBD volume under it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor import command
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.errors import TypeStays
from pvedrbdstor.mirror import identify
from pvedrbdstor.mirror.mountinfo import MountEntry

MOUNT = MountEntry(50, (147, 3), "/", "/mnt/pve/ha", "ocfs2", "/dev/drbd3", ("rw", "_netdev"))
EVENTS = """\
exists resource name:r0 role:Primary suspended:no
exists device name:r0 volume:0 minor:0 disk:UpToDate
exists resource name:many role:Primary suspended:no
exists device name:many volume:0 minor:2 disk:UpToDate
exists device name:many volume:1 minor:3 disk:UpToDate
exists -
"""


def test_the_volume_under_a_mount_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify, "mounted_at", lambda path: MOUNT if path == "/mnt/pve/ha" else None)
    monkeypatch.setattr(command, "run", lambda argv, timeout: command.Result(0, EVENTS, ""))
    assert identify.volume_under("/mnt/pve/ha", "ha") == ("many", 1)


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        pytest.param(None, "nothing is mounted on /mnt/pve/ha", id="nothing"),
        pytest.param(replace(MOUNT, fs_type="ext4"), "is ext4 on /dev/drbd3", id="another file system"),
        pytest.param(
            replace(MOUNT, device=(8, 1), source="/dev/sda1"),
            "lies on /dev/sda1, which is not a DRBD device",
            id="a disk",
        ),
    ],
)
def test_what_is_not_ocfs2_on_drbd_is_refused_by_name(mount: MountEntry | None, said: str) -> None:
    with pytest.raises(TypeStays, match=said):
        identify.minor_of(mount, "/mnt/pve/ha", "ha")


def test_a_device_that_drbd_does_not_know_is_refused() -> None:
    with pytest.raises(TypeStays, match="which resource /dev/drbd9 is"):
        identify.owner_of(9, parse_now(EVENTS).devices, "ha")
