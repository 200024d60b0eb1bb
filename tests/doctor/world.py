"""Two nodes that are well, out of the captures of a real cluster, and what a test breaks of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node
from pvedrbdstor.doctor.units import UNITS
from pvedrbdstor.verify.last import Check, Record, as_json
from tests.drbd.support import configfs_of, output_of

NOW = 1_800_000_000.0
HA = StorageConfig(id="ha", path="/mnt/o", resource="r0")
MOUNT = "33 24 147:0 / /mnt/o rw,noatime - ocfs2 /dev/drbd0 rw,_netdev,heartbeat=local,nointr,data=ordered,errors=remount-ro,coherency=full\n"
CONF = """node:
	name = nodea
	cluster = pve
	number = 0
	ip_address = 10.77.0.1
	ip_port = 7777
node:
	name = nodeb
	cluster = pve
	number = 1
	ip_address = 10.77.0.2
	ip_port = 7777
cluster:
	name = pve
	heartbeat_mode = local
	node_count = 2
"""
DEFAULTS = "O2CB_HEARTBEAT_THRESHOLD=31\nO2CB_IDLE_TIMEOUT_MS=30000\nO2CB_KEEPALIVE_DELAY_MS=2000\nO2CB_RECONNECT_DELAY_MS=2000\n"
FEATURES = [
    *("refcount", "xattr", "unwritten", "sparse", "inline-data", "indexed-dirs"),
    *("extended-slotmap", "discontig-bg", "metaecc", "backup-super"),
]
GIB = 1 << 30
UNIT = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
VERIFIED = as_json(
    Record(*(Check("sample", "nodea", "clean", NOW - 900, NOW - 600, compared=GIB, size=GIB) for _ in range(2)))
)


def addresses(address: str, mtu: int = 1500, **more: object) -> str:
    """As `ip -json -details address` prints them."""
    link = {"ifname": "eth1", "mtu": mtu, "addr_info": [{"family": "inet", "local": address}], **more}
    return json.dumps([{"ifname": "lo", "mtu": 65536, "addr_info": [{"family": "inet", "local": "127.0.0.1"}]}, link])


def node(letter: str, capture: str = "8.4/04-mounted-both", of: str | None = None) -> Node:
    """Node a looks, so that it knows images and guests, too. of: the node in the capture."""
    name = f"{capture}.{of or letter}.txt"
    values: dict[str, Any] = {
        "show": output_of(name, "drbdsetup show"),
        "dump": output_of(name, "drbdadm dump"),
        "adjust": {"r0": "\n"},
        "proc_drbd": output_of(name, "cat /proc/drbd"),
        "cluster_conf": CONF,
        "o2cb_defaults": DEFAULTS,
        "o2cb_kernel": {"pve": configfs_of(name)},
        "corosync_conf": None,
        "guard": None,
        "boot": 1000.0,
        "release": "6.1.176 #1",
        "kernels": [{"release": "6.1.176", "running": True, "missing": [], "drbd": "8.4.11", "drbd_on_disk": "8.4.11"}],
        "vendor": {"ocfs2.service": "OURS", "drbd.service": "FOREIGN"},
        "fsck": "fsck.ocfs2 1.8.7",
        "units": dict.fromkeys(UNITS, UNIT),
        "mountinfo": MOUNT,
        "addresses": addresses("10.77.0.1" if letter == "a" else "10.77.0.2"),
        "speeds": {"eth1": "10000"},
        "firewall": {"cluster": None, "host": None},
        "disk_speeds": {"r0": 500_000_000},
        "answers": {},
        "verdict:ha": {
            "kind": "healthy",
            "cause": "Both copies are up to date.",
            "remedy": "Nothing.",
            "severity": "ok",
        },
        "folder:ha": {"mounted": True},
        "superblock:ha": {
            "size": 100 * GIB,
            "block_size": 4096,
            "cluster_size": 1 << 20,
            "slots": 2,
            "features": FEATURES,
            "journals": [256 << 20, 256 << 20],
            "journal_features": [{"incompat": 1, "ro_compat": 0}] * 2,
            "free": 50 * GIB,
            "largest_free": 10 * GIB,
            "map_read": True,
        },
        "metadata:ha": {"path": f"/var/lib/pvedrbdstor/metadata/ha/node{letter}-1", "at": NOW - 600, "damaged": []},
        "verify:ha": VERIFIED if letter == "a" else None,
        "write_path:ha": None,
    }
    if letter == "a":
        values["volumes:ha"] = {
            "images": [{"vmid": 100, "name": "vm-100-disk-0.raw", "size": GIB, "used": GIB}],
            "interrupted": 0,
            "pieces": {"100/vm-100-disk-0.raw": 12},
            "not_looked_at": 0,
        }
        values["guests:ha"] = {
            "vmids": [100],
            "named": [{"vmid": 100, "kind": "VM", "key": "scsi0", "volume": "100/vm-100-disk-0.raw"}],
            "drives": [drive(cache="writeback")],
        }
        return Node("nodea", "0.1.0", NOW, values)
    return Node("nodeb", "0.1.0", NOW, values, asked=NOW - 0.5, heard=NOW + 0.5)


def drive(**options: str) -> dict[str, object]:
    words = {"cache": "none", "aio": "io_uring", **options}
    value = ",".join(["ha:100/vm-100-disk-0.raw", *(f"{key}={word}" for key, word in options.items())])
    return {"vmid": 100, "key": "scsi0", "value": value, **words, "pending": False}


def healthy() -> Look:
    return Look(node("a"), (node("b"),), {}, (HA,))


def broken(values: dict[str, object], *, on: str = "a", storage: StorageConfig = HA) -> Look:
    """The healthy pair with other values on one node, or on both (`ab`). A value that is a mapping is laid over the good one."""
    nodes = [over(each, values) if each.name[-1] in on else each for each in (node("a"), node("b"))]
    return Look(nodes[0], (nodes[1],), {}, (storage,))


def over(good: Node, values: dict[str, object]) -> Node:
    changed = dict(good.values)
    for source, value in values.items():
        old = changed.get(source)
        changed[source] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return replace(good, values=changed)
