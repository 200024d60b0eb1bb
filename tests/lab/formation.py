"""From booted nodes to one file system mounted on both: DRBD dual-primary, o2cb, OCFS2.

The file system is made on the host, in the nodes' disk images before they boot: both lower disks are then equal, so that
DRBD may be told so and has nothing to copy, and the nodes need not wait for mkfs.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.lab.errors import LabError
from tests.lab.node import GUEST_SHARE, Node

STORAGE = "ha"
MOUNT_POINT = f"/mnt/pve/{STORAGE}"
RESOURCE = "r0"
CLUSTER = "pve"
DRBD_PORT = 7789
O2NET_PORT = 7777

_MIB = 1 << 20
_DRBD_METADATA_ROOM = 8 * _MIB  # at the end of the lower disk; internal metadata of 1 GiB need far less
_FEATURES = (
    "refcount,xattr,unwritten,sparse,inline-data,indexed-dirs,extended-slotmap,discontig-bg,metaecc,backup-super"
)
_MOUNT_OPTIONS = "noatime,data=ordered,errors=remount-ro"
_MOUNT_SECONDS = 90
_RESYNC_SECONDS = 120
NOTE = "/usr/lib/pvedrbdstor/before-resync"
EVENTS = "drbd-events.log"  # in a node's shared folder

_T = TypeVar("_T")


@dataclass(frozen=True)
class Layout:
    """How the file system is made: mkfs.ocfs2(8). cluster and journal: sizes, as -C and -J take them."""

    features: str = _FEATURES
    cluster: str = "64K"
    journal: str = "16M"


@dataclass(frozen=True)
class Fencing:
    """DRBD stands still when it loses the peer, until the program ``handler`` in the node has said who may go on."""

    handler: str = "/usr/lib/pvedrbdstor/fence-peer"


def on_each(nodes: Sequence[Node], work: Callable[[Node], _T]) -> list[_T]:
    """Do the same on all nodes at once; the first failure is raised when all have ended."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(work, nodes))


def make_disks(nodes: Sequence[Node], size: int, uuid: str, layout: Layout | None = None) -> None:
    """Give every node a lower disk of ``size`` bytes that holds the same new OCFS2 file system with this UUID."""
    layout = layout or Layout()
    first, *others = (node.disk for node in nodes)
    with first.open("wb") as disk:
        disk.truncate(size)
    blocks = (size - _DRBD_METADATA_ROOM) // 4096
    _host(
        *("mkfs.ocfs2", "-F", "-q", "-U", uuid, "-L", STORAGE, "-N", str(len(nodes)), "-b", "4K", "-C", layout.cluster),
        *("-J", f"size={layout.journal}", "-T", "vmstore", "--cluster-stack=o2cb", f"--cluster-name={CLUSTER}"),
        *(f"--fs-features={layout.features}", str(first), str(blocks)),
    )
    for other in others:
        _host("cp", "--sparse=always", str(first), str(other))


def make_empty_disks(nodes: Sequence[Node], size: int) -> None:
    """Give every node a lower disk of ``size`` bytes that nobody has ever written to."""
    for node in nodes:
        with node.disk.open("wb") as disk:
            disk.truncate(size)


def form(nodes: Sequence[Node], fencing: Fencing | None = None) -> None:
    """Bring freshly booted nodes with disks of make_disks() to the mounted file system. Raises CommandFailed."""
    create = f"drbdadm create-md --force {RESOURCE} && drbdadm up {RESOURCE}"
    on_each(nodes, lambda node: bring_up(node, nodes, create, fencing))
    on_each(nodes, wait_connected)
    first = nodes[0]
    first.run(f"drbdadm new-current-uuid --clear-bitmap {RESOURCE}/0")
    on_each(nodes, promote)
    on_each(nodes, mount)


