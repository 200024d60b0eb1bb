"""A snapshot of the lower device by the real LVM, and a look into it beside the live file system whose UUID it had."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator

import pytest

from tests.lab import assets
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import CLUSTER
from tests.lab.node import Node

DEVICE, MOUNT = "/dev/vg/r0", "/mnt/lower"
TARGET, INSIDE = "vg/r0-split-T", "/mnt/preserved"
TOOLS = ("lvs", "lvcreate", "pvcreate", "vgcreate", "vgremove", "vgchange")
CONFIG = "devices { use_devicesfile = 0 }\nactivation { udev_sync = 0 udev_rules = 0 }\n"
PRESERVE = f"""
from pvedrbdstor.fencing.split import lvm, preserve
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve
volume = preserve.volume_of({DEVICE!r})
size = lvm.snapshot_size(volume, 1 << 20)
journal = Journal("ha", "nodea", "nodeb", 0.0, Preserve.SNAPSHOT, {TARGET!r}, size)
assert volume.group == "vg" and volume.name == "r0" and size >= volume.full_snapshot, volume
assert preserve.volume_of("/dev/loop0") is None and not preserve.is_there(journal)
for _ in range(2):
    preserve.snapshot(journal, {DEVICE!r})
    preserve.check(journal, lambda _: None)
"""
STILL_THERE = PRESERVE.partition("assert volume")[0] + "assert preserve.is_there(journal)\n"


@pytest.fixture
def lower(cluster: Cluster) -> Iterator[Node]:
    """A node with a logical volume on a loop device, and on it an OCFS2 of the cluster, mounted."""
    node = cluster.b
    try:
        roots = assets.prepare_lvm()
    except LabError as error:
        pytest.skip(f"LVM's packages cannot be had: {error}")
    libraries = ":".join(
        f"{root}/{folder}" for root in roots for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
    )
    program = f'#!/bin/sh\nexport LD_LIBRARY_PATH={libraries} LVM_SYSTEM_DIR=/run/lvm-etc\nexec {roots[0]}/sbin/lvm "${{0##*/}}" "$@"\n'
    if node.sh("modprobe -a loop dm-mod dm-snapshot").rc != 0:
        pytest.skip("this kernel has no device mapper")
    mkfs = f"mkfs.ocfs2 -F -q -N 2 -b 4K -C 64K -J size=4M --cluster-stack=o2cb --cluster-name={CLUSTER} -U {uuid.uuid4().hex.upper()}"
    node.run(
        f"""set -e
mkdir -p /run/lvm-etc /run/lvm /run/lock/lvm {MOUNT} {INSIDE}
printf %s {shlex.quote(CONFIG)} >/run/lvm-etc/lvm.conf
for tool in {" ".join(TOOLS)}; do printf %s {shlex.quote(program)} >/usr/sbin/$tool; chmod 0755 /usr/sbin/$tool; done
truncate -s 400M /run/pv.img
losetup /dev/loop0 /run/pv.img
pvcreate -q /dev/loop0 && vgcreate -q vg /dev/loop0 && lvcreate -q -L 128M -n r0 vg
{mkfs} {DEVICE}
mount -t ocfs2 {DEVICE} {MOUNT}""",
        timeout=90,
    )
    yield node
    node.sh(f"umount {INSIDE}; umount {MOUNT}; vgremove -f -q vg; losetup -d /dev/loop0; rm -f /run/pv.img", timeout=60)


@pytest.mark.soak
def test_a_snapshot_holds_what_was_lost_and_is_looked_into_under_a_uuid_of_its_own(lower: Node) -> None:
    python = f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache /usr/bin/python3 -c"
    lower.run(f"echo mine >{MOUNT}/file && umount {MOUNT}")
    lower.run(f"{python} {shlex.quote(PRESERVE)}", timeout=60)
    lower.run(f"mount -t ocfs2 {DEVICE} {MOUNT} && echo theirs >{MOUNT}/file && sync -f {MOUNT}", timeout=90)
    lower.run(
        f"""set -e
tunefs.ocfs2 --cloned-volume=preserved -y /dev/{TARGET}
tunefs.ocfs2 --fs-features=local -y /dev/{TARGET}
mount -t ocfs2 /dev/{TARGET} {INSIDE}""",
        timeout=60,
    )
    assert lower.run(f"cat {INSIDE}/file {MOUNT}/file").split() == ["mine", "theirs"]
    one, other = (lower.run(f"tunefs.ocfs2 -Q '%U' {device}").strip() for device in (DEVICE, f"/dev/{TARGET}"))
    assert one != other and len(one) == len(other) == 32
    lower.run(f"{python} {shlex.quote(STILL_THERE)}", timeout=60)
