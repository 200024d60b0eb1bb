"""Known faults of the kernel's OCFS2 and of DRBD that this node may have, with what helps and where they are described.

Only the mainline release that mended a fault, and some of the stable ones, are known for certain. A distribution may have taken the fix over into an
older one: then its changelog has the commit, and the finding says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.drbd.config import parse_show

_COMMIT = "https://git.kernel.org/linus/"


@dataclass(frozen=True, slots=True)
class KernelFault:
    """mended: the first mainline release, (major, minor), without it. stable: (major, minor) of an older series -> its first release without it.
    commits: that mended it. only: of storages whose `preallocation` is one of these, empty meaning all."""

    entry: Entry
    mended: tuple[int, int]
    commits: tuple[str, ...]
    meaning: str
    remedy: str
    only: frozenset[str] = frozenset()
    stable: Mapping[tuple[int, int], int] = field(default_factory=dict)


KERNEL_FAULTS = (
    KernelFault(
        Entry(
            "fault-ocfs2-fallocate",
            (Severity.ERROR,),
            "a kernel before 5.15 may lose what qemu-img or a guest writes near the end of a file, or what a small file had",
            f"{_COMMIT}9449ad33be84",
        ),
        (5, 15),
        ("6bba4471f0cc", "9449ad33be84", "5314454ea3ff"),
        "With O_DIRECT, punched holes and preallocation, images were corrupted at their ends; a small file lost data when it outgrew its inode.",
        "Boot a newer kernel: 'apt update', 'apt full-upgrade', then reboot one node after the other",
    ),
    KernelFault(
        Entry(
            "fault-ocfs2-credits",
            (Severity.WARNING,),
            "a kernel before 7.1 may abort OCFS2's journal when a guest writes with O_DIRECT into preallocated space",
            "https://lkml.iu.edu/2603.3/07891.html",
        ),
        (7, 1),
        ("d647c5b2",),
        "Preallocated images consist of unwritten extents, of which one large write may need more of the journal at once than there is: 'JBD2: ... wants "
        "too many credits', after which the file system fails.",
        "Have new images made sparse: 'pvesm set {storage} --preallocation off'; those made before stay as they are until they are written or copied",
        frozenset({"falloc", "full"}),
        # 6.1 by Debian's changelog of 6.1.176-1, the others by the announcements of stable releases
        {(5, 15): 209, (6, 1): 175, (6, 12): 86},
    ),
)
LOST_QUORUM = Entry(
    "fault-drbd-lost-quorum",
    (Severity.WARNING,),
    "DRBD 9 with `quorum` may call a node that comes back UpToDate without a resync",
    "https://github.com/LINBIT/drbd/issues/145",
)
ENTRIES = (*(fault.entry for fault in KERNEL_FAULTS), LOST_QUORUM)
_RELEASE = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?:\.([0-9]{1,4}))?")
_DEBIAN = re.compile(r"\bDebian ([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,4})-")
"""In uname(2)'s version: the stable release, which Debian's `6.1.0-44-amd64` does not tell."""
_DRBD_9 = re.compile(r"version: 9\.")


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        text = node.text("release") or ""
        release = plain(text.partition(" ")[0], 80)
        debian = _DEBIAN.search(text)
        found = _RELEASE.match(debian[1] if debian else release)
        for fault in KERNEL_FAULTS if found is not None else ():
            assert found is not None
            if _has(fault, int(found[1]), int(found[2]), int(found[3] or 0), own=release.endswith("-pve")):
                yield from _kernel_fault(node, fault, release, look.storages)
        if _DRBD_9.match(node.text("proc_drbd") or ""):
            yield from _lost_quorum(node, look.storages)


def _has(fault: KernelFault, major: int, minor: int, patch: int, *, own: bool) -> bool:
    """own: it is Proxmox's, whose third number is not that of the stable series at its end."""
    since = None if own else fault.stable.get((major, minor))
    return (major, minor) < fault.mended and (since is None or patch < since)


def _kernel_fault(
    node: Node, fault: KernelFault, release: str, storages: tuple[StorageConfig, ...]
) -> Iterator[Finding]:
    for storage in storages:
        if fault.only and storage.preallocation not in fault.only:
            continue
        title = f"Kernel {release}: {fault.entry.finds}"
        stable = "".join(f", {major}.{minor}.{patch}" for (major, minor), patch in fault.stable.items())
        mended = f"{fault.mended[0]}.{fault.mended[1]}{stable}"
        since = f"Mended in Linux {mended} ({', '.join(fault.commits)}); whether another kernel has the fix its changelog tells."
        yield fault.entry.found(
            title,
            f"{fault.meaning} {since}",
            fault.remedy.format(storage=storage.id),
            nodes=(node.name,),
            storage=storage.id,
        )


def _lost_quorum(node: Node, storages: tuple[StorageConfig, ...]) -> Iterator[Finding]:
    """Reported of three nodes, one of them without a disk; no version is known that has it mended."""
    configs = parse_show(node.text("show") or "")
    for storage in storages:
        config = configs.get(storage.resource)
        if config is not None and config.quorum != "off" and len(config.nets) > 1:
            yield LOST_QUORUM.found(
                "DRBD 9 with quorum and a third node may not resync a node that comes back",
                "A node that lost its quorum while it was shut down may be called UpToDate without what was written meanwhile.",
                f"After each return of a node compare the copies: 'pvedrbdstor verify {storage.id}'",
                nodes=(node.name,),
                storage=storage.id,
            )
