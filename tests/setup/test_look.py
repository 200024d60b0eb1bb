"""What is read of a node: whatever is there, and a reason where it cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.setup import look


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others."""
    monkeypatch.setattr(command, "PATH", f"{tmp_path}:{command.PATH}")
    monkeypatch.setenv("PATH", command.PATH)
    return tmp_path


def test_everything_where_a_file_would_be_written_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources, rules = tmp_path / "drbd.d", tmp_path / "rules.d"
    (resources / "r2.res").mkdir(parents=True)
    rules.mkdir()
    (resources / "r0.res").write_text("text")
    (resources / "r1.off").symlink_to("/nowhere/at/all")
    (rules / "99-pvedrbdstor-r0.rules").write_text("rule")
    (rules / "60-other.rules").write_text("other")
    monkeypatch.setattr(look, "RESOURCES", str(resources))
    monkeypatch.setattr(look, "UDEV_RULES", str(rules))
    found = {Path(path).name: text for path, text in look._files().items() if path.startswith(str(tmp_path))}
    assert found == {"r0.res": "text", "r1.off": "", "r2.res": "", "99-pvedrbdstor-r0.rules": "rule"}


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        look._content(str(tmp_path))
    assert look._content(str(tmp_path / "none")) is None


def test_what_drbdadm_reads_is_told_and_why_it_cannot(programs: Path) -> None:
    program(programs, "drbdadm", "echo 'resource far { }'")
    assert look._drbd_told("9.2.1") == (["resource far { }\n"], None)
    program(programs, "drbdadm", "printf 'r0.res:3: \\033[2J no\\n' >&2; exit 10")
    _, problem = look._drbd_told("9.2.1")
    assert problem is not None and "'drbdadm dump' says: r0.res:3:" in problem and problem.isprintable()
