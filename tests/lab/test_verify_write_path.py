"""`pvedrbdstor verify --write-path` on the real cluster: writes followed to the other node's lower disk, and every obstacle told."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node, Result
from tests.lab.ops import wait_until
from tests.lab.results import Results
from tests.lab.storage import WORK

GUESTS = "/etc/pve/nodes/nodea/qemu-server"


def check(node: Node, *options: str, timeout: float = 240) -> Result:
    return node.sh(f"pvedrbdstor verify {STORAGE} --write-path {shlex.join(options)}", timeout)


def found(node: Node) -> dict[str, Any]:
    result = check(node, "--json")
    document, _ = json.JSONDecoder().raw_decode(result.out[result.out.index("{") :])
    assert isinstance(document, dict)
    assert document.get("exit_status", 2) == result.rc, result.out
    return document


def left(node: Node) -> list[str]:
    return node.run(f"ls {WORK}").split()


@pytest.fixture
def pair(emptied: Cluster) -> Iterator[Cluster]:
    """The small cluster; afterwards no probe and no process is left."""
    on_each(emptied.nodes, lambda node: node.run(f"mkdir -p {GUESTS}"))
    yield emptied
    for node in emptied.nodes:
        wait_until(lambda node=node: node.sh("pgrep -f '[v]erify .*--write-path'").rc == 1, "the checks end")
        assert left(node) == []


def test_each_write_is_on_the_other_nodes_disk_when_it_is_acknowledged(pair: Cluster, results: Results) -> None:
    """Both ways, below DRBD, and in every mode of QEMU; a guest that uses O_DIRECT is named."""
    a = pair.a
    a.run(f"echo 'scsi0: {STORAGE}:100/vm-100-disk-0.raw,size=4G' >{GUESTS}/100.conf")
    try:
        document = found(a)
    finally:
        a.run(f"rm {GUESTS}/100.conf")
    assert document["verdict"] == "ok" and document["unchecked"] == [], document
    assert document["nodes"] == ["nodea", "nodeb"] and len(document["modes"]) == 20
    assert {mode["result"] for mode in document["modes"]} == {"ok"}
    for direction in document["directions"]:
        below = direction["on_the_readers_disk"]
        assert below["at_first_look"] and below["protocols"] == ["C"] and below["disk"].startswith("/dev/")
        assert direction["wrong_through_the_mount"] == 0
        results.row(
            "Write path: O_DIRECT and O_DSYNC writes of 4 KiB, and how soon the other node's disk gave them back (ms)",
            writer=direction["writer"],
            writes=document["blocks"],
            write_p50=direction["latency_ms"]["p50"],
            write_p99=direction["latency_ms"]["p99"],
            seen_p50=below["seen_within_ms"]["p50"],
            seen_max=below["seen_within_ms"]["max"],
        )
    (risk,) = document["at_risk"]
    assert risk["why"] == "flushes" and [disk["vmid"] for disk in risk["disks"]] == [100]


@pytest.mark.soak
def test_words_for_people(pair: Cluster) -> None:
    result = check(pair.b)
    assert result.rc == 0, result.out
    assert "is on the other's disk when it is acknowledged" in result.out
    assert "aio=native,cache=none: ok" in result.out
    print(result.out)


def test_a_node_that_cannot_be_reached_by_ssh_is_told(pair: Cluster) -> None:
    pair.a.run(
        "mv /usr/sbin/ssh /usr/sbin/ssh.kept; printf '#!/bin/sh\\necho no route to host >&2; exit 255\\n' >/usr/sbin/ssh; chmod +x /usr/sbin/ssh"
    )
    try:
        result = check(pair.a)
    finally:
        pair.a.run("mv /usr/sbin/ssh.kept /usr/sbin/ssh")
    assert result.rc == 2 and "nodeb does not answer: no route to host" in result.out, result.out


_AS_AT_A_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""A shell has what it starts in the background ignore Ctrl-C."""


@pytest.mark.parametrize("signal", ["INT", "KILL"])
def test_ended_in_the_middle_it_leaves_no_file(pair: Cluster, signal: str) -> None:
    """Ctrl-C, and the leader killed outright: both nodes remove what they have made."""
    command = ["/usr/bin/python3", "-S", "-c", _AS_AT_A_TERMINAL, "pvedrbdstor", "verify", STORAGE, "--write-path"]
    pair.a.run(
        f"""{shlex.join(command)} >/run/write-path.log 2>&1 &
until ls {WORK} | grep -q .; do kill -0 $! || exit 1; sleep 0.02; done
kill -{signal} $!; wait $! || true"""
    )
    wait_until(lambda: left(pair.b) == [], f"after SIG{signal} the probes are removed")
    assert pair.a.sh(f"grep -q ' {MOUNT_POINT} ocfs2 rw' /proc/mounts").rc == 0
