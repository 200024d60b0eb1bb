"""Healthy pairs that are broken in one way each, with what has to be found in them."""

from __future__ import annotations

from dataclasses import replace

from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Severity
from tests.doctor.breaking import (
    APART,
    DIVERGED,
    DUMP,
    FILLED,
    KERNEL_NODES,
    KERNEL_SHORT,
    KERNELS,
    OLD,
    PROC,
    SHOW,
    E,
    H,
    W,
    bridge,
    clock,
    drbd_9,
    fw,
    guard,
    image,
    images,
    kernel,
    silent,
    superblock,
    unit,
    unlucky,
    unread,
    verdict,
    version,
    with_disk_option,
    write_path,
)
from tests.doctor.world import (
    CONF,
    DEFAULTS,
    GIB,
    HA,
    MOUNT,
    NOW,
    addresses,
    broken,
    drive,
    healthy,
    node,
    over,
)

# the finding and its severity; the pair that has it; the nodes it names
TABLE: list[tuple[str, Severity, Look, str]] = [
    ("unread", W, unread(), "a"),
    ("node-silent", W, silent(), ""),
    ("versions-differ", W, version(), "ab"),
    ("storage-unusable", E, replace(healthy(), unusable={"bad": "the property 'path' is missing"}), ""),
    ("check-broke", W, unlucky(healthy(), "units"), "a"),
    *[
        (f"mirror-{kind}", E, broken(verdict(kind)), "a")
        for kind in (
            "unknown",
            "split-brain",
            "inconsistent",
            "stale",
            "suspended",
            "read-only",
            "not-up",
            "unprotected",
        )
    ],
    ("mirror-unprotected", E, broken(verdict("unprotected"), on="ab"), "ab"),
    ("mirror-degraded", W, broken(verdict("degraded", "warning")), "a"),
    ("guard-handicap", W, broken(guard(handicap="it has just begun")), "a"),
    ("guard-old", H, broken(guard(version="0.0.9")), "a"),
    (
        "drbd-config-differs",
        E,
        broken({"dump": DUMP.replace("ping-int           5", "ping-int           9")}, on="b"),
        "ab",
    ),
    ("drbd-undefined", E, broken({"dump": "common { }\n"}, on="b"), "b"),
    (
        "drbd-config-not-in-force",
        W,
        broken(
            {
                "adjust": {
                    "r0": "drbdsetup-84 net-options ipv4:10.77.0.1:7789 ipv4:10.77.0.2:7789 --set-defaults --ping-int=5\n"
                }
            }
        ),
        "a",
    ),
    (
        "o2cb-conf-differs",
        E,
        broken({"cluster_conf": CONF.replace("7777", "7778"), "o2cb_kernel": {"pve": {}}}, on="b"),
        "ab",
    ),
    ("o2cb-conf-broken", E, broken({"cluster_conf": CONF.replace("node_count = 2", "node_count = 3")}, on="ab"), "a"),
    ("o2cb-conf-not-in-force", W, broken({"o2cb_kernel": KERNEL_NODES}), "a"),
    ("o2cb-timeouts-differ", E, broken({"o2cb_kernel": KERNEL_SHORT, "o2cb_defaults": None}, on="b"), "ab"),
    ("o2cb-timeouts-not-in-force", W, broken({"o2cb_defaults": DEFAULTS.replace("31", "61")}, on="b"), "b"),
    ("drbd-protocol", E, broken({"show": SHOW.replace("    net {", "    net {\n        protocol A;")}), "a"),
    ("drbd-no-verify-alg", H, broken({"show": SHOW.replace('verify-alg      \t"crc32c";', "")}), "a"),
    ("drbd-flushes-off", W, broken(with_disk_option("md-flushes no")), "a"),
    ("drbd-al-extents", H, broken(with_disk_option("al-extents 67")), "a"),
    ("drbd-resync-slow", W, broken({"show": SHOW.replace("204800k", "100k")}), "a"),
    ("mount-coherency", W, broken({"mountinfo": MOUNT.replace("coherency=full", "coherency=buffered")}), "a"),
    ("mount-writeback", W, broken({"mountinfo": MOUNT.replace("data=ordered", "data=writeback")}), "a"),
    ("mount-errors", W, broken({"mountinfo": MOUNT.replace("errors=remount-ro", "errors=panic")}), "a"),
    ("mount-point-mutable", W, broken({"folder:ha": {**FILLED, "count": 0}}), "a"),
    ("mount-point-filled", W, broken({"folder:ha": FILLED}), "a"),
    ("vendor-unmasked", E, broken({"vendor": {"ocfs2.service": "FREE"}}), "a"),
    ("vendor-replaced", H, broken({"vendor": {"ocfs2.service": "REPLACED"}}), "a"),
    ("kernel-no-module", W, broken(kernel("6.14.8-2-pve", missing=["drbd"])), "a"),
    ("kernel-no-module", H, broken(kernel("5.15.1-1-pve", missing=["ocfs2"])), "a"),
    ("kernel-no-module", E, broken({"kernels": [{**KERNELS[0], "missing": ["ocfs2"]}]}), "a"),
    ("kernel-no-module", E, broken(kernel("5.15.1-1-pve", missing=["ocfs2"], pinned=True)), "a"),
    ("kernel-no-module", H, broken(kernel("6.14.8-2-pve", {"pinned": True}, missing=["ocfs2"])), "a"),
    ("kernel-drbd-generation", W, broken(kernel("6.14.8-2-pve", drbd="9.2.14")), "a"),
    ("kernel-drbd-generation", W, broken({"kernels": [{**KERNELS[0], "drbd_on_disk": "9.2.14"}]}), "a"),
    ("kernel-drbd-generation", H, broken(kernel("6.14.8-2-pve", {"pinned": True}, drbd="9.2.14")), "a"),
    (
        "drbd-generations-differ",
        W,
        broken({"kernels": [{**KERNELS[0], "drbd": "9.2.14", "drbd_on_disk": "9.2.14"}]}, on="b"),
        "ab",
    ),
    ("fault-ocfs2-fallocate", E, broken({"release": "5.10.70-1-pve #1"}), "a"),
    (
        "fault-ocfs2-credits",
        W,
        broken({"release": "6.8.12-9-pve #1"}, on="ab", storage=replace(HA, preallocation="falloc")),
        "ab",
    ),
    ("fault-drbd-lost-quorum", W, drbd_9(), "a"),
    ("ocfs2-slots", E, broken(superblock(slots=1)), ""),
    (
        "ocfs2-features",
        W,
        broken(
            superblock(
                features=["xattr", "sparse", "unwritten", "discontig-bg", "indexed-dirs", "metaecc", "backup-super"]
            )
        ),
        "",
    ),
    (
        "ocfs2-features",
        H,
        broken(
            superblock(
                features=["refcount", "xattr", "sparse", "unwritten", "discontig-bg", "indexed-dirs", "backup-super"]
            )
        ),
        "",
    ),
    ("ocfs2-small-clusters", H, broken(superblock(cluster_size=4096)), ""),
    ("ocfs2-journal", H, broken(superblock(journals=[16 << 20, 256 << 20])), ""),
    ("ocfs2-full", W, broken(superblock(free=5 * GIB)), ""),
    ("ocfs2-full", E, broken(superblock(free=GIB)), ""),
    ("ocfs2-scattered", H, broken(superblock(largest_free=1 << 20)), ""),
    ("ocfs2-map-unread", H, broken(superblock(largest_free=1 << 20, map_read=False)), ""),
    ("ocfs2-map-unread", W, broken(superblock(problem="block 7 is no inode")), ""),
    ("verify-diverged", E, broken({"verify:ha": DIVERGED}), ""),
    (
        "verify-failed",
        W,
        broken({"verify:ha": {"verdict": "could not check", "ended": NOW, "reason": "nodeb is Diskless"}}),
        "",
    ),
    ("verify-never", H, broken({"verify:ha": None}), ""),
    ("verify-old", H, broken({"verify:ha": OLD}), ""),
    ("write-path-failed", E, broken(write_path(writes="1 of 256 writes of nodea were lost")), ""),
    ("write-path-failed", E, broken(write_path(modes="io_uring/writeback", safer="threads/writeback"), on="b"), ""),
    ("write-path-failed", W, broken(write_path(modes="threads/none", safer="io_uring/writeback")), ""),
    ("metadata-backup-none", H, broken({"metadata:ha": None}), "a"),
    ("metadata-backup-old", H, broken({"metadata:ha": {"at": NOW - 40 * 86400}}, on="ab"), "ab"),
    ("metadata-backup-damaged", W, broken({"metadata:ha": {"damaged": ["map.jsonl.gz has another length"]}}), "a"),
    ("network-mtu-differs", W, broken({"addresses": addresses("10.77.0.2", 9000)}, on="b"), "ab"),
    ("network-shared", H, broken({"addresses": bridge()}), "a"),
    ("network-slow", W, broken({"speeds": {"eth1": "100"}}), "a"),
    ("clock-skew", W, clock(-4), "ab"),
    ("clock-skew", W, clock(4), "ab"),
    ("volume-missing", E, broken(images(images=[])), ""),
    (
        "volume-orphaned",
        H,
        broken(images(images=[image(100, "vm-100-disk-0.raw"), image(999, "vm-999-disk-0.raw")])),
        "",
    ),
    (
        "volume-unreferenced",
        H,
        broken(images(images=[image(100, "vm-100-disk-0.raw"), image(100, "vm-100-disk-1.raw")])),
        "",
    ),
    ("volume-interrupted", W, broken(images(interrupted=1)), ""),
    ("volume-fragmented", H, broken(images(pieces={"100/vm-100-disk-0.raw": 9000})), ""),
    ("volume-unlooked", H, broken(images(not_looked_at=3)), ""),
    ("volume-foreign", H, broken(images(foreign={"count": 1, "first": ["images/100/note"]})), ""),
    (
        "volume-foreign",
        H,
        broken(images(lone={"count": 1, "first": ["images/100/.snapshots/vm-100-disk-7.raw/one.raw"]})),
        "",
    ),
    ("guest-cache-unsafe", W, broken({"guests:ha": {"drives": [drive(cache="unsafe")]}}), ""),
    ("guest-aio-native", W, broken({"guests:ha": {"drives": [drive(cache="writeback", aio="native")]}}), ""),
    ("guest-flushes-lost", H, broken({"guests:ha": {"drives": [drive()]}}), ""),
    (
        "guest-full-errors",
        H,
        broken({"guests:ha": {"drives": [drive()]}, **images(images=[{**image(100, "vm-100-disk-0.raw"), "used": 0}])}),
        "",
    ),
    ("firewall-closed", W, broken(fw("")), "a"),
    ("firewall-closed", H, broken(fw("IN ACCEPT -source +who -p tcp")), "a"),
    (
        "drbd-port-blocked",
        E,
        Look(*(lambda a, b: (a, (b,)))(*(over(node(letter), APART) for letter in "ab")), {}, (HA,)),
        "",
    ),
    ("network-slower-than-disk", H, broken({"speeds": {"eth1": "1000"}}), "ab"),
    ("drbd-write-ordering", W, broken({"proc_drbd": PROC.replace("wo:f", "wo:d")}), "a"),
    ("unit-failed", W, broken(unit("pvedrbdstor-verify@ha.service", ActiveState="failed"), on="b"), "b"),
    ("unit-off", W, broken(unit("pvedrbdstor-boot.service", UnitFileState="disabled")), "a"),
    ("fsck-missing", W, broken({"fsck": None}), "a"),
    (
        "fsck-cannot-replay",
        W,
        broken(superblock(journal_features=[{"incompat": 1, "ro_compat": 0}, {"incompat": 5, "ro_compat": 0}])),
        "",
    ),
]


IMPLIED: dict[str, set[str]] = {"verify-failed": {"verify-never"}, "guest-full-errors": {"guest-flushes-lost"}}
"""What comes with another finding, as both are true."""