def rejoin(node: Node, nodes: Sequence[Node], fencing: Fencing | None = None) -> None:
    """Bring a freshly booted node back to a cluster that went on without it. Raises LabError, CommandFailed.

    It is promoted only when its own disk is in sync again, as an administrator would do it by hand.
    """
    bring_up(node, nodes, f"drbdadm up {RESOURCE}", fencing)
    wait_connected(node)
    node.run("until grep -q 'ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done", _RESYNC_SECONDS)
    promote(node)
    mount(node)


def leave_unformed(nodes: Sequence[Node], fencing: Fencing | None = None) -> None:
    """Leave freshly booted nodes with disks of make_disks() as an administrator does who has made both disks and written
    the configuration: two equal copies that DRBD calls UpToDate, and nothing up, loaded or mounted that can be absent.
    """
    on_each(nodes, lambda node: configure(node, nodes, fencing))
    create = f"drbdadm create-md --force {RESOURCE} && drbdadm up {RESOURCE} && drbdadm wait-connect {RESOURCE}"
    on_each(nodes, lambda node: node.run(f"({create}) >/run/drbd/up.log 2>&1 || {{ cat /run/drbd/up.log; exit 1; }}"))
    nodes[0].run(f"drbdadm new-current-uuid --clear-bitmap {RESOURCE}/0")
    on_each(nodes, lambda node: node.run(f"drbdadm down {RESOURCE}"))


def configure(node: Node, nodes: Sequence[Node], fencing: Fencing | None = None) -> None:
    """Write a node's configuration files, which a reboot of it forgets."""
    files = _files(node, nodes, fencing)
    for path, content in files.items():
        staged = node.share / path.strip("/").replace("/", "_")
        staged.write_text(content)
    copies = "\n".join(f"install -D -m 0644 /run/lab/{path.strip('/').replace('/', '_')} {path}" for path in files)
    node.run(f"set -e\n{copies}\nmkdir -p /var/lib/drbd /run/drbd")


def check(nodes: Sequence[Node]) -> None:
    """Take the file system, which nobody may use any more, down on both nodes and check all of it.

    Raises CommandFailed, or LabError with what fsck.ocfs2 found.
    """
    on_each(nodes, lambda node: node.run(f"umount {MOUNT_POINT}"))
    for node in nodes:
        node.kill()
        _host("fsck.ocfs2", "-f", "-n", str(node.disk))


def mount(node: Node) -> None:
    """Mount the file system on the storage's path; takes about 8 s, while the disk heartbeat becomes steady."""
    node.run(f"mkdir -p {MOUNT_POINT} && mount -t ocfs2 -o {_MOUNT_OPTIONS} /dev/drbd0 {MOUNT_POINT}", _MOUNT_SECONDS)


def bring_up(node: Node, nodes: Sequence[Node], drbd_up: str, fencing: Fencing | None = None) -> None:
    """Configuration files, o2cb, and DRBD by the command ``drbd_up``, which connects as soon as the peer does.

    DRBD's events go to a file on the host, so that they outlive the node.
    """
    configure(node, nodes, fencing)
    node.run(
        f"""set -e
({drbd_up}) >/run/drbd/up.log 2>&1 || {{ cat /run/drbd/up.log; exit 1; }} &
if ! mountpoint -q /dlm; then
    mount -t configfs configfs /sys/kernel/config
    echo o2cb >/sys/fs/ocfs2/cluster_stack
    mkdir -p /dlm && mount -t ocfs2_dlmfs ocfs2_dlmfs /dlm
    o2cb register-cluster {CLUSTER}
    . /etc/default/o2cb
    cd /sys/kernel/config/cluster/{CLUSTER}
    echo $O2CB_HEARTBEAT_THRESHOLD >heartbeat/dead_threshold
    echo $O2CB_IDLE_TIMEOUT_MS >idle_timeout_ms
    echo $O2CB_KEEPALIVE_DELAY_MS >keepalive_delay_ms
    echo $O2CB_RECONNECT_DELAY_MS >reconnect_delay_ms
    drbdsetup events2 --statistics --timestamps >>{GUEST_SHARE}/{EVENTS} 2>&1 &
fi
wait %1
"""
    )


