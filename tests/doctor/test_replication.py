"""The speed of a disk and whether an address answers: measured for real, in a moment, and never at DRBD's own port."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import command
from pvedrbdstor.doctor import replication, sources
from pvedrbdstor.errors import CommandFailed
from pvedrbdstor.mirror.helper import Helper
from tests.doctor.world import node

SHOW, EVENTS = (
    str(node("a").values["show"]),
    "exists connection name:r0 peer-node-id:0 conn-name:peer connection:{}\nexists -\n",
)


def asked(monkeypatch: pytest.MonkeyPatch, disk: Path) -> dict[str, Any]:
    """As a Helper, whose priority is its own."""
    show = SHOW.replace("/dev/ubda", str(disk))
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, show, ""))
    helper = Helper(replication.ask_replication)
    try:
        helper.ask([["r0", 0]])
        answer = helper.wait(10)
    finally:
        helper.close()
    assert isinstance(answer, dict)
    return answer


def answers(monkeypatch: pytest.MonkeyPatch, state: str) -> object:
    """Of the peer that the settings in force name, out of one call of each tool."""
    texts = {"show": SHOW.replace("10.77.0.2:", "127.0.0.1:"), "events2": EVENTS.format(state)}
    calls: list[str] = []

    def output(argv: list[str]) -> str:
        calls.append(argv[1])
        return texts.get(argv[1], "")

    monkeypatch.setattr(sources, "text_of", lambda _path: "version: 8.4.11")
    monkeypatch.setattr(sources, "_output", output)
    found: Any = sources.ask_drbd(["r0"])
    assert calls.count("show") == calls.count("events2") == 1
    return found["values"]["answers"]


def test_a_disk_is_read_for_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * (80 << 20))
    began = time.monotonic()
    values = asked(monkeypatch, disk)["values"]
    assert time.monotonic() - began < 5
    assert values["disk_speeds"]["r0"] > 1 << 20


def test_one_that_cannot_be_read_is_told_and_one_too_small_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = asked(monkeypatch, tmp_path / "none")
    assert "No such file" in missing["unread"]["disk_speeds"]
    (tmp_path / "small").write_bytes(b"x" * 4096)
    assert asked(monkeypatch, tmp_path / "small")["values"]["disk_speeds"] == {"r0": None}


def test_whom_drbd_is_connected_with_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(monkeypatch, "Connected") == {}


@pytest.mark.parametrize("listens", [True, False])
def test_an_address_answers_when_it_accepts_and_when_it_refuses(monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(replication, "_SSH", server.getsockname()[1])
        if not listens:
            server.close()
        assert answers(monkeypatch, "Connecting") == {"r0": True}


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[1] == 22
        raise TimeoutError

    monkeypatch.setattr(replication.socket, "create_connection", silent)
    assert answers(monkeypatch, "Connecting") == {"r0": False}


def test_a_dead_node_costs_the_time_of_one_address_however_many_resources_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else nothing that DRBD has told in the same process would be heard in time."""
    names = [f"r{number}" for number in range(6)]
    show = "".join(
        SHOW.replace("r0", name).replace("10.77.0.2:", f"10.77.0.{at // 2 + 2}:") for at, name in enumerate(names)
    )
    events = "".join(EVENTS.format("Connecting").replace("r0", name) for name in names)
    asked: list[str] = []

    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address[0])
        time.sleep(0.3)
        raise TimeoutError

    monkeypatch.setattr(replication.socket, "create_connection", silent)
    began = time.monotonic()
    assert replication.answering(show, events, names) == dict.fromkeys(names, False)
    assert time.monotonic() - began < 0.8
    assert sorted(asked) == ["10.77.0.2", "10.77.0.3", "10.77.0.4"]


def test_what_drbd_does_not_tell_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(argv: list[str]) -> str:
        raise CommandFailed(command=" ".join(argv), status="exit status 1", output="no")

    monkeypatch.setattr(sources, "text_of", lambda _path: "version: 8.4.11")
    monkeypatch.setattr(sources, "_output", fails)
    found: Any = sources.ask_drbd(["r0"])
    assert found["unread"]["answers"] == "'drbdsetup show' failed: no"
