"""What a place of an OCFS2 is that no file has: metadata, and whose, or free space. Reads the device, and nothing
else.

A mounted file system keeps changes in memory and in its journal for a while. Of the map of clusters two views are
taken, and a cluster is called free only where it is free in both: the disk as it is, to which the other node has
brought its changes before it let us look at the map (statfs(2) does, which takes the map's lock: ocfs2_statfs(),
ocfs2_check_meta_downconvert()), and this node's page cache of the device, where its own changes are. What a node
keeps for files to grow (local_alloc) and what it has freed but not given back yet (truncate_log) may be newer in its
memory than on the disk: a block there that looks like metadata is called metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.mirror.extents import Ranges, without
from pvedrbdstor.ocfs2 import bitmap, inodes
from pvedrbdstor.ocfs2.inodes import BadBlock, Inode
from pvedrbdstor.ocfs2.superblock import Superblock

Read = Callable[[int, int], bytes]
"""Bytes of the device: from where, how many (at most 64 KiB); fewer at its end."""

_GLOBAL_BITMAP = b"global_bitmap"
_BACKUPS = tuple(1 << 30 + 2 * index for index in range(6))  # ocfs2_backup_super_blkno(): 1 GiB, 4 GiB ... 1 TiB
_BLOCKS_MAX = 1 << 16
"""Blocks of one inode's list of extents that are read, and of one folder: more is a loop."""
_NAMES_MAX = 4096
_ORPHANS_MAX = 10_000
_LOOKED_AT_MAX = 4 << 20
"""Bytes of clusters in use by no file that are looked at, block by block; what is behind that is called metadata."""
_ORPHAN = re.compile(rb"[0-9a-f]{16}")  # OCFS2_ORPHAN_NAMELEN: the inode's number


class Kind(StrEnum):
    METADATA = "metadata"
    FREE = "free"
    KEPT = "kept"  # by a node, for files to grow
    FREED = "freed"  # by a removed file, not given back yet
    REMOVED = "removed"  # of a file that was removed while it is open, or is being removed
    OUTSIDE = "outside"  # behind the end of the file system
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Spot:
    """Bytes on the device, and what they are. what: of which part of the file system, empty where that is not known."""

    start: int
    length: int
    kind: Kind
    what: str = ""


