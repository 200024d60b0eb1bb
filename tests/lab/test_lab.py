"""The lab itself: what the other tests take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import backends, evidence, formation, leftovers
from tests.lab.__main__ import Control
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import TIMED_OUT, LabError
from tests.lab.initramfs import loading_order
from tests.lab.network import transport_ports
from tests.lab.ops import ops, running_op, wait_until

OWNER = """
import sys
from tests.lab.backends import choose, scratch_root
from tests.lab.cluster import Cluster
from tests.lab import formation
formation.form = lambda nodes, fencing: None  # booted nodes are enough here
with Cluster() as cluster:
    print(cluster.folder, flush=True)
    sys.stdin.read()
"""


def test_command_reports_status_output_and_time(cluster: Cluster) -> None:
    result = cluster.a.sh("echo out; echo err >&2; sleep 0.3; exit 7")
    assert (result.rc, result.out) == (7, "out\nerr\n")
    assert 0.3 <= result.seconds < 10


def test_command_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    result = cluster.a.sh("echo begun; sleep 600", timeout=1)
    assert (result.rc, result.out) == (TIMED_OUT, "begun\n")
    assert cluster.a.sh("grep -l '^sleep.600' /proc/[0-9]*/cmdline").rc != 0


def test_nodes_cannot_change_the_host(cluster: Cluster) -> None:
    assert "Read-only" in cluster.a.sh(f"touch {REPOSITORY}/changed-by-a-node").out
    cluster.a.run("touch /etc/changed-by-a-node")
    assert not Path("/etc/changed-by-a-node").exists()


def test_cut_network_loses_everything_and_heals_without_a_trace(cluster: Cluster) -> None:
    ping = f"busybox ping -c 1 -W 1 {cluster.b.address}"
    wait_until(lambda: cluster.a.sh(ping).rc == 0, "an answer")
    cluster.network.cut()
    try:
        assert cluster.a.sh(ping).rc != 0
    finally:
        cluster.network.heal()
    wait_until(lambda: cluster.a.sh(ping).rc == 0, "the network is back")
    wait_until(lambda: "cs:Connected ro:Primary/Primary" in cluster.a.run("cat /proc/drbd"), "DRBD is connected")
    assert [node.boots for node in cluster.nodes] == [1, 1]


def test_dropping_a_tcp_port_spares_the_others(cluster: Cluster) -> None:
    with running_op(cluster.b, "listen", 9001, 9002):
        try:
            wait_until(lambda: ops(cluster.a, "connect", cluster.b.address, 9001) is True, "a connection")
            cluster.network.drop(9001)
            assert ops(cluster.a, "connect", cluster.b.address, 9001) is False
            wait_until(lambda: ops(cluster.a, "connect", cluster.b.address, 9002) is True, "one to another port")
        finally:
            cluster.network.heal()


def test_ports_are_read_from_tcp_and_udp_frames_only() -> None:
    ethernet = bytes(12) + b"\x08\x00"
    ipv4 = bytes([0x45]) + bytes(8) + b"\x06" + bytes(10)
    tcp = (7789).to_bytes(2, "big") + (40000).to_bytes(2, "big") + bytes(16)
    assert transport_ports(ethernet + ipv4 + tcp) == (7789, 40000)
    options = bytes([0x46]) + ipv4[1:] + bytes(4)
    assert transport_ports(ethernet + options + tcp) == (7789, 40000)
    udp = ipv4[:9] + b"\x11" + ipv4[10:]
    assert transport_ports(ethernet + udp + tcp) == (7789, 40000)
    icmp = ipv4[:9] + b"\x01" + ipv4[10:]
    assert transport_ports(ethernet + icmp + tcp) == ()
    assert transport_ports(bytes(12) + b"\x08\x06" + ipv4 + tcp) == ()
    assert transport_ports(b"") == ()


def test_control_of_the_lab_runs_commands_and_refuses_what_it_does_not_know(cluster: Cluster) -> None:
    control = Control(cluster)
    assert control.do("sh", ["b", "hostname;", "exit", "4"]) == (4, "nodeb\n")
    assert control.do("status", [])[1].startswith("a: runs, booted 1 times\nb: runs, booted 1 times\n")
    for action, words in (("sh", ["c", "true"]), ("kill", []), ("drop", []), ("nonsense", [])):
        with pytest.raises(LabError):
            control.do(action, words)


def test_modules_are_loaded_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "a/top.ko: b/middle-one.ko.xz c/low.ko\nb/middle-one.ko.xz: c/low.ko\nc/low.ko:\n"
    )
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    assert loading_order(tmp_path, ["ext4", "top", "middle_one"]) == ["c/low.ko", "b/middle-one.ko.xz", "a/top.ko"]
    with pytest.raises(LabError, match="nothere"):
        loading_order(tmp_path, ["nothere"])


def _owner() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_terminated_owner_leaves_nothing_behind() -> None:
    process, folder = _owner()
    assert any("process" in line for line in leftovers.find(folder)), "nodes are found while they run"
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert leftovers.find(folder) == []


def test_nodes_end_by_themselves_when_their_owner_is_killed_and_the_next_one_removes_the_folder() -> None:
    process, folder = _owner()
    process.kill()
    process.wait(30)
    wait_until(
        lambda: not any(line.startswith("process") for line in leftovers.find(folder)), "the nodes have ended", 20
    )
    successor, other = _owner()
    try:
        assert leftovers.find(folder) == []
        assert other != folder
    finally:
        assert successor.stdin is not None
        successor.stdin.close()
        assert successor.wait(30) == 0
    assert leftovers.find(other) == []


def test_evidence_of_the_last_failures_only_is_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "newer", "old", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "console.log").touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    evidence.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer", "newest"]


def test_events_of_drbd_are_written_to_the_host_as_they_come(cluster: Cluster) -> None:
    for node in cluster.nodes:
        wait_until(
            lambda node=node: "role:Primary" in (node.share / formation.EVENTS).read_text(),  # type: ignore[misc]
            "the promotion is in the events",
        )


def test_backend_that_did_not_boot_is_not_tried_again_before_the_host_boots(tmp_path: Path) -> None:
    count = f"echo tried >>{tmp_path}/tries"
    for _ in range(2):
        assert not backends.boots("dead", ["sh", "-c", count], {}, tmp_path)
        assert backends.boots("alive", ["sh", "-c", f"{count}; echo LAB-PROBE-OK"], {}, tmp_path)
    assert (tmp_path / "tries").read_text() == "tried\n" * 2
