"""A node with doubles of all that the monitor asks, and a monitor that is quick about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.drbd import stream
from pvedrbdstor.mirror import gather
from pvedrbdstor.mirror.live import monitor, watch
from tests.mirror.live.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Not started yet. Looks are ten times as frequent as in earnest, so that tests need not wait."""
    made = World(tmp_path)
    monkeypatch.setattr(command, "PATH", f"{made.tools}:{command.PATH}")
    monkeypatch.setattr(gather, "PROC_DRBD", str(made.proc))
    monkeypatch.setattr(gather.o2cb, "CONFIGFS", str(made.configfs))
    monkeypatch.setattr(monitor, "CONFIG_SECONDS", 0.1)
    monkeypatch.setattr(monitor, "STATE_SECONDS", 0.15)
    monkeypatch.setattr(monitor, "SETTINGS_SECONDS", 0.3)
    monkeypatch.setattr(stream, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0.5)
    yield made
    made.end()
