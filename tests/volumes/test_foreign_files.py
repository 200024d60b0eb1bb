"""A qcow2 image that keeps its data in, or reads from, a file outside the storage makes nothing happen to that file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes import activation, images, snapshots, templates, transfer
from pvedrbdstor.volumes.names import VolumeName, parse_volume
from tests.volumes.support import MIB, Area, qemu_img

VOLUME = parse_volume("100/vm-100-disk-0.qcow2")
ACTIONS: dict[str, Callable[[Area, VolumeName], Any]] = {
    "activate": lambda area, volume: area.do(activation.activate_volume, volume, None),
    "resize": lambda area, volume: area.do(images.resize_image, volume, 64 * MIB),
    "snapshot": lambda area, volume: area.do(snapshots.create_snapshot, volume, "two"),
    "delete snapshot": lambda area, volume: area.do(snapshots.delete_snapshot, volume, "one"),
    "roll back": lambda area, volume: area.do(snapshots.rollback, volume, "one"),
    "template": lambda area, volume: area.do(templates.create_base, volume),
    "clone": lambda area, volume: area.do(templates.clone_image, volume, 200, None),
    "export": lambda area, volume: area.send(volume, transfer.QCOW2),
    "export as raw": lambda area, volume: area.send(volume, transfer.RAW),
}


NEEDING_A_SNAPSHOT = ("delete snapshot", "roll back")  # which no image with a data file can have


def _refused(area: Area, action: str, victim: Path) -> None:
    before = victim.read_bytes()
    with pytest.raises(BadImage, match=r"outside the storage|keeps its data in another file"):
        ACTIONS[action](area, VOLUME)
    assert victim.read_bytes() == before
    assert area.volids() == [f"ha:{VOLUME}"]


@pytest.mark.parametrize("action", [action for action in ACTIONS if action not in NEEDING_A_SNAPSHOT])
def test_a_data_file_outside_the_storage_is_left_alone(area: Area, tmp_path: Path, action: str) -> None:
    path = area.put(f"images/{VOLUME}")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'victim'}", path, "1M")
    _refused(area, action, tmp_path / "victim")


@pytest.mark.parametrize("action", [action for action in ACTIONS if not action.startswith("export")])
def test_a_backing_file_outside_the_storage_is_left_alone(area: Area, tmp_path: Path, action: str) -> None:
    victim, path = tmp_path / "victim", area.put(f"images/{VOLUME}")
    qemu_img("create", "-q", "-f", "qcow2", victim, "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", victim, path)
    if action in NEEDING_A_SNAPSHOT:
        qemu_img("snapshot", "-c", "one", path)
    _refused(area, action, victim)