def wait_connected(node: Node) -> None:
    node.run(f"drbdadm wait-connect {RESOURCE}")


def wait_whole(nodes: Sequence[Node], seconds: float = 120) -> None:
    """Until each of them calls the mirror connected and both copies UpToDate: the two ends of a resync end it one after the other."""
    until = "until grep -q 'cs:Connected .*ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.1; done"
    on_each(nodes, lambda node: node.run(until, seconds))


def promote(node: Node) -> None:
    """Become primary: two nodes that do so in the same moment can refuse one another, so it is tried again."""
    deadline = time.monotonic() + 20
    while True:
        result = node.sh(f"drbdadm primary {RESOURCE}")
        if result.rc == 0:
            return
        if time.monotonic() > deadline:
            raise LabError(f"node {node.name} cannot become primary: {result.out}")
        time.sleep(0.2)


def _files(node: Node, nodes: Sequence[Node], fencing: Fencing | None) -> dict[str, str]:
    """The configuration of a node: path -> content."""
    fenced = "fencing resource-and-stonith; " if fencing else ""
    # Whether the notes' handler is there or not, a resync must go on.
    noting = " ".join(f'before-resync-{side} "{NOTE}-{side} || true";' for side in ("source", "target"))
    handlers = f"  handlers {{ {f'fence-peer {fencing.handler}; ' if fencing else ''}{noting} }}\n"
    # With fencing a lost peer is noticed within 2 x ping-int + ping-timeout = 7 s, in time for what is decided then.
    ping_interval = 3 if fencing else 5
    hosts = "\n".join(
        f"  on node{other.name} {{ device /dev/drbd0; disk {other.backend.disk_device}; "
        f"address {other.address}:{DRBD_PORT}; meta-disk internal; }}"
        for other in nodes
    )
    o2cb_nodes = "".join(
        f"node:\n\tname = node{other.name}\n\tcluster = {CLUSTER}\n\tnumber = {index}\n"
        f"\tip_address = {other.address}\n\tip_port = {O2NET_PORT}\n"
        for index, other in enumerate(nodes)
    )
    return {
        "/etc/drbd.d/global_common.conf": "global { usage-count no; }\ncommon { }\n",
        f"/etc/drbd.d/{RESOURCE}.res": f"""resource {RESOURCE} {{
  protocol C;
  net {{
    allow-two-primaries yes;
    after-sb-0pri disconnect; after-sb-1pri disconnect; after-sb-2pri disconnect; rr-conflict disconnect;
    ping-int {ping_interval}; ping-timeout 10; connect-int 1; timeout 40; verify-alg crc32c;
  }}
{handlers}  disk {{ {fenced}on-io-error detach; resync-rate 200M; c-plan-ahead 0; }}
{hosts}
}}
""",
        "/etc/ocfs2/cluster.conf": f"{o2cb_nodes}cluster:\n\tname = {CLUSTER}\n\theartbeat_mode = local\n"
        f"\tnode_count = {len(nodes)}\n",
        "/etc/default/o2cb": f"O2CB_ENABLED=true\nO2CB_BOOTCLUSTER={CLUSTER}\nO2CB_HEARTBEAT_THRESHOLD=31\n"
        "O2CB_IDLE_TIMEOUT_MS=30000\nO2CB_KEEPALIVE_DELAY_MS=2000\nO2CB_RECONNECT_DELAY_MS=2000\n",
        "/etc/pve/storage.cfg": f"drbdocfs2: {STORAGE}\n\tpath {MOUNT_POINT}\n\tdrbdocfs2-resource {RESOURCE}\n"
        "\tcontent images,rootdir\n",
    }


def _host(*argv: str) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is missing: install the packages of tests/lab/packages.txt") from error
    if done.returncode != 0:
        raise LabError(f"{Path(argv[0]).name} failed: {done.stderr or done.stdout}")
