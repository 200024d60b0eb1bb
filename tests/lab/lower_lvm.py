"""A second storage in the lab whose lower device is a logical volume on node b, with the real LVM."""

from __future__ import annotations

import shlex
import uuid

import pytest

from tests.lab import assets
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import CLUSTER, on_each
from tests.lab.node import Node

STORAGE, RESOURCE, MINOR, PORT = "lv", "r1", 1, 7790
MOUNT_POINT = f"/mnt/pve/{STORAGE}"
GROUP = "vg"
SIZE_MIB = 96
_TOOLS = (
    "pvs",
    "vgs",
    "lvs",
    "lvcreate",
    "lvremove",
    "lvextend",
    "pvcreate",
    "vgcreate",
    "vgremove",
    "vgchange",
    "lvchange",
)
_CONFIG = "devices { use_devicesfile = 0 }\nactivation { udev_sync = 0 udev_rules = 0 }\n"
_RES = f"/etc/drbd.d/{RESOURCE}.res"


def install(node: Node) -> None:
    """LVM's tools on a node. Skips where there is no LVM."""
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
    node.run(
        f"""set -e
mkdir -p /run/lvm-etc /run/lvm /run/lock/lvm
printf %s {shlex.quote(_CONFIG)} >/run/lvm-etc/lvm.conf
for tool in {" ".join(_TOOLS)}; do printf %s {shlex.quote(program)} >/usr/sbin/$tool; chmod 0755 /usr/sbin/$tool; done"""
    )


def prepare(node: Node, size_mib: int) -> None:
    """LVM's tools on a node, and the volume group GROUP of so many MiB in its memory. Skips where there is no LVM."""
    install(node)
    node.run(
        f"""set -e
truncate -s {size_mib}M /run/pv.img
losetup /dev/loop0 /run/pv.img
pvcreate -q /dev/loop0 && vgcreate -q {GROUP} /dev/loop0""",
        timeout=90,
    )


def remove(node: Node) -> None:
    """Everything that prepare() has made, whatever became of it."""
    node.sh(f"vgremove -f -f -q {GROUP}; losetup -d /dev/loop0; rm -f /run/pv.img", timeout=60)


def form(cluster: Cluster) -> None:
    """The second storage, mounted on both nodes; b's lower device is a logical volume, a's a plain loop device."""
    a, b = cluster.nodes
    prepare(b, 4 * SIZE_MIB)
    b.run(f"lvcreate -q -L {SIZE_MIB}M -n {RESOURCE} {GROUP}")
    a.run(f"modprobe loop && truncate -s {SIZE_MIB}M /run/{RESOURCE}.img && losetup /dev/loop1 /run/{RESOURCE}.img")
    lower = {a.name: "/dev/loop1", b.name: f"/dev/{GROUP}/{RESOURCE}"}
    hosts = "\n".join(
        f"  on node{node.name} {{ device /dev/drbd{MINOR}; disk {lower[node.name]}; address {node.address}:{PORT}; "
        "meta-disk internal; }"
        for node in cluster.nodes
    )
    text = f"""resource {RESOURCE} {{
  protocol C;
  net {{
    allow-two-primaries yes; connect-int 1; ping-int 5; ping-timeout 10; timeout 40; verify-alg crc32c;
    after-sb-0pri disconnect; after-sb-1pri disconnect; after-sb-2pri disconnect; rr-conflict disconnect;
  }}
  disk {{ on-io-error detach; resync-rate 200M; c-plan-ahead 0; }}
{hosts}
}}
"""
    entry = f"\ndrbdocfs2: {STORAGE}\n\tpath {MOUNT_POINT}\n\tdrbdocfs2-resource {RESOURCE}\n\tcontent images\n"
    create = f"drbdadm create-md --force {RESOURCE} && drbdadm up {RESOURCE} && drbdadm wait-connect {RESOURCE}"
    on_each(
        cluster.nodes,
        lambda node: node.run(
            f"""set -e
printf %s {shlex.quote(text)} >{_RES}
printf %s {shlex.quote(entry)} >>/etc/pve/storage.cfg
({create}) >/run/drbd/{RESOURCE}.log 2>&1 || {{ cat /run/drbd/{RESOURCE}.log; exit 1; }}""",
            timeout=60,
        ),
    )
    a.run(f"drbdadm new-current-uuid --clear-bitmap {RESOURCE}/0 && drbdadm primary {RESOURCE}")
    a.run(
        f"mkfs.ocfs2 -F -q -N 2 -b 4K -C 64K -J size=4M --cluster-stack=o2cb --cluster-name={CLUSTER} "
        f"-U {uuid.uuid4().hex.upper()} /dev/drbd{MINOR}",
        timeout=90,
    )
    b.run(f"drbdadm primary {RESOURCE}")
    on_each(
        cluster.nodes,
        lambda node: node.run(f"mkdir -p {MOUNT_POINT} && mount -t ocfs2 /dev/drbd{MINOR} {MOUNT_POINT}", 120),
    )


def dissolve(cluster: Cluster) -> None:
    """Everything that form() has made, whatever became of it."""
    for node in cluster.nodes:
        node.sh(f"umount {MOUNT_POINT}; drbdadm down {RESOURCE}; rm -f {_RES}", 60)
        node.sh(f"sed -i '/^drbdocfs2: {STORAGE}$/,$d' /etc/pve/storage.cfg")
    cluster.a.sh(f"losetup -d /dev/loop1; rm -f /run/{RESOURCE}.img")
    remove(cluster.b)