class Space:
    """One file system. views: of the device, the first is the disk itself. remarks: what is not right in it. unread: why groups of in_use()
    could not be read. Raises OSError, BadBlock where even the system folder is broken."""

    def __init__(self, superblock: Superblock, views: Sequence[Read], wanted: Sequence[Range]) -> None:
        self._super = superblock
        self._views = views
        self._wanted = Ranges(merged(list(wanted)))
        self._looked_at = 0
        self.remarks: list[str] = []
        self.unread: list[OSError] = []
        self._system = dict(self._folder(self._inode(superblock.system_dir)))
        self._bitmap = self._inode(self._system[_GLOBAL_BITMAP]) if _GLOBAL_BITMAP in self._system else None
        if self._bitmap is None:
            raise BadBlock("the system folder has no global_bitmap")
        self._chains = inodes.chains(self._bitmap)
        self._named: list[Spot] = []
        self._other: list[Spot] = []
        self._look_at_system()

    @property
    def free(self) -> int:
        """Bytes that the map of clusters has free, by its own count."""
        return self._chains.free * self._super.cluster_size

    def size_of(self, name: str) -> int | None:
        """Bytes of a file of the system folder, such as `journal:0000`; None where there is none. Raises BadBlock, OSError."""
        number = self._system.get(name.encode("ascii"))
        return None if number is None else self._inode(number).size

    def start_of(self, name: str, length: int) -> bytes | None:
        """The first ``length`` bytes, a cluster at most, of a file of the system folder as the disk has them; None where it has none.
        Raises BadBlock, OSError."""
        number = self._system.get(name.encode("ascii"))
        records = () if number is None else self._records(self._inode(number))
        start = next((start for cluster, start, _ in records if cluster == 0), None)
        return None if start is None else self._views[0](start, length)

    def spots(self, ranges: Sequence[Range]) -> Iterator[Spot]:
        """What ranges are, in their order. The ranges are among those wanted."""
        for start, length in ranges:
            end = min(start + length, self._super.size)
            if start < end:
                yield from self._inside(start, end)
            if end < start + length:
                yield Spot(max(start, end), start + length - max(start, end), Kind.OUTSIDE)

    def in_use(self) -> Iterator[Range]:
        """What the map calls used, in order; all of a group that is not right, which is remarked on, or that cannot be read."""
        size, group = self._super.cluster_size, self._chains.group
        for first in range(0, self._super.size // size, group):
            try:
                found = list(self._group(first))
            except BadBlock as error:
                self.remarks.append(str(error))
                found = []
            except OSError as error:
                self.unread.append(error)
                found = []
            covered = first
            for cluster, length, used in found:
                covered = cluster + length
                if used:
                    yield cluster * size, length * size
            end = min(first + group, self._super.size // size)
            if covered < end:
                yield covered * size, (end - covered) * size

    def _inside(self, start: int, end: int) -> Iterator[Spot]:
        named = _cut(self._named, start, end)
        yield from named
        taken = Ranges(merged([(spot.start, spot.length) for spot in named]))
        for at, length in without(start, end - start, taken):
            yield from self._by_map(at, at + length)

    def _by_map(self, start: int, end: int) -> Iterator[Spot]:
        size = self._super.cluster_size
        at = start
        while at < end:
            first = at // size // self._chains.group * self._chains.group
            group_end = min(end, (first + self._chains.group) * size)
            try:
                found = list(self._group(first))
            except (BadBlock, OSError) as error:
                self.remarks.append(str(error))
                yield Spot(at, group_end - at, Kind.UNKNOWN)
                at = group_end
                continue
            for cluster, length, used in found:
                low, high = max(at, cluster * size), min(group_end, (cluster + length) * size)
                if low < high and used:
                    yield from self._used(low, high)
                elif low < high:
                    yield Spot(low, high - low, Kind.FREE)
            covered = (found[-1][0] + found[-1][1]) * size if found else at
            if covered < group_end:
                yield Spot(max(at, covered), group_end - max(at, covered), Kind.UNKNOWN)
            at = group_end

    def _used(self, start: int, end: int) -> Iterator[Spot]:
        """Of clusters that the map calls used and no file has."""
        other = _cut(self._other, start, end)
        for spot in other:
            yield from [spot] if spot.kind is Kind.REMOVED else self._looked_into(spot)
        taken = Ranges(merged([(spot.start, spot.length) for spot in other]))
        for at, length in without(start, end - start, taken):
            yield from self._looked_into(Spot(at, length, Kind.METADATA))

    def _looked_into(self, spot: Spot) -> Iterator[Spot]:
        """Block by block: metadata by its kind where it has one, else what it is thought to be; neighbours that are
        the same are one."""
        last: Spot | None = None
        for found in self._blocks_of(spot):
            if last is not None and (found.kind, found.what) == (last.kind, last.what):
                last = Spot(last.start, last.length + found.length, last.kind, last.what)
                continue
            if last is not None:
                yield last
            last = found
        if last is not None:
            yield last

    def _blocks_of(self, spot: Spot) -> Iterator[Spot]:
        block = self._super.block_size
        at = spot.start
        while at < spot.start + spot.length:
            next_at = min((at // block + 1) * block, spot.start + spot.length)
            self._looked_at += block
            if self._looked_at > _LOOKED_AT_MAX:
                yield Spot(at, spot.start + spot.length - at, Kind.METADATA, spot.what)
                return
            what = inodes.looks_like(self._block(at // block), at // block)
            yield Spot(
                at, next_at - at, spot.kind if what is None else Kind.METADATA, spot.what if what is None else what
            )
            at = next_at

    def _group(self, first: int) -> Iterator[tuple[int, int, bool]]:
        """(cluster, number, in use) of the runs in the group that begins with a cluster; in use by any of the views."""
        per_cluster = self._super.cluster_size // self._super.block_size
        number = bitmap.group_block(first, self._chains.group, self._super.first_group, per_cluster)
        assert self._bitmap is not None
        bits, used, problem = 0, 0, None
        for index in range(len(self._views)):
            try:
                found, _, in_use = bitmap.parse_group(
                    self._block(number, index), number, self._bitmap.number, self._bitmap.generation
                )
            except BadBlock as error:
                problem = error
                continue
            bits, used = max(bits, found), used | in_use
        if problem is not None:  # one good view of two is not enough to call anything free
            raise problem
        for at, length, in_use_ in bitmap.runs(used, 0, bits):
            yield first + at, length, in_use_

    def _look_at_system(self) -> None:
        block = self._super.block_size
        self._name(0, 3 * block, "the superblock")
        if "backup-super" in self._super.features:
            for at in _BACKUPS:
                self._name(at, block, "a copy of the superblock")
        orphan_folders = []
        for raw, number in list(self._system.items())[:_NAMES_MAX]:
            name = raw.decode("ascii", "replace")
            self._name(number * block, block, f"the inode of {name}")
            try:
                inode = self._inode(number)
                if inode.flags & inodes.LOCAL_ALLOC_FL:
                    self._keep(inode, name)
                elif inode.flags & inodes.DEALLOC_FL:
                    self._free_later(inode, name)
                elif not inode.flags & inodes.CHAIN_FL:
                    for at, length in self._extents(inode):
                        self._name(at, length, name)
                if name.startswith("orphan_dir"):
                    orphan_folders.append(inode)
            except (BadBlock, OSError) as error:
                self.remarks.append(f"{name}: {error}")
        self._remember_removed(orphan_folders)
        self._named.sort(key=lambda spot: spot.start)
        self._other.sort(key=lambda spot: spot.start)

    def _name(self, start: int, length: int, what: str) -> None:
        """Keep that for the part that somebody wants to know of."""
        for at, size in self._wanted.between(start, start + length):
            self._named.append(Spot(at, size, Kind.METADATA, what))

    def _keep(self, inode: Inode, name: str) -> None:
        window = inodes.local_window(inode)
        if window is not None:
            first, total, used = window
            for at, length, in_use in bitmap.runs(used, 0, total):
                if not in_use:
                    self._note(first + at, length, Kind.KEPT, name)

    def _free_later(self, inode: Inode, name: str) -> None:
        for first, length in inodes.freed_clusters(inode):
            self._note(first, length, Kind.FREED, name)

    def _note(self, cluster: int, clusters: int, kind: Kind, what: str) -> None:
        size = self._super.cluster_size
        for at, length in self._wanted.between(cluster * size, (cluster + clusters) * size):
            self._other.append(Spot(at, length, kind, what))

    def _remember_removed(self, folders: Sequence[Inode]) -> None:
        count = 0
        for folder in folders:
            try:
                for name, number in self._folder(folder):
                    count += 1
                    if count > _ORPHANS_MAX:
                        self.remarks.append("too many removed files: what is theirs may be called metadata")
                        return
                    if _ORPHAN.fullmatch(name):
                        self._remember(number)
            except (BadBlock, OSError) as error:
                self.remarks.append(str(error))

    def _remember(self, number: int) -> None:
        try:
            for at, length in self._extents(self._inode(number)):
                for start, size in self._wanted.between(at, at + length):
                    self._other.append(Spot(start, size, Kind.REMOVED, f"inode {number}"))
        except (BadBlock, OSError) as error:
            self.remarks.append(str(error))

    def _block(self, number: int, view: int = 0) -> bytes:
        size = self._super.block_size
        if not 0 < number < self._super.size // size:
            raise BadBlock(f"there is no block {number}")
        return self._views[view](number * size, size)

    def _inode(self, number: int) -> Inode:
        return inodes.parse_inode(self._block(number), number)

    def _folder(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        if inode.inline:
            yield from inodes.folder_entries(inodes.inline_data(inode))
            return
        size, left = self._super.block_size, _BLOCKS_MAX
        for at, length in self._extents(inode):
            for number in range(at // size, (at + length) // size):
                left -= 1
                if left < 0:
                    raise BadBlock(f"the folder of inode {inode.number} does not end")
                yield from inodes.folder_entries(self._block(number))

    def _extents(self, inode: Inode) -> Iterator[Range]:
        """(start, length) on the device, in bytes, of all that an inode has."""
        return ((start, length) for _, start, length in self._records(inode))

    def _records(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """(cluster in the file, start on the device, length) of all that an inode has, the last two in bytes; in no order."""
        if inode.inline:
            return
        left = _BLOCKS_MAX
        waiting = [inodes.extent_list(inode)]
        while waiting:
            node = waiting.pop()
            for cluster, clusters, block, _ in node.records:
                if block == 0:
                    continue
                if node.depth == 0:
                    yield cluster, block * self._super.block_size, clusters * self._super.cluster_size
                    continue
                left -= 1
                inner = inodes.parse_extent_block(self._block(block), block)
                if left < 0 or inner.depth != node.depth - 1:
                    raise BadBlock(f"the extents of inode {inode.number} do not add up")
                waiting.append(inner)


def _cut(spots: Sequence[Spot], start: int, end: int) -> list[Spot]:
    """The parts of spots, in order, between two places; where they overlap the first has it."""
    found: list[Spot] = []
    for spot in spots:
        low, high = max(spot.start, start, found[-1].start + found[-1].length if found else 0), spot.start + spot.length
        high = min(high, end)
        if low < high:
            found.append(Spot(low, high - low, spot.kind, spot.what))
    return found
