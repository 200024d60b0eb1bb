"""The storage under a real systemd as PID 1, with udev, on Debian's own kernel: units, mount unit, the rule of udev that `setup` writes
for the lower disk, an orderly power-off."""

from __future__ import annotations

import collections
import json
import os
import shlex
import time
from collections.abc import Iterator

import pytest

from pvedrbdstor.setup import templates, values
from pvedrbdstor.setup.facts import Disk
from pvedrbdstor.setup.paths import RULES_PREFIX, UDEV_RULES
from tests.lab import assets, lower_lvm, storage
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
DEVICE = "/dev/drbd0"


@pytest.fixture(scope="module")
def booted() -> Iterator[Cluster]:
    """Two emulated machines run by systemd, with the package's units, configured and nothing more."""
    with Cluster(choose("tcg"), memory=640, formed=False, first="systemd") as cluster:
        on_each(cluster.nodes, install)
        on_each(cluster.nodes, lambda node: hide(node, cluster.backend.disk_device))
        yield cluster


def install(node: Node) -> None:
    """What the package would: the program, and its units."""
    storage.write_program(node)
    node.run(
        f"""set -e
systemctl start systemd-udevd.service systemd-udev-trigger.service
udevadm settle
for unit in {REPOSITORY}/debian/pvedrbdstor*.service {REPOSITORY}/debian/pvedrbdstor*.socket {REPOSITORY}/debian/pvedrbdstor*.timer; do
    install -m 0644 "$unit" /etc/systemd/system/
done
systemctl daemon-reload
systemctl start pvedrbdstor.socket pvedrbdstor-mirrors.service""",
        timeout=200,
    )


def hide(node: Node, disk: str) -> None:
    """The rule of `pvedrbdstor setup` for the lower disk, in force; before it systemd takes the disk for any other."""
    assert seen(node, disk)["SYSTEMD_READY"] is None and device_unit(node, disk) == "active"
    rule = templates.udev_rule("r0", looked_at(node, disk), disk, None)
    assert rule is not None
    write(node, f"{UDEV_RULES}/{RULES_PREFIX}r0.rules", rule)
    node.run(f"udevadm control --reload && udevadm trigger --action=change --settle {disk}", timeout=120)


def looked_at(node: Node, device: str) -> Disk:
    """As `setup facts` finds it there, of what udev tells."""
    program = (
        "import json, sys; from pvedrbdstor.setup import disks, values\n"
        "print(json.dumps([values.encode(disk) for disk in disks.look() if sys.argv[1] in (disk.path, *disk.names)]))"
    )
    (found,) = json.loads(node.run(f"cd {REPOSITORY} && /usr/bin/python3 -c {shlex.quote(program)} {device}", 120))
    return values.decode(Disk, found)


def write(node: Node, path: str, text: str) -> None:
    node.run(f"mkdir -p {os.path.dirname(path)} && printf %s {shlex.quote(text)} >{path}")


def seen(node: Node, device: str) -> dict[str, str | None]:
    """What udev knows of a device; None for what it does not."""
    lines = node.run(f"udevadm info --query=property {device}").splitlines()
    return collections.defaultdict(lambda: None, (line.split("=", 1) for line in lines if "=" in line))


def device_unit(node: Node, device: str) -> str:
    """The state of systemd's unit for it: what mounts it waits for that."""
    return node.sh(f"systemctl is-active $(systemd-escape --path --suffix=device {device})").out.strip()


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
def test_the_rule_of_udev_keeps_everybody_from_the_lower_disk(booted: Cluster) -> None:
    disk, mine = booted.backend.disk_device, "/run/mine"
    for node in booted.nodes:
        found = seen(node, disk)
        assert (found["SYSTEMD_READY"], found["UDISKS_IGNORE"]) == ("0", "1"), dict(found)
        assert device_unit(node, disk) == "inactive"
    node = booted.a
    unit = f"[Unit]\nJobTimeoutSec=5\n[Mount]\nWhat={disk}\nWhere={mine}\nOptions=ro\n"
    write(node, "/run/systemd/system/run-mine.mount", unit)
    tried = node.sh("systemctl daemon-reload && systemctl start run-mine.mount", 120)
    assert tried.rc != 0 and node.sh(f"mountpoint -q {mine}").rc != 0, "systemd has not even tried"


