"""The storage under a real systemd as PID 1, with udev, on Debian's own kernel: units, mount unit, an orderly power-off."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.backends import choose
from tests.lab.bringing_up import fenced
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import ops, wait_until
from tests.lab.storage import PluginError, alloc, call, path

MIB = 1 << 20
UP_SECONDS = 300.0  # an emulated CPU is ten times slower, and more so beside other work
POWER_OFF_SECONDS = 240.0
TRANSIENT = ("still coming up", "did not begin to work", "cannot be reached", "no answer", "could not make sure")
MOUNT_UNIT = "mnt-pve-ha.mount"


@pytest.fixture(scope="module")
def booted() -> Iterator[Cluster]:
    """Two emulated machines run by systemd, with the package's units, configured and nothing more."""
    with Cluster(choose("tcg"), memory=640, formed=False, first="systemd") as cluster:
        on_each(cluster.nodes, install)
        yield cluster


def install(node: Node) -> None:
    """What the package would: the program, and its units."""
    storage.write_program(node)
    node.run(
        f"""set -e
systemctl start systemd-udevd.service systemd-udev-trigger.service
udevadm settle
for unit in {REPOSITORY}/debian/pvedrbdstor*.service {REPOSITORY}/debian/pvedrbdstor*.socket; do
    install -m 0644 "$unit" /etc/systemd/system/
done
systemctl daemon-reload
systemctl start pvedrbdstor.socket pvedrbdstor-mirrors.service""",
        timeout=200,
    )


def activate(node: Node) -> None:
    """As Proxmox does, again and again: whatever it waits for takes longer here than a caller waits."""
    deadline = time.monotonic() + UP_SECONDS
    while True:
        try:
            call(node, "activate_storage", STORAGE)
            return
        except PluginError as error:
            if time.monotonic() > deadline or not any(words in str(error) for words in TRANSIENT):
                raise


@pytest.mark.soak
@pytest.mark.alone
def test_the_storage_comes_up_by_units_and_a_power_off_fences_nobody(booted: Cluster) -> None:
    a, b = booted.nodes
    with fenced([a]):
        on_each(booted.nodes, activate)
        for node in booted.nodes:
            assert node.run("ps -p 1 -o comm=").strip() == "systemd"
            assert node.run(f"systemctl is-active {MOUNT_UNIT}").strip() == "active"
            assert node.run(f"findmnt -no FSTYPE {MOUNT_POINT}").strip() == "ocfs2"
            assert node.run("systemctl --failed --no-legend") == ""
        volid = alloc(a, 100, 16 * MIB)
        ops(a, "write_pattern", path(a, volid), "one", 0, MIB)
        assert ops(b, "digest", path(b, volid)) == ops(a, "digest", path(a, volid))

        a.run("rm -f /run/fenced")  # called, perhaps, while the other node was still coming up
        b.sh("systemctl poweroff", timeout=20)
        wait_until(lambda: not b.running, "the power-off", POWER_OFF_SECONDS)
        assert "ro:Primary/Unknown ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
        assert a.sh("cat /run/fenced").rc != 0, "the fence-peer handler was called"
        a.run(f"touch {MOUNT_POINT}/goes-on && sync -f {MOUNT_POINT}/goes-on")
