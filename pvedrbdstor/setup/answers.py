"""What a setup cannot know: which disks, which network, what the storage is called, and which dangers are accepted. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WITHOUT_FENCING = "--without-fencing-risk-of-split-brain"
WITHOUT_THIRD_VOTE = "--without-third-vote-both-nodes-reset"
WIPE = "--wipe"


@dataclass(frozen=True, slots=True)
class Answers:
    """disks: node -> device, of exactly two nodes. network: the one that replicates, as 10.10.10.0/24; None where there is but one.

    uuid: of the file system to be made. lvm: a disk becomes a volume group with one logical volume in it; one that is a logical volume
    is used as it is. wipe: node -> device whose signatures may be destroyed. resource: None for the first free rN.
    """

    storage: str
    disks: Mapping[str, str]
    uuid: str
    network: str | None = None
    resource: str | None = None
    cluster: str = "pve"
    lvm: bool = True
    group: str = "mirror"
    content: str = "images,rootdir"
    wipe: Mapping[str, str] | None = None
    without_fencing: bool = False
    without_third_vote: bool = False

    @property
    def path(self) -> str:
        """Where it is mounted, as the dialog in Proxmox's web interface proposes it."""
        return f"/mnt/pve/{self.storage}"

    def may_wipe(self, node: str) -> bool:
        return (self.wipe or {}).get(node) == self.disks.get(node)
