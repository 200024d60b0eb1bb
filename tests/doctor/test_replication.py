"""The speed of a disk and whether an address answers: measured for real, in a moment, and never at DRBD's own port."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import command
from pvedrbdstor.doctor import replication
from pvedrbdstor.mirror.helper import Helper
from tests.doctor.world import node

SHOW, EVENTS = (
    str(node("a").values["show"]),
    "exists connection name:r0 peer-node-id:0 conn-name:peer connection:{}\nexists -\n",
)


def asked(monkeypatch: pytest.MonkeyPatch, disk: Path, state: str = "Connected") -> dict[str, Any]:
    """As a Helper, whose priority is its own."""
    show = SHOW.replace("/dev/ubda", str(disk)).replace("10.77.0.2:", "127.0.0.1:")

    def run(argv: list[str], **_: object) -> command.Result:
        return command.Result(0, EVENTS.format(state) if "events2" in argv else show, "")

    monkeypatch.setattr(command, "run", run)
    helper = Helper(replication.ask_replication)
    try:
        helper.ask([["r0", 0]])
        answer = helper.wait(10)
    finally:
        helper.close()
    assert isinstance(answer, dict)
    return answer


def test_a_disk_is_read_for_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * (80 << 20))
    began = time.monotonic()
    values = asked(monkeypatch, disk)["values"]
    assert time.monotonic() - began < 5
    assert values["disk_speeds"]["r0"] > 1 << 20 and values["answers"] == {}


def test_one_that_cannot_be_read_is_told_and_one_too_small_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = asked(monkeypatch, tmp_path / "none")
    assert "No such file" in missing["unread"]["disk_speeds"] and missing["values"]["answers"] == {}
    (tmp_path / "small").write_bytes(b"x" * 4096)
    assert asked(monkeypatch, tmp_path / "small")["values"]["disk_speeds"] == {"r0": None}


@pytest.mark.parametrize("listens", [True, False])
def test_an_address_answers_when_it_accepts_and_when_it_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listens: bool
) -> None:
    (tmp_path / "small").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(replication, "_SSH", server.getsockname()[1])
        if not listens:
            server.close()
        assert asked(monkeypatch, tmp_path / "small", "Connecting")["values"]["answers"] == {"r0": True}


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[1] == 22
        raise TimeoutError

    (tmp_path / "small").write_bytes(b"")
    monkeypatch.setattr(replication.socket, "create_connection", silent)
    assert asked(monkeypatch, tmp_path / "small", "Connecting")["values"]["answers"] == {"r0": False}