@pytest.mark.soak
@pytest.mark.alone
def test_the_rule_of_udev_for_a_logical_volume_is_for_that_one_alone(booted: Cluster) -> None:
    node = booted.b
    lower_lvm.prepare(node, 64)
    rules = assets.prepare_lvm()[0] / "lib/udev/rules.d/56-lvm.rules"
    lower = f"/dev/{lower_lvm.GROUP}/r0"
    rule = templates.udev_rule("r0", looked_at(node, booted.backend.disk_device), lower, (lower_lvm.GROUP, "r0"))
    assert rule is not None
    write(node, f"{UDEV_RULES}/{RULES_PREFIX}lv.rules", rule)
    node.run(f"cp {rules} {UDEV_RULES}/ && udevadm control --reload")
    with_udev = "--config 'activation { udev_sync = 1 udev_rules = 1 }'"
    try:
        for name in ("r0", "other"):
            node.run(f"lvcreate -q {with_udev} -L 16M -n {name} {lower_lvm.GROUP}", timeout=120)
        node.run("udevadm settle", timeout=120)
        other = f"/dev/{lower_lvm.GROUP}/other"
        assert seen(node, lower)["DM_LV_NAME"] == "r0", "udev has named it"
        assert (seen(node, lower)["SYSTEMD_READY"], device_unit(node, lower)) == ("0", "inactive")
        assert (seen(node, other)["SYSTEMD_READY"], device_unit(node, other)) == ("1", "active")
    finally:
        lower_lvm.remove(node)
        node.sh(f"rm -f {UDEV_RULES}/56-lvm.rules {UDEV_RULES}/{RULES_PREFIX}lv.rules; udevadm control --reload")


@pytest.mark.soak
@pytest.mark.alone
def test_the_rule_of_udev_for_a_partition_is_for_that_one_alone(booted: Cluster) -> None:
    """By what its table says of it, which udev has read by the time that the rule is come to."""
    node, image = booted.b, "/run/parts"
    node.run(f"truncate -s 64M {image} && printf 'label: gpt\\n,16M,L\\n,,L\\n' | sfdisk -q {image}")
    loop = node.run(f"losetup --find --show --partscan {image}").strip()
    try:
        node.run("udevadm settle", timeout=120)
        lower, other = f"{loop}p1", f"{loop}p2"
        disk = looked_at(node, lower)
        rule = templates.udev_rule("r0", disk, lower, None)
        assert rule is not None and disk.kind == "part" and "ID_PART_ENTRY_UUID" in rule
        assert "PARTN=1" in disk.udev, "for a table without names"
        write(node, f"{UDEV_RULES}/{RULES_PREFIX}part.rules", rule)
        node.run(f"udevadm control --reload && udevadm trigger --action=change --settle {lower} {other} {loop}", 120)
        assert (seen(node, lower)["SYSTEMD_READY"], device_unit(node, lower)) == ("0", "inactive")
        assert (seen(node, other)["SYSTEMD_READY"], device_unit(node, other)) == (None, "active")
        assert seen(node, loop)["UDISKS_IGNORE"] is None, "the disk is everybody's"
    finally:
        node.sh(f"losetup -d {loop}; rm -f {image} {UDEV_RULES}/{RULES_PREFIX}part.rules; udevadm control --reload")


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
            assert device_unit(node, DEVICE) == "active", "its mount unit waits for that"
            lower = booted.backend.disk_device
            node.run(f"udevadm trigger --action=change --settle {lower}", timeout=60)
            found = seen(node, lower)
            assert (found["ID_FS_TYPE"], found["SYSTEMD_READY"]) == ("drbd", "0"), (
                "also now that a file system is on it"
            )
            assert device_unit(node, lower) == "inactive"
            links = node.run("ls /dev/disk/by-uuid /dev/disk/by-label 2>/dev/null || true")
            assert node.run(f"blkid -o value -s UUID {DEVICE}").strip() not in links, "no name leads past DRBD"
        volid = alloc(a, 100, 16 * MIB)
        ops(a, "write_pattern", path(a, volid), "one", 0, MIB)
        assert ops(b, "digest", path(b, volid)) == ops(a, "digest", path(a, volid))

        a.run("rm -f /run/fenced")  # called, perhaps, while the other node was still coming up
        b.sh("systemctl poweroff", timeout=20)
        wait_until(lambda: not b.running, "the power-off", POWER_OFF_SECONDS)
        assert "ro:Primary/Unknown ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
        assert a.sh("cat /run/fenced").rc != 0, "the fence-peer handler was called"
        a.run(f"touch {MOUNT_POINT}/goes-on && sync -f {MOUNT_POINT}/goes-on")
