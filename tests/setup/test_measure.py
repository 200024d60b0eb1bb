"""The link is measured between real processes; and whatever comes to the port, neither end hangs, or takes a stranger's word."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pvedrbdstor import nodes
from pvedrbdstor.setup import link, listen, measure, stream
from pvedrbdstor.setup.link import Measured
from tests.setup import wire
from tests.setup.wire import OWN, PEER, PORT, ROUTE, STRANGER, TOKEN

SOON = 3.0


def test_both_directions_and_the_round_trip_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    wire.by_program(monkeypatch)
    found = measure.measure(ROUTE)
    assert found.problem is None and found.passes is True
    assert set(found.rates) == {"pve1", "pve2"} and all(rate > 100 for rate in found.rates.values())
    assert found.round_trip is not None and found.round_trip < 100_000
    assert all(rate == link.rounded(rate) for rate in found.rates.values())


def test_nothing_listens_any_more_and_the_port_can_be_had_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire.by_program(monkeypatch)
    assert measure.measure(ROUTE).rates
    with socket.socket() as drbd:
        drbd.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as DRBD does
        drbd.bind((PEER, PORT))
        drbd.listen()


def test_a_stranger_does_not_disturb_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire.listening():
        with connected(STRANGER) as stranger:
            stranger.sendall(TOKEN + stream.GIVE)
            assert closed(stranger) == 0
        with connected(OWN) as known:
            known.sendall(TOKEN + stream.ECHO + b"\0\0\0\1x")
            assert known.recv(5) == b"\0\0\0\1x"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n" + bytes(40),
        bytes(32) + stream.ECHO + b"\0\0\0\1x",
        TOKEN,
        TOKEN + b"?",
        TOKEN + stream.ECHO + b"\xff" * 8,
    ],
    ids=["nothing", "http", "another token", "no role", "unknown role", "too long"],
)
def test_one_without_the_token_or_sense_is_sent_away_and_the_next_one_answered(said: bytes) -> None:
    with wire.listening():
        with connected(OWN) as one:
            one.sendall(said)
            assert closed(one) == 0
        with connected(OWN) as other:
            other.sendall(TOKEN + stream.ECHO + b"\0\0\0\1x")
            assert other.recv(5) == b"\0\0\0\1x"


@pytest.mark.parametrize("role", [None, stream.ECHO, stream.TAKE, stream.GIVE])
def test_it_ends_when_its_standard_input_does_whatever_it_is_at(role: bytes | None) -> None:
    with wire.listening() as child, connected(OWN) as one:
        if role is not None:
            one.sendall(TOKEN + role)
            time.sleep(0.2)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(SOON) == 0


def test_it_never_listens_longer_than_it_may() -> None:
    end, keep = os.pipe()
    try:
        began = time.monotonic()
        listen.listen(listen.Request(PEER, PORT, OWN, TOKEN.hex()), end, lambda: None, seconds=0.3)
        assert 0.25 < time.monotonic() - began < SOON
    finally:
        os.close(end)
        os.close(keep)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[1]",
        "no",
        json.dumps({"address": PEER, "port": 22, "peer": OWN, "token": TOKEN.hex()}),
        json.dumps({"address": PEER, "port": PORT, "peer": "any", "token": TOKEN.hex()}),
        json.dumps({"address": PEER, "port": PORT, "peer": OWN, "token": "00"}),
        json.dumps({"address": PEER, "port": PORT, "peer": OWN, "token": "x" * 64}),
        "x" * 5000,
    ],
    ids=["nothing", "empty", "list", "no JSON", "reserved port", "any peer", "short token", "no token", "too long"],
)
def test_a_request_that_is_none_is_refused(line: str) -> None:
    done = subprocess.run(
        [*wire.PROGRAM, "setup", "listen"], input=f"{line}\n", capture_output=True, text=True, timeout=20, cwd=wire.ROOT
    )
    assert done.returncode == 64 and "nothing to listen for" in done.stderr and not done.stdout


class TestWhenItCannotBeMeasured:
    def test_a_port_in_use_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wire.by_program(monkeypatch)
        with socket.create_server((PEER, PORT)):
            found = measure.measure(ROUTE)
        assert_not(found, f"port {PORT} is in use on pve2", "ss -tlnp")

    def test_an_address_that_is_not_the_node_s_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wire.by_program(monkeypatch)
        route = measure.Route("pve1", "pve2", OWN, "192.0.2.1", PORT, 1500)
        assert_not(measure.measure(route), f"cannot listen on 192.0.2.1 port {PORT} (Cannot assign")

    @pytest.mark.parametrize(
        "program", [("false",), ("echo", "no"), ("echo", "[]"), ("echo", '{"errno": "x"}'), ("/no",)]
    )
    def test_one_that_does_not_answer_rightly_is_told(
        self, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]
    ) -> None:
        wire.by_program(monkeypatch, *program)
        assert_not(measure.measure(ROUTE), "", nodes.asking(nodes.way("pve2"), "pvedrbdstor --version"))

    def test_one_that_never_answers_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wire.by_program(monkeypatch, "sleep", "60")
        monkeypatch.setattr(measure, "_READY_SECONDS", 0.2)
        assert_not(measure.measure(ROUTE), "did not answer in time")

    def test_a_port_that_refuses_is_told_with_the_firewall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ready(monkeypatch)
        assert_not(measure.measure(ROUTE), "(Connection refused)", f"TCP port {PORT} between 127.0.0.1 and 127.0.0.2")

    def test_a_port_that_drops_is_told_with_the_firewall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ready(monkeypatch)
        monkeypatch.setattr(measure, "_CONNECT_SECONDS", 0.3)
        with (
            socket.create_server((PEER, PORT), backlog=0),
            connected(OWN),
        ):  # no place for another one: its packets are dropped
            assert_not(measure.measure(ROUTE), "(no answer)", "every firewall")

    def test_one_that_closes_early_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ready(monkeypatch)
        with answering(lambda taken: taken.close()):
            assert_not(measure.measure(ROUTE), "did not hold")

    def test_one_that_is_silent_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ready(monkeypatch)
        monkeypatch.setattr(measure, "_ALL_SECONDS", 0.5)
        with socket.create_server((PEER, PORT)):
            assert_not(measure.measure(ROUTE), "it became silent")

    def test_one_that_counts_nothing_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ready(monkeypatch)
        with answering(echo_and_no_more):
            assert_not(measure.measure(ROUTE), "too little came through")


def test_packets_of_the_full_mtu_pass_where_the_switch_lets_them() -> None:
    with wire.switched(9000) as net:
        assert net.measure()["passes"] is True


def test_a_switch_that_drops_long_packets_is_found() -> None:
    with wire.switched(1500) as net:
        found = net.measure()
    assert (found["passes"], found["rates"], found["problem"]) == (False, {}, None)


def test_where_a_route_has_a_smaller_mtu_nothing_is_said_of_the_interface_s() -> None:
    with wire.switched(9000) as net:
        net.run("ip route change 10.9.0.0/24 dev e1 src 10.9.0.1 mtu 4000")
        found = net.measure()
    assert found["passes"] is None and found["rates"]


def test_what_is_measured_is_what_the_link_carries() -> None:
    with wire.switched(9000) as net:
        net.run("tc qdisc add dev e1 root tbf rate 200mbit burst 64kb latency 50ms")
        found = net.measure()
    rates = found["rates"]
    assert isinstance(rates, dict) and 150 <= rates["pve2"] <= 210 and rates["pve1"] > 300


def assert_not(found: Measured, problem: str, remedy: str = "") -> None:
    assert found.rate is None and not found.rates
    assert found.problem is not None and problem in found.problem and not found.problem.endswith(".")
    assert found.remedy is not None and remedy in found.remedy


def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other node says that it listens; who does is up to the test."""
    wire.by_program(monkeypatch, "sh", "-c", """echo '{"ready": true}'; exec cat""")


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.settimeout(SOON * 2)
        sock.bind((address, 0))
        sock.connect((PEER, PORT))
        yield sock


def closed(sock: socket.socket) -> int:
    """Bytes that came before the other end closed."""
    try:
        return len(sock.recv(1 << 16))
    except ConnectionResetError:
        return 0


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Another program at the port."""
    with socket.create_server((PEER, PORT)) as server:

        def serve() -> None:
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                with taken:
                    answer(taken)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join(SOON)


def echo_and_no_more(taken: socket.socket) -> None:
    role = taken.recv(stream.TOKEN_BYTES + 1)[-1:]
    while role == stream.ECHO and (data := taken.recv(1 << 16)):
        taken.sendall(data)
    if role == stream.TAKE:
        while taken.recv(1 << 20):
            pass
        taken.sendall(stream.RATE.pack(0))
