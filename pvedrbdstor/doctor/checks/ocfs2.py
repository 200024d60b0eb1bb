"""The file system: its slots, features, journals, free space and whether that lies together."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.checks.o2cb import registered
from pvedrbdstor.doctor.facts import Look, Node, counted, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.mirror.bringup.plan_ocfs2 import offline
from pvedrbdstor.sizes import format_size

SLOTS = Entry("ocfs2-slots", (Severity.ERROR,), "OCFS2 has fewer slots than the cluster has nodes")
FEATURES = Entry(
    "ocfs2-features",
    (Severity.HINT, Severity.WARNING),
    "OCFS2 lacks features; those that snapshots and allocation need are a warning",
)
CLUSTERS = Entry(
    "ocfs2-small-clusters",
    (Severity.HINT,),
    "OCFS2 allocates in small clusters, which fragments images",
    "https://manpages.debian.org/bookworm/ocfs2-tools/mkfs.ocfs2.8.en.html",
)
JOURNAL = Entry("ocfs2-journal", (Severity.HINT,), "OCFS2's journals are small for the size of the volume")
FULL = Entry(
    "ocfs2-full", (Severity.WARNING, Severity.ERROR), "less than 10 % of the space is free; below 3 % it is an error"
)
SCATTERED = Entry(
    "ocfs2-scattered",
    (Severity.WARNING, Severity.HINT),
    "no larger piece of free space lies together: without `discontig-bg` writes may fail with 'No space left'",
    "https://oss.oracle.com/pipermail/ocfs2-users/2010-November/004809.html",
)
MAP = Entry(
    "ocfs2-map-unread",
    (Severity.WARNING, Severity.HINT),
    "the map of free space could not be read, or not to its end in time",
)
ENTRIES = (SLOTS, FEATURES, CLUSTERS, JOURNAL, FULL, SCATTERED, MAP)

_NEEDED = {
    "refcount": "snapshots and clones need it",
    "xattr": "snapshots are bound to their image by it",
    "sparse": "without it a new image takes its whole size at once",
    "unwritten": "without it preallocation writes zeroes",
    "discontig-bg": "without it 'No space left' comes while space is free but scattered",
}
_USEFUL = {
    "indexed-dirs": "folders with many files are faster",
    "metaecc": "damaged metadata is noticed",
    "backup-super": "a damaged superblock can be restored",
}
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_CLUSTER_MIN = 64 * _KIB
_JOURNAL_MIN, _LARGE = 64 * _MIB, 64 * _GIB
_TOGETHER = 16 * _MIB


def check(look: Look) -> Iterator[Finding]:
    """Of one node's words: both have the same file system."""
    for storage in look.storages:
        told = next((node for node in look.nodes if node.mapping(f"superblock:{storage.id}")), None)
        if told is not None:
            yield from _file_system(look, told, storage)


def _file_system(look: Look, node: Node, storage: StorageConfig) -> Iterator[Finding]:
    found = node.mapping(f"superblock:{storage.id}")
    size, slots = number(found.get("size")) or 0, number(found.get("slots"))
    device = _device(storage)
    members = max(
        len(look.nodes) + len(look.silent),
        *(len(kernel[1].nodes) for each in look.nodes if (kernel := registered(each))),
        0,
    )
    if slots is not None and slots < members:
        yield SLOTS.found(
            f"The file system has {counted(slots, 'slot')} for {members} nodes",
            "Each node that mounts it takes one: the last of them cannot.",
            offline(storage, f"'tunefs.ocfs2 -N {members} {device}'"),
            storage=storage.id,
        )
    yield from _features(found.get("features"), storage, device)
    cluster = number(found.get("cluster_size"))
    if cluster and cluster < _CLUSTER_MIN:
        yield CLUSTERS.found(
            f"The file system allocates in clusters of {format_size(cluster)}",
            "Images that grow by small writes are spread all over the disk; of spinning disks it was reported (ocfs2-devel, 2012) that nearly all of "
            "their speed was gone on a volume that was half full.",
            "Only a new file system has others. Make a second storage on other disks or logical volumes ('pvedrbdstor setup plan NAME'), and move the "
            "guests' disks to it with Proxmox's 'qm disk move'; this one and its images stay as they are",
            storage=storage.id,
        )
    journals = [length for length in _list(found.get("journals")) if (number(length) or 0) > 0]
    smallest = min((length for length in journals if isinstance(length, int)), default=None)
    if smallest is not None and smallest < _JOURNAL_MIN and size >= _LARGE:
        yield JOURNAL.found(
            f"The smallest journal has {format_size(smallest)}, for a volume of {format_size(size)}",
            "Many small changes at once, as of reflinks, wait for it.",
            offline(storage, f"'tunefs.ocfs2 -J size=256M {device}'"),
            storage=storage.id,
        )
    yield from _space(node, storage, size)


