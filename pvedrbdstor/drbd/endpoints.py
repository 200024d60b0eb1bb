"""The addresses that DRBD replicates between, in the output of `drbdsetup show`. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.blocks import Block


def endpoints(show: str, resource: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(address, port) of this node and of its peers in the output of `drbdsetup show`: beside the volumes (8.4), or in each path of a connection (9)."""
    own: list[tuple[str, int]] = []
    peers: list[tuple[str, int]] = []
    for block in blocks.parse(show).named("resource"):
        if block.words[1:2] == (resource,):
            own += _hosts(block, "_this_host")
            peers += _hosts(block, "_remote_host")
    return own, peers


def _hosts(block: Block, name: str) -> Iterator[tuple[str, int]]:
    words = block.options.get(name)  # 9: `_this_host ipv4 10.0.0.1:7789;`
    if words:
        yield from _endpoint(words[-1])
    for inner in block.blocks:
        if inner.words[:1] == (name,) and (address := inner.options.get("address")):
            yield from _endpoint(address[-1])
        yield from _hosts(inner, name)


def _endpoint(text: str) -> Iterator[tuple[str, int]]:
    address, _, port = text.rpartition(":")
    if port.isascii() and port.isdecimal() and len(port) < 6:
        yield address.strip("[]"), int(port)
