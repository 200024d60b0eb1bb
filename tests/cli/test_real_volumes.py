"""The whole way from the command to the disk, on a file system that shares blocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIZE = 8 << 20
CLEAN = {"removed": 0, "finished": 0, "undone": 0, "failed": 0}
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def command(reflink_dir: Path, tmp_path: Path) -> list[str]:
    """The words that start the program on a storage `ha` in ``reflink_dir``."""
    (tmp_path / "nodes").mkdir()
    config = tmp_path / "storage.cfg"
    config.write_text(f"drbdocfs2: ha\n\tpath {reflink_dir}\n\tdrbdocfs2-resource r0\n")
    return [sys.executable, "-m", "tests.cli.on_folder", str(config)]


@pytest.fixture
def run(command: list[str]) -> Run:
    """Runs the program; its input and output are bytes."""

    def run(*arguments: str, input: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        result = subprocess.run([*command, *arguments], cwd=ROOT, input=input, capture_output=True, timeout=60)
        assert result.returncode == status, result.stderr.decode()
        return result

    return run


def _json(result: subprocess.CompletedProcess[bytes]) -> Any:
    return json.loads(result.stdout)


def _volumes(run: Run) -> list[str]:
    return [image["volid"] for image in _json(run("volume", "list", "ha", "--json"))]


def test_life_of_a_volume(run: Run, reflink_dir: Path) -> None:
    disk = _json(run("volume", "alloc", "ha", "100", "8M", "--json"))["volid"]
    path = reflink_dir / "images" / disk.partition(":")[2]
    path.write_bytes(b"old" + bytes(SIZE - 3))
    run("volume", "snapshot", "create", disk, "before")
    path.write_bytes(b"new" + bytes(SIZE - 3))
    clone = _json(run("volume", "clone", disk, "101", "--snapshot", "before", "--json"))["volid"]
    run("volume", "snapshot", "rollback", disk, "before")
    assert path.read_bytes()[:3] == b"old"
    run("volume", "resize", disk, "+8M")
    assert _json(run("volume", "info", disk, "--json"))["size"] == 2 * SIZE
    assert [shot["name"] for shot in _json(run("volume", "snapshot", "list", disk, "--json"))] == ["before"]
    run("volume", "snapshot", "delete", disk, "before")
    renamed = _json(run("volume", "rename", clone, "--vmid", "102", "--json"))["volid"]
    base = _json(run("volume", "template", renamed, "--json"))["volid"]
    assert base.startswith("ha:102/base-102-")
    assert sorted(_volumes(run)) == sorted([disk, base])
    run("volume", "free", disk)
    run("volume", "free", base)
    assert _volumes(run) == []
    assert _json(run("volume", "recover", "ha", "--json")) == CLEAN


def test_space_of_a_volume_and_its_snapshot(run: Run, reflink_dir: Path) -> None:
    disk = _json(run("volume", "alloc", "ha", "100", "8M", "--json"))["volid"]
    (reflink_dir / "images" / disk.partition(":")[2]).write_bytes(bytes(SIZE))
    run("volume", "snapshot", "create", disk, "before")
    os.sync()
    found = _json(run("space", "ha", "--json", "--svg", str(reflink_dir / "ha.svg")))
    (guest,) = found["guests"]
    (image,) = guest["images"]
    assert (image["allocated"], image["shared"], image["exclusive"], image["frees"]) == (SIZE, SIZE, 0, SIZE)
    assert (guest["allocated"], guest["frees"], found["file_system"]) == (SIZE, SIZE, "XFS")
    assert [(snap["name"], snap["frees"]) for snap in image["snapshots"]] == [("before", 0)]
    assert b"vm-100-disk-0.raw" in run("space", "ha", "--guest", "100").stdout
    assert (reflink_dir / "ha.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_export_can_be_imported(run: Run, reflink_dir: Path, format: str) -> None:
    disk = _json(run("volume", "alloc", "ha", "100", "8M", "--format", format, "--json"))["volid"]
    path = reflink_dir / "images" / disk.partition(":")[2]
    if format == "raw":
        path.write_bytes(os.urandom(SIZE))
    stream = run("volume", "export", disk).stdout
    run("volume", "import", "ha", f"101/vm-101-disk-0.{format}", input=stream)
    assert (reflink_dir / f"images/101/vm-101-disk-0.{format}").read_bytes() == path.read_bytes()


def test_import_of_a_broken_stream_leaves_nothing(run: Run, reflink_dir: Path) -> None:
    said = run("volume", "import", "ha", "100/vm-100-disk-0.raw", input=SIZE.to_bytes(8, "little") + b"x", status=65)
    assert b"pvedrbdstor: The data stream of" in said.stderr
    assert _volumes(run) == []


def test_ctrl_c_during_an_import_leaves_nothing(run: Run, command: list[str]) -> None:
    arguments = [*command, "volume", "import", "ha", "100/vm-100-disk-0.raw"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=ROOT, **pipes) as process:
        assert process.stdin and process.stderr
        # More than a pipe holds: once it is written, the program is reading it.
        process.stdin.write(SIZE.to_bytes(8, "little") + bytes(SIZE // 2))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        with suppress(BrokenPipeError):  # it may have noticed already
            process.stdin.write(bytes(SIZE // 4))
            process.stdin.flush()
        assert process.wait(30) == 130
        said = process.stderr.read()
        with suppress(BrokenPipeError):
            process.stdin.close()
    assert b"the work was undone" in said
    assert _volumes(run) == []
    assert _json(run("volume", "recover", "ha", "--json")) == CLEAN


def test_wrong_mount_is_told_by_the_program_itself(tmp_path: Path) -> None:
    config = tmp_path / "storage.cfg"
    config.write_text(f"drbdocfs2: ha\n\tpath {tmp_path}\n\tdrbdocfs2-resource r0\n")
    result = subprocess.run(
        [sys.executable, "-m", "pvedrbdstor", "--config", str(config), "volume", "list", "ha"],
        cwd=ROOT, capture_output=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 69
    assert result.stderr.startswith(b"pvedrbdstor: Storage 'ha': nothing is mounted on")
