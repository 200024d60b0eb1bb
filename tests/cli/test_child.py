"""Calls in a process of their own, as the program really makes them: answers, errors, progress, hanging and Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.cli import child
from pvedrbdstor.cli.session import Session
from pvedrbdstor.errors import VolumeMissing
from tests.cli.conftest import CommandLine

DISK = "ha:100/vm-100-disk-0.raw"


@pytest.fixture
def forked(cli: CommandLine) -> CommandLine:
    return replace(cli, in_child=True)


def test_answer_comes_back(forked: CommandLine) -> None:
    parent = os.getpid()
    forked.backend.answers["list_images"] = lambda call: [] if os.getpid() != parent else None
    assert "No volumes" in forked("volume", "list", "ha").stdout


def test_error_keeps_its_message_and_status(forked: CommandLine) -> None:
    forked.backend.answers["volume_size_info"] = VolumeMissing(volume="100/vm-100-disk-0.raw", storage="ha")
    result = forked("volume", "info", DISK)
    assert result.exit_code == 66
    assert "does not exist on storage 'ha'" in result.stderr


def test_bug_in_the_backend_is_an_internal_error(forked: CommandLine) -> None:
    forked.backend.answers["volume_size_info"] = ZeroDivisionError("oops")
    result = forked("volume", "info", DISK)
    assert result.exit_code == 70
    assert "ZeroDivisionError: oops" in result.stderr


def test_backend_that_dies_is_an_internal_error(forked: CommandLine) -> None:
    forked.backend.answers["volume_size_info"] = lambda call: os.kill(os.getpid(), signal.SIGKILL)
    result = forked("volume", "info", DISK)
    assert result.exit_code == 70
    assert "ended without an answer" in result.stderr


def test_hanging_mirror_costs_its_deadline_and_no_more(forked: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_GRACE", 0.1)
    monkeypatch.setattr(
        f"{Session.__module__}.Session.call.__kwdefaults__",
        {"timeout": 0.2, "label": "", "stream": None, "silence": None},
    )
    forked.backend.answers["list_images"] = lambda call: time.sleep(30)
    began = time.monotonic()
    result = forked("volume", "list", "ha")
    assert result.exit_code == 75
    assert "did not finish within" in result.stderr
    assert time.monotonic() - began < 10


def test_ctrl_c_reaches_the_work(forked: CommandLine) -> None:
    parent = os.getpid()

    def work(call: Call) -> None:
        os.kill(parent, signal.SIGINT)
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            call.check()
            time.sleep(0.01)

    forked.backend.answers["volume_snapshot"] = work
    result = forked("volume", "snapshot", "create", DISK, "s1")
    assert result.exit_code == 130
    assert "the work was undone" in result.stderr


@pytest.mark.usefixtures("on_a_terminal")
def test_progress_comes_through(forked: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvedrbdstor.cli.progress.PATIENCE", -1.0)
    monkeypatch.setattr("click._termui_impl.isatty", lambda stream: True)

    def work(call: Call) -> str:
        call.advance(4 << 20, 4 << 20)
        return "100/vm-100-disk-0.raw"

    forked.backend.answers["volume_import"] = work
    result = forked("volume", "import", "ha", "100/vm-100-disk-0.raw")
    assert "100%" in result.stderr


def test_what_is_left_for_after_the_answer_is_done_before_the_prompt_is_back(forked: CommandLine) -> None:
    mark = forked.etc_pve / "cleared"

    def work(call: Call) -> None:
        call.after.append(lambda: (time.sleep(0.3), mark.touch())[0])

    forked.backend.answers["free_image"] = work
    assert forked("volume", "free", DISK, "--yes").exit_code == 0
    assert mark.exists()