def _features(listed: object, storage: StorageConfig, device: str) -> Iterator[Finding]:
    features = {feature for feature in _list(listed) if isinstance(feature, str)}
    if not features:
        return
    for wanted, severity in ((_NEEDED, Severity.WARNING), (_USEFUL, Severity.HINT)):
        missing = [name for name in wanted if name not in features]
        if missing:
            yield FEATURES.found(
                f"The file system lacks {', '.join(missing)}",
                "; ".join(f"{name}: {wanted[name]}" for name in missing) + ".",
                offline(storage, f"'tunefs.ocfs2 --fs-features={','.join(missing)} {device}'"),
                storage=storage.id,
                severity=severity,
            )


def _space_of(storage: StorageConfig) -> str:
    """`pvesm list` knows neither snapshots nor what is shared."""
    return f"'pvedrbdstor space {storage.id} --sort frees'"


def _space(node: Node, storage: StorageConfig, size: int) -> Iterator[Finding]:
    found = node.mapping(f"superblock:{storage.id}")
    if problem := plain(found.get("problem")):
        check = f"'fsck.ocfs2 -f {_device(storage)}' (it asks before it changes anything)"
        yield MAP.found(
            f"The map of free space of '{storage.id}' does not add up on {node.name}'s disk",
            f"{problem[:1].upper()}{problem[1:]}. It may have been read while it was being changed.",
            f"Run 'pvedrbdstor doctor {storage.id}' again. If it is still told, the file system is damaged, and OCFS2 makes itself read-only when it comes "
            f"to that place: make a backup of its guests, then shut down what uses the storage. {offline(storage, check)}",
            storage=storage.id,
        )
    free, largest = number(found.get("free")), number(found.get("largest_free"))
    if free is None or largest is None or not size:
        return
    share = free / size
    if share < 0.10:
        yield FULL.found(
            f"{100 * share:.0f} % of '{storage.id}' is free, {format_size(free)} of {format_size(size)}",
            "When nothing is left, each guest that writes where its image has no space yet is paused, or sees a broken disk (with `cache=none`), all of them "
            "at the same time.",
            f"Free what nobody needs: {_space_of(storage)} says what deleting each image and each snapshot gives back. Delete them by "
            "Proxmox, old snapshots first. Or grow both disks, and on one node, while guests run, "
            f"'drbdadm resize {storage.resource}', then 'tunefs.ocfs2 -S {_device(storage)}' (docs/daily.md, \"More room\"). "
            "A guest that was paused goes on with 'qm resume VMID'",
            storage=storage.id,
            severity=Severity.ERROR if share < 0.03 else Severity.WARNING,
        )
    if problem:
        return
    if largest < min(_TOGETHER, free) and found.get("map_read") is True:
        needed = "discontig-bg" not in _list(found.get("features"))
        yield SCATTERED.found(
            f"The largest piece of free space has {format_size(largest)}, of {format_size(free)} that are free",
            "Allocation of inodes and extents needs pieces that lie together without the feature 'discontig-bg': 'No space left' may come at any moment."
            if needed
            else "What is written now is spread over many places.",
            f"Free large images or old snapshots ({_space_of(storage)}); move the most fragmented images away and back, with their guest off "
            "('qm disk move')" + (". The feature can be added: see what is told of missing features" if needed else ""),
            storage=storage.id,
            severity=Severity.WARNING if needed else Severity.HINT,
        )
    elif found.get("map_read") is False:
        yield MAP.found(
            f"The map of free space of '{storage.id}' was not read to its end in time",
            f"In the part that was read the largest piece has {format_size(largest)}.",
            "Nothing needs to be done; a quieter moment shows more",
            storage=storage.id,
            severity=Severity.HINT,
        )


def _device(storage: StorageConfig) -> str:
    return f"$(drbdadm sh-dev {storage.resource}/{storage.volume})"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
