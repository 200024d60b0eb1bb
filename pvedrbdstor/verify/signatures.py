"""What a disk or a partition of a guest holds, by the signatures that libblkid knows them by. Pure but for the reads
it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pvedrbdstor.verify.labels import label

Read = Callable[[int, int], bytes]
"""Bytes of what is looked at: from where, how many; fewer at its end."""

_PAGES = (
    4096,
    8192,
    16384,
    32768,
    65536,
)  # of the guest's processor, at the end of whose first page swap says what it is
_HEAD = 1 << 17  # ZFS has its first uberblocks behind it
_RUNNING = (b"SWAPSPACE2", b"SWAP-SPACE")
_HIBERNATED = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")
"""libblkid, superblocks/swap.c: what the guest writes there instead while it sleeps on its disk."""


@dataclass(frozen=True, slots=True)
class Signature:
    """kind: in libblkid's words. label: fit to be shown. hibernated: swap that has a guest's memory, to be read when
    it wakes."""

    kind: str
    label: str = ""
    hibernated: bool = False

    def __str__(self) -> str:
        return f'{self.kind} "{self.label}"' if self.label else self.kind


def probe(read: Read) -> Signature | None:
    """What begins at 0; None where nothing is known. Raises what `read` raises."""
    head = read(0, _HEAD)
    return _swap(head) or _of_linux(head) or _of_others(head) or _container(head)


def _swap(head: bytes) -> Signature | None:
    for page in _PAGES:
        magic = head[page - 10 : page]
        if magic in _RUNNING:
            return Signature("swap", label(head[1052:1068]) if magic == _RUNNING[0] else "")
        if magic.startswith(_HIBERNATED):
            return Signature("swap", label(head[1052:1068]), hibernated=True)
    return None


def _of_linux(head: bytes) -> Signature | None:
    if head[1080:1082] == b"\x53\xef":
        return Signature(_extended(head), label(head[1144:1160]))
    if head.startswith(b"XFSB"):
        return Signature("xfs", label(head[108:120]))
    if head[65600:65608] == b"_BHRfS_M":
        return Signature("btrfs", label(head[65536 + 0x12B : 65536 + 0x12B + 256]))
    if head[1024:1028] == b"\x10\x20\xf5\xf2":
        return Signature("f2fs", label(head[1024 + 124 : 1024 + 124 + 128], "utf-16-le"))
    if head[65588:65597] in (b"ReIsErFs\0", b"ReIsEr2Fs", b"ReIsEr3Fs"):
        return Signature("reiserfs", label(head[65536 + 100 : 65536 + 116]))
    if head[32768:32772] == b"JFS1":
        return Signature("jfs", label(head[32768 + 152 : 32768 + 168]))
    if head.startswith(b"hsqs"):
        return Signature("squashfs")
    if head[4120:4136] in (
        bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"),
        bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"),
    ):
        return Signature("bcache")
    return next((Signature("ocfs2") for block in (512, 1024, 2048, 4096) if head[2 * block :][:6] == b"OCFSV2"), None)


def _extended(head: bytes) -> str:
    """ext2, ext3 or ext4, as libblkid tells them apart: by the journal, and by features that only the last has."""
    compatible = int.from_bytes(head[1116:1120], "little")
    incompatible = int.from_bytes(head[1120:1124], "little")
    read_only = int.from_bytes(head[1124:1128], "little")
    if incompatible & 0x8:
        return "jbd"
    if incompatible & ~0x16 or read_only & ~0x7:  # FILETYPE, RECOVER, META_BG; SPARSE_SUPER, LARGE_FILE, BTREE_DIR
        return "ext4"
    return "ext3" if compatible & 0x4 else "ext2"


def _of_others(head: bytes) -> Signature | None:
    if head[3:11] == b"NTFS    ":
        return Signature("ntfs")
    if head[3:11] == b"EXFAT   ":
        return Signature("exfat")
    if head[3:7] == b"ReFS":
        return Signature("refs")
    if head[510:512] == b"\x55\xaa" and head[:1] in (b"\xeb", b"\xe9"):
        if head[82:87] == b"FAT32":
            return Signature("vfat", _fat_label(head[71:82]))
        if head[54:57] == b"FAT":
            return Signature("vfat", _fat_label(head[43:54]))
    if head[1024:1026] in (b"H+", b"HX"):
        return Signature("hfsplus")
    if head[32:36] == b"NXSB":
        return Signature("apfs")
    if head[32769:32774] == b"CD001":
        return Signature("iso9660", label(head[32808:32840]))
    if b"\x19\x54\x01\x19" in (
        head[8192 + 1372 : 8192 + 1376],
        head[65536 + 1372 : 65536 + 1376],
    ) or b"\x19\x01\x54\x19" in (
        head[8192 + 1372 : 8192 + 1376],
        head[65536 + 1372 : 65536 + 1376],
    ):
        return Signature("ufs")
    return None


def _fat_label(raw: bytes) -> str:
    return "" if raw == b"NO NAME    " else label(raw, "cp437")


def _container(head: bytes) -> Signature | None:
    """What holds others: their inside is not looked into."""
    if head.startswith((b"LUKS\xba\xbe", b"SKUL\xba\xbe")):
        return Signature("crypto_LUKS")
    if head[3:11] == b"-FVE-FS-":
        return Signature("BitLocker")
    if any(head[at : at + 8] == b"LABELONE" for at in range(0, 2048, 512)):
        return Signature("LVM2_member")
    if b"\xfc\x4e\x2b\xa9" in (head[0:4], head[4096:4100]):
        return Signature("linux_raid_member")
    # the nvlist of ZFS's first label (vdev_phys_t) is XDR, and begins with the version's name
    if b"\0\0\0\x07version\0" in head[16384:20480]:
        return Signature("zfs_member")
    if head.startswith(b"bluestore block device"):
        return Signature("ceph_bluestore")
    return None
