"""The wire without any node: which frames arrive where, and when."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.lab.network import Network, Rule, around, between, slow

PATIENCE = 5.0  # seconds in which a frame has to come on a busy machine
SILENCE = 0.15  # seconds in which one that is not to come would have come
BROADCAST = b"\xff" * 6
TCP, UDP = 6, 17


class Wire:
    """Three ports on one switch: what tests send, and what arrives."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.ends = {name: network.attach(name) for name in "abc"}

    def send(self, src: str, dst: str, port: int = 0, protocol: int = TCP, text: bytes = b"frame") -> None:
        """A frame of IPv4 with these words at its end; to "*": to everybody."""
        transport = (50000).to_bytes(2, "big") + port.to_bytes(2, "big")
        header = bytes([0x45, *[0] * 8, protocol, *[0] * 10])
        to = BROADCAST if dst == "*" else address(dst)
        self.ends[src].send(to + address(src) + b"\x08\x00" + header + transport + text)

    def arrives(self, name: str, wait: float = PATIENCE) -> bool:
        self.ends[name].settimeout(wait)
        try:
            self.ends[name].recv(65536)
        except TimeoutError:
            return False
        return True

    def passes(self, src: str, dst: str, port: int = 0, protocol: int = TCP) -> bool:
        self.send(src, dst, port, protocol)
        return self.arrives(dst)

    def blocked(self, src: str, dst: str, port: int = 0, protocol: int = TCP) -> bool:
        self.send(src, dst, port, protocol)
        return not self.arrives(dst, SILENCE)


def address(name: str) -> bytes:
    return bytes([2, 0, 0, 0, 0, ord(name) - ord("a") + 1])


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Every address is known behind its port."""
    with Network(seed=1) as network:
        made = Wire(network)
        for name in "abc":
            made.send(name, "*")
            for other in set("abc") - {name}:
                assert made.arrives(other)
        yield made
        for end in made.ends.values():
            end.close()


def test_frames_for_one_node_reach_no_other(wire: Wire) -> None:
    assert wire.passes("a", "b")
    assert not wire.arrives("c", 0.02)


def test_frames_for_an_unknown_address_reach_everybody() -> None:
    with Network() as network:
        wire = Wire(network)
        wire.send("a", "b")
        assert wire.arrives("b")
        assert wire.arrives("c")
        for end in wire.ends.values():
            end.close()


def test_node_that_boots_again_is_found_at_its_new_port(wire: Wire) -> None:
    wire.ends["b"].close()
    wire.ends["b"] = wire.network.attach("b")
    assert wire.passes("a", "b")


def test_rule_in_one_direction_leaves_the_other(wire: Wire) -> None:
    wire.network.block(Rule(src="a", dst="b"))
    assert wire.blocked("a", "b")
    assert wire.passes("b", "a")
    assert wire.passes("a", "c")


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_rule_for_a_port_leaves_the_others(wire: Wire, protocol: int) -> None:
    wire.network.block(*between("a", "b", 7789))
    assert wire.blocked("a", "b", 7789, protocol)
    assert wire.blocked("b", "a", 7789, protocol)
    assert wire.passes("a", "b", 7777, protocol)
    assert wire.passes("a", "c", 7789, protocol)


def test_node_can_be_cut_off_from_everybody(wire: Wire) -> None:
    wire.network.block(*around("b"))
    assert wire.blocked("a", "b")
    assert wire.blocked("b", "c")
    wire.send("b", "*")
    assert not wire.arrives("a", 0.02)
    assert wire.passes("a", "c")


def test_other_rules_take_over_at_once(wire: Wire) -> None:
    wire.network.block(*around("b"))
    wire.network.only(*around("a"))
    assert wire.passes("b", "c")
    assert wire.blocked("c", "a")


def test_late_frames_come_late_and_in_order(wire: Wire) -> None:
    wire.network.block(*slow("a", "b", latency=0.2))
    started = time.monotonic()
    for number in range(5):
        wire.send("a", "b", text=bytes([number]))
    wire.ends["b"].settimeout(2)
    assert [wire.ends["b"].recv(65536)[-1] for _ in range(5)] == list(range(5))
    assert time.monotonic() - started >= 0.2
    assert wire.passes("a", "c")


def test_lost_fraction_is_the_one_asked_for_and_the_same_for_a_seed() -> None:
    def lost(seed: int) -> list[int]:
        with Network(seed) as network:
            wire = Wire(network)
            network.block(*slow("a", "b", latency=0, loss=0.25))
            arrived = []
            wire.ends["b"].settimeout(1)
            for number in range(200):
                wire.send("a", "b", text=bytes([number]))
            try:
                while True:
                    arrived.append(wire.ends["b"].recv(65536)[-1])
            except TimeoutError:
                pass
            for end in wire.ends.values():
                end.close()
            return sorted(set(range(200)) - set(arrived))

    assert lost(7) == lost(7) != lost(8)
    assert 25 <= len(lost(7)) <= 75


def test_healed_wire_passes_everything(wire: Wire) -> None:
    wire.network.cut()
    assert wire.blocked("a", "b")
    wire.network.drop(7789)
    assert wire.passes("a", "b")
    assert wire.blocked("a", "b", 7789)
    wire.network.block(Rule(src="a", dst="b"))
    wire.network.heal()
    assert wire.passes("a", "b", 7789)


def test_dead_ends_harm_nobody(wire: Wire) -> None:
    wire.ends["b"].close()
    wire.send("a", "b")
    assert wire.passes("a", "c")
    wire.ends["b"] = socket.socket()
