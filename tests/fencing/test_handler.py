"""The fence-peer handler against a socket that stands in for the guard's, built with sanitizers."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvedrbdstor.fencing import calls, paths
from pvedrbdstor.fencing.calls import Calls, Request

SOURCE = Path(__file__).parents[2] / "csrc" / "handler" / "fence-peer.c"
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")
SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
DRBD = {"DRBD_RESOURCE": "r0", "DRBD_MINOR": "0", "DRBD_PEERS": "nodeb", "DRBD_PEER": "nodeb"}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The program under both its names, and the socket that it asks: another than the guard's, by the one line changed."""
    folder = tmp_path_factory.mktemp("handler")
    path = folder / "guard.sock"
    source = folder / "fence-peer.c"
    text = SOURCE.read_text()
    assert f'"{paths.SOCKET}"' in text
    source.write_text(text.replace(paths.SOCKET, str(path)))
    subprocess.run(["gcc", *STRICT, *SANITIZE, "-o", folder / "fence-peer", source], check=True)
    (folder / "unfence-peer").symlink_to("fence-peer")
    return folder / "fence-peer", path


def start(program: Path, **more: str) -> subprocess.Popen[str]:
    """As DRBD does. mlockall is refused by a limit, as the sanitizers' own memory is without bounds."""
    environment = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", **DRBD, **more}
    return subprocess.Popen(
        ["sh", "-c", f"ulimit -l 64; exec {program}"], env=environment, stderr=subprocess.PIPE, text=True
    )


def take(listening: Calls, seconds: float = 10) -> tuple[calls.Call, Request]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        listening.read(0.0)
        for call, request in listening.waiting():
            return call, request
        time.sleep(0.01)
    raise AssertionError("no handler called")


@pytest.fixture
def listening(handler: tuple[Path, Path]) -> Iterator[Calls]:
    with_socket = Calls(str(handler[1]))
    yield with_socket
    with_socket.close()
    handler[1].unlink(missing_ok=True)


def ended(child: subprocess.Popen[str], seconds: float = 10) -> int:
    _, said = child.communicate(timeout=seconds)
    assert said == ""
    return child.returncode


def test_it_tells_what_drbd_told_it_and_passes_the_answer_on(handler: tuple[Path, Path], listening: Calls) -> None:
    child = start(handler[0])
    call, request = take(listening)
    assert request == Request("fence-peer", "r0", (0,), ("nodeb",))
    time.sleep(0.3)
    assert child.poll() is None
    call.answer(7)
    assert ended(child) == 7


@pytest.mark.parametrize("answer", [0, 1, 3, 4, 5, 6, 8, 9])
def test_only_a_seven_lets_drbd_go_on(handler: tuple[Path, Path], listening: Calls, answer: int) -> None:
    """5 would, too, on both nodes."""
    child = start(handler[0])
    take(listening)[0].answer(answer)
    assert ended(child) == 1


def test_it_asks_again_when_the_guard_has_ended(handler: tuple[Path, Path]) -> None:
    child = start(handler[0])
    time.sleep(0.5)  # no guard yet
    first = Calls(str(handler[1]))
    take(first)
    first.close()
    time.sleep(0.5)
    assert child.poll() is None
    second = Calls(str(handler[1]))
    take(second)[0].answer(7)
    assert ended(child) == 7
    second.close()


def test_drbd_9_names_the_peer_by_its_node_id(handler: tuple[Path, Path], listening: Calls) -> None:
    more = {"DRBD_PEER_NODE_ID": "1", "DRBD_NODE_ID_0": "nodea", "DRBD_NODE_ID_1": "nodeb", "DRBD_PEERS": ""}
    child = start(handler[0], **more)
    call, request = take(listening)
    assert request.peers == ("nodeb",)
    call.answer(1)
    assert ended(child) == 1


def test_unfence_peer_tells_and_never_fails(handler: tuple[Path, Path], listening: Calls) -> None:
    unfence = handler[0].with_name("unfence-peer")
    child = start(unfence)
    call, request = take(listening)
    assert request.name == "unfence-peer"
    call.answer(0)
    assert ended(child) == 0
    listening.close()
    assert ended(start(unfence)) == 0


def test_a_handler_that_was_killed_is_forgotten(handler: tuple[Path, Path], listening: Calls) -> None:
    child = start(handler[0])
    take(listening)
    child.kill()
    child.communicate()
    listening.read(0.0)
    listening.read(0.0)
    assert list(listening.waiting()) == []


@pytest.mark.parametrize(
    "rubbish", [b"", b"fence-peer\n", b"GET / HTTP/1.1\n\n", b"fence-peer\nDRBD_RESOURCE=r0\n", b"x" * 40000]
)
def test_what_no_handler_sends_is_hung_up_on(listening: Calls, handler: tuple[Path, Path], rubbish: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(handler[1]))
        sender = threading.Thread(target=lambda: client.sendall(rubbish) or client.shutdown(socket.SHUT_WR))
        sender.daemon = True
        sender.start()
        deadline = time.monotonic() + 5
        client.settimeout(0.05)
        while time.monotonic() < deadline:
            listening.read(0.0)
            try:
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("still connected")
        assert list(listening.waiting()) == []


def test_only_root_may_ask(listening: Calls, handler: tuple[Path, Path]) -> None:
    assert os.stat(handler[1]).st_mode & 0o777 == 0o600


def test_several_volumes_are_one_request() -> None:
    text = "fence-peer\nDRBD_RESOURCE=r0\nDRBD_MINOR=0 1\nDRBD_PEERS=nodeb nodec\n"
    assert calls.parse(text) == Request("fence-peer", "r0", (0, 1), ("nodeb", "nodec"))
