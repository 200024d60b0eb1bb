"""Files that are replaced as a whole, and locks that one process has: by real processes, and where the disk is full or read-only."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pvedrbdstor import files


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for text in ("old", "new and longer ä"):
        files.replace(str(path), text, durable=durable)
    assert path.read_text() == "new and longer ä" and list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_link_that_lies_where_it_is_written_first_is_not_followed(tmp_path: Path) -> None:
    """node_exporter's folder may belong to another user."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file.new").symlink_to(tmp_path / "precious")
    files.replace(str(tmp_path / "file"), "text")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "text" and not (tmp_path / "file").is_symlink()


def test_the_mode_is_the_one_that_is_wanted(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.replace(str(tmp_path / "file"), "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_who_has_the_old_one_open_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as held:
        files.replace(str(path), "new")
        assert held.read() == "old"


@pytest.mark.parametrize("durable", [False, True])
def test_a_full_disk_leaves_the_old_one_whole_and_nothing_beside_it(full_dir: Path, durable: bool) -> None:
    path = full_dir / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        files.replace(str(path), "x" * (8 << 20), durable=durable)
    assert path.read_text() == "old" and {name.name for name in full_dir.iterdir()} == {"file", "ballast"}


def test_a_folder_that_cannot_be_written_is_told(read_only_dir: Path) -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        files.replace(str(read_only_dir / "file"), "text")


def test_the_name_and_its_content_are_on_the_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "content")
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *names: done.append("rename") or rename(*names))
    files.replace(str(tmp_path / "file"), "text", durable=True)
    assert done == ["content", "rename", "folder"]


def test_a_file_in_the_folder_where_we_are_can_be_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.replace("file", "text", durable=True)
    assert (tmp_path / "file").read_text() == "text"


def test_a_lock_is_of_one_process_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    program = (
        "import sys, time; from pvedrbdstor import files\n"
        "with files.only_one(sys.argv[1]): print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
        for _ in range(2):  # who was refused has not spoilt what is written there
            with pytest.raises(files.Held) as refused, files.only_one(str(path)):
                pytest.fail("two have it")
            assert refused.value.pid == str(holder.pid)
        holder.send_signal(signal.SIGKILL)
    with files.only_one(str(path)):
        assert path.read_text() == str(os.getpid())
    with files.only_one(str(path)):
        pass


def test_what_breaks_while_it_is_held_is_not_taken_for_another_holder(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError) as raised, files.only_one(str(tmp_path / "lock")):
        raise BlockingIOError(11, "of the work itself")
    assert not isinstance(raised.value, files.Held)
