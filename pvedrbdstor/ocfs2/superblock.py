"""The superblock of an OCFS2 file system: struct ocfs2_dinode and struct ocfs2_super_block of fs/ocfs2/ocfs2_fs.h."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.errors import NotOcfs2
from pvedrbdstor.ocfs2 import constants

READ_SIZE = (constants.SUPER_BLOCK_NUMBER + 1) * constants.BLOCK_SIZES[-1]
"""Bytes from the start of the device in which the superblock lies, whatever the block size."""

_I_CLUSTERS = struct.Struct("<I")
_I_CLUSTERS_AT = 0x14
_I_BLKNO = struct.Struct("<Q")
_I_BLKNO_AT = 0x50
_SUPER = struct.Struct("<HHHHHHIQIIIIQQIIHHIQ64s16s4sI16s")
_SUPER_AT = 0xC0


@dataclass(frozen=True, slots=True)
class Superblock:
    """uuid: 32 upper case hex digits. Sizes in bytes. slots: nodes that can mount it at once.

    stack, cluster: the cluster stack (o2cb, pcmk) and cluster name written into it, empty without `clusterinfo`.
    features: in the words of mkfs.ocfs2 --fs-features; a bit without a word here is 'unknown-...'.
    system_dir, first_group: numbers of the blocks with the system folder's inode and with the first group of clusters.
    """

    label: str
    uuid: str
    block_size: int
    cluster_size: int
    size: int
    slots: int
    features: frozenset[str]
    stack: str
    cluster: str
    system_dir: int = 0
    first_group: int = 0

    @property
    def can_reflink(self) -> bool:
        return "refcount" in self.features

    @property
    def local(self) -> bool:
        """Made for one node only (mkfs.ocfs2 -M local): its locks do not reach the other."""
        return "local" in self.features


def parse_superblock(data: bytes, device: str = "device") -> Superblock:
    """The superblock in the first READ_SIZE bytes of a device, which `device` names in errors. Raises NotOcfs2."""
    for block_size in constants.BLOCK_SIZES:
        block = data[constants.SUPER_BLOCK_NUMBER * block_size :][:block_size]
        if block.startswith(constants.SUPER_SIGNATURE + b"\0") and len(block) == block_size:
            return _parse_block(block, device)
    raise NotOcfs2(device=device, detail="it has no superblock of OCFS2")


def _parse_block(block: bytes, device: str) -> Superblock:
    (clusters,) = _I_CLUSTERS.unpack_from(block, _I_CLUSTERS_AT)
    (own_number,) = _I_BLKNO.unpack_from(block, _I_BLKNO_AT)
    if own_number != constants.SUPER_BLOCK_NUMBER:
        raise NotOcfs2(device=device, detail=f"its superblock claims to be block {own_number}")
    fields = _SUPER.unpack_from(block, _SUPER_AT)
    compat, incompat, ro_compat = fields[9:12]
    block_bits, cluster_bits, slots = fields[14:17]
    system_dir, first_group = fields[13], fields[19]
    label, uuid, stack, _, cluster = fields[20:25]
    if block_bits > 12 or 1 << block_bits != len(block):
        raise NotOcfs2(device=device, detail=f"its superblock claims blocks of 2^{block_bits} bytes")
    if cluster_bits > 20 or 1 << cluster_bits not in constants.CLUSTER_SIZES:
        raise NotOcfs2(device=device, detail=f"its superblock claims clusters of 2^{cluster_bits} bytes")
    features = (
        _features(compat, constants.FEATURES_COMPAT, "compat")
        | _features(incompat, constants.FEATURES_INCOMPAT, "incompat")
        | _features(ro_compat, constants.FEATURES_RO_COMPAT, "ro-compat")
    )
    has_cluster = bool(features & {"clusterinfo", "userspace-stack"})
    return Superblock(
        label=_text(label),
        uuid=uuid.hex().upper(),
        block_size=1 << block_bits,
        cluster_size=1 << cluster_bits,
        size=clusters << cluster_bits,
        slots=slots,
        features=features,
        stack=_text(stack) if has_cluster else "",
        cluster=_text(cluster) if has_cluster else "",
        system_dir=system_dir,
        first_group=first_group,
    )


def _features(bits: int, words: Mapping[int, str], kind: str) -> frozenset[str]:
    single = (1 << shift for shift in range(32) if bits >> shift & 1)
    return frozenset(words.get(bit, f"unknown-{kind}-0x{bit:x}") for bit in single)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
