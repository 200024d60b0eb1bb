"""`pvedrbdstor metadata`: what is saved, what is refused, and what a set is good for where there is no storage any more."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import files
from pvedrbdstor.call import Call
from pvedrbdstor.errors import NotMounted, SystemCallFailed
from pvedrbdstor.metadata import places, save, sets
from pvedrbdstor.verify import priority
from tests.cli.conftest import CommandLine

NOT_MOUNTED = NotMounted(storage="ha", path="/mnt/pve/ha", resource="r0")
Look = Callable[[str], dict[str, Any]]


def looked(folder: str) -> dict[str, Any]:
    """What the mount is asked for, out of a folder with one image."""
    Path(folder, save.SUPERBLOCK).write_bytes(b"OCFSV2")
    placed = places.Placed("images/100/vm-100-disk-0.raw", 8192, (places.Run(0, 4096, 8192, False),))
    Path(folder, places.NAME).write_bytes(gzip.compress(places._line(placed)))
    return {"minor": 3, "map": {"files": 1, "runs": 1, "failed": []}}


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(priority, "take", lambda wanted: None)  # the tests go on at their own
    monkeypatch.setattr(save, "LOCK", str(tmp_path / "lock"))
    return tmp_path / "kept"


def mounted(monkeypatch: pytest.MonkeyPatch, look: Look | Exception) -> None:
    class Looker:
        def dispatch(self, _method: str, params: dict[str, Any], _call: Call, stream: int | None = None) -> object:
            if isinstance(look, Exception):
                raise look
            return look(params["folder"])

    monkeypatch.setattr(save, "Looker", Looker)


@pytest.fixture
def kept(cli: CommandLine, below: Path, monkeypatch: pytest.MonkeyPatch) -> sets.Set:
    mounted(monkeypatch, looked)
    answer = cli("--json", "metadata", "save", "ha", "--to", str(below))
    assert answer.exit_code == 0, answer.output
    return sets.read(json.loads(answer.stdout)[0]["path"])


def test_a_set_has_the_section_of_the_storage_and_says_what_is_missing(kept: sets.Set) -> None:
    assert sets.damaged(kept) == []
    assert Path(kept.path, "storage.cfg").read_text().startswith("drbdocfs2: ha\n\tpath /mnt/pve/ha\n")
    assert {places.NAME, save.SUPERBLOCK, "storage.cfg"} <= set(kept.manifest["files"])
    assert set(kept.manifest["missing"]).isdisjoint(kept.manifest["files"])
    assert (kept.manifest["storage"], kept.manifest["resource"], kept.manifest["minor"]) == ("ha", "r0", 3)


def test_two_at_a_time_are_refused(
    cli: CommandLine, below: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, looked)
    with files.only_one(str(tmp_path / "lock")):
        answer = cli("metadata", "save", "ha", "--to", str(below))
    assert answer.exit_code == 75 and "saves metadata at this moment" in answer.stderr
    assert sets.paths(str(below / "ha")) == []


def test_a_storage_that_fails_keeps_no_other_from_being_saved(
    cli: CommandLine, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cli.etc_pve / "storage.cfg").write_text(
        "".join(f"drbdocfs2: {name}\n\tpath /mnt/pve/{name}\n\tdrbdocfs2-resource r0\n\n" for name in ("bad", "ha"))
    )

    def look(folder: str) -> dict[str, Any]:
        if "/bad/" in folder:
            raise SystemCallFailed(operation="Reading", path="/dev/drbd0", reason="I/O error", remedy="Look at 'dmesg'")
        return looked(folder)

    mounted(monkeypatch, look)
    answer = cli("metadata", "save", "--to", str(below))
    assert answer.exit_code == 74 and "I/O error" in answer.stderr
    assert [len(sets.paths(str(below / name))) for name in ("bad", "ha")] == [0, 1]


def test_what_is_not_mounted_is_refused_by_name_and_else_passed_over(
    cli: CommandLine, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, NOT_MOUNTED)
    named = cli("metadata", "save", "ha", "--to", str(below))
    assert named.exit_code == NOT_MOUNTED.exit_status and NOT_MOUNTED.message in named.stderr
    everything = cli("metadata", "save", "--to", str(below))
    assert everything.exit_code == 0 and "passed over: " in everything.stderr
    assert not list(below.glob("*/*"))


def test_the_list_checks_every_sum(cli: CommandLine, below: Path, kept: sets.Set) -> None:
    answer = cli("metadata", "list", "--from", str(below))
    assert answer.exit_code == 0 and kept.path in answer.stdout and "as written" in answer.stdout
    Path(kept.path, "storage.cfg").write_text("other")
    answer = cli("metadata", "list", "ha", "--from", str(below))
    assert answer.exit_code == 1 and "DAMAGED: storage.cfg has another length" in answer.stdout


def test_an_image_is_cut_out_of_a_disk(cli: CommandLine, tmp_path: Path, kept: sets.Set) -> None:
    disk, target = tmp_path / "disk", tmp_path / "image"
    disk.write_bytes(b"a" * 4096 + b"b" * 8192 + b"c" * 4096)
    places_of = ("--from", str(disk), "--to", str(target))
    answer = cli("metadata", "locate", kept.path, "100/vm-100-disk-0.raw", *places_of)
    assert answer.exit_code == 0
    subprocess.run(["sh", "-c", answer.stdout], check=True)
    assert target.read_bytes() == b"b" * 8192
    without = cli("metadata", "locate", kept.path, "100/vm-100-disk-0.raw")
    assert "if=/dev/drbd3 of=vm-100-disk-0.raw" in without.stdout


def test_a_map_that_is_damaged_or_without_the_image_is_not_used(cli: CommandLine, kept: sets.Set) -> None:
    answer = cli("metadata", "locate", kept.path, "100/vm-100-disk-9.raw")
    assert answer.exit_code == 66 and "is not in the map" in answer.stderr
    Path(kept.path, "storage.cfg").write_text("a text that is damaged does no harm to the map")
    assert cli("metadata", "locate", kept.path, "100/vm-100-disk-0.raw").exit_code == 0
    Path(kept.path, places.NAME).write_bytes(b"broken")
    answer = cli("metadata", "locate", kept.path, "100/vm-100-disk-0.raw")
    assert answer.exit_code == 65 and "has another length" in answer.stderr
