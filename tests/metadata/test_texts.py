"""The texts of a set: each as its tool takes it back, from what really lies below the storage, and what is missing is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import CommandFailed
from pvedrbdstor.metadata import texts

HA = StorageConfig(id="ha", path="/mnt/o", resource="r0")
SHOW = "resource r0 { _this_host { volume 0 { device minor 0; disk %s; meta-disk internal; } } }\n"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A logical volume dm-3 on a partition of sdb; a plain partition of an NVMe disk. Answers by the program's name."""
    sys, devices = tmp_path / "class", tmp_path / "devices"
    for inner in ("dm-3/slaves/sdb1", "sdb/sdb1", "nvme0n1/nvme0n1p2"):
        (devices / inner).mkdir(parents=True)
    for part in ("sdb/sdb1", "nvme0n1/nvme0n1p2"):
        (devices / part / "partition").write_text("1\n")
    sys.mkdir()
    for folder in ("dm-3", "sdb", "sdb/sdb1", "nvme0n1", "nvme0n1/nvme0n1p2"):
        (devices / folder / "size").write_text("2048\n")
        (sys / Path(folder).name).symlink_to(devices / folder)
    monkeypatch.setattr(texts, "_SYS", str(sys))
    monkeypatch.setattr(texts.o2cb, "CLUSTER_CONF", str(tmp_path / "no-cluster.conf"))
    answers = {"drbdadm": "resource r0 { }\n", "sfdisk": "label: gpt\n", "lvs": "  vg\n", "vgcfgbackup": "vg { }\n"}

    def run(argv: Sequence[str], **_options: Any) -> command.Result:
        if argv[0] not in answers:
            raise CommandFailed(command=" ".join(argv), status="exit status 1", output="no such thing")
        if argv[0] == "vgcfgbackup":
            assert argv[3] == "vg"
            Path(argv[2]).write_text(answers["vgcfgbackup"])
        return command.Result(0, answers[argv[0]], "")

    monkeypatch.setattr(texts.command, "run", run)
    return answers


def write(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The files that were written, and what is missing."""
    folder.mkdir()
    missing = texts.write(HA, 0, "drbdocfs2: ha\n", str(folder))
    return {path.name: path.read_text() for path in folder.iterdir()}, missing


def test_a_logical_volume_has_its_group_and_the_table_of_the_disk_below(node: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dm-3").touch()
    (tmp_path / "lv").symlink_to(tmp_path / "dm-3")
    node["drbdsetup"] = SHOW % (tmp_path / "lv")
    found, missing = write(tmp_path / "set")
    assert missing == {}
    assert (found["lvm.txt"], found["partitions-sdb.txt"]) == ("vg { }\n", "label: gpt\n")
    assert "1048576 bytes" in found["lower.txt"] and "lvm.new" not in found
    assert found["storage.cfg"] == "drbdocfs2: ha\n" and found["drbd.res"] == "resource r0 { }\n"
    assert "cluster.conf" not in found


def test_a_partition_has_the_table_of_its_disk_and_no_group(node: dict[str, str], tmp_path: Path) -> None:
    node["drbdsetup"] = SHOW % "/dev/nvme0n1p2"
    found, missing = write(tmp_path / "set")
    assert missing == {}
    assert "partitions-nvme0n1.txt" in found and "lvm.txt" not in found


def test_what_a_tool_does_not_tell_is_missing_with_the_reason(node: dict[str, str], tmp_path: Path) -> None:
    node["drbdsetup"] = SHOW % "/dev/nvme0n1p2"
    del node["drbdadm"]
    found, missing = write(tmp_path / "set")
    assert set(missing) == {"drbd.res"} and "no such thing" in missing["drbd.res"]
    assert {"storage.cfg", "drbd-show.txt", "partitions-nvme0n1.txt"} <= set(found)


def test_without_drbd_all_else_is_there(node: dict[str, str], tmp_path: Path) -> None:
    found, missing = write(tmp_path / "set")
    assert set(missing) == {"drbd-show.txt"}
    assert {"storage.cfg", "drbd.res"} <= set(found)
