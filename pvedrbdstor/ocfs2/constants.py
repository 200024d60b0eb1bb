"""Numbers of OCFS2, from the kernel's fs/ocfs2/ocfs2_fs.h."""

from __future__ import annotations

from pvedrbdstor.native import OCFS2_SUPER_MAGIC

SUPER_MAGIC = OCFS2_SUPER_MAGIC  # f_type of statfs(2)

SUPER_SIGNATURE = b"OCFSV2"
SUPER_BLOCK_NUMBER = 2
BLOCK_SIZES = (512, 1024, 2048, 4096)
CLUSTER_SIZES = tuple(1 << bits for bits in range(12, 21))

FEATURES_COMPAT = {0x1: "backup-super", 0x2: "strict-journal-super"}
FEATURES_INCOMPAT = {
    0x2: "heartbeat-device",
    0x4: "resize-in-progress",
    0x8: "local",
    0x10: "sparse",
    0x20: "tunefs-in-progress",
    0x40: "inline-data",
    0x80: "userspace-stack",
    0x100: "extended-slotmap",
    0x200: "xattr",
    0x400: "indexed-dirs",
    0x800: "metaecc",
    0x1000: "refcount",
    0x2000: "discontig-bg",
    0x4000: "clusterinfo",
    0x8000: "append-dio",
}
FEATURES_RO_COMPAT = {0x1: "unwritten", 0x2: "usrquota", 0x4: "grpquota"}
