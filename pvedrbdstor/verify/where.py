"""What ranges of the device are: which files have them, where in a guest's disk, or what of the file system; the
worst first. Reads only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from pvedrbdstor import native
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import NotOcfs2
from pvedrbdstor.mirror.extents import Piece, Ranges, pieces, without
from pvedrbdstor.mirror.walk import Entry, walk
from pvedrbdstor.ocfs2.inodes import BadBlock
from pvedrbdstor.ocfs2.superblock import READ_SIZE, Superblock, parse_superblock
from pvedrbdstor.verify import owners, space
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.image import Nature, Part, Region, regions_of
from pvedrbdstor.verify.labels import path as shown_path
from pvedrbdstor.verify.meaning import Found, Meaning
from pvedrbdstor.verify.parts import Sum, cut
from pvedrbdstor.volumes.names import is_snapshot

_PIECES_MAX, _PIECES_MIN = 100_000, 16
"""Pieces of files that are looked into in all, and of each file however many there are; of the rest bytes are
counted."""
_NAMES_MAX = 8
_REMARKS_MAX = 20
_NO_EXTENTS = (errno.EOPNOTSUPP, errno.ENOTTY)


_Key = tuple[Harm, str, str, Region]


class _Look:
    def __init__(
        self,
        ranges: Sequence[Range],
        images_dir: str,
        guests: Mapping[int, Guest] | None,
        modified: Sequence[Range] = (),
    ) -> None:
        self._modified = Ranges(modified)
        self.ranges = merged(list(ranges))
        self.remarks: list[str] = []
        self.sums: dict[_Key, Sum] = {}
        self.owners: dict[str, owners.Owner] = {}
        self.covered: tuple[Range, ...] = ()
        self.snapshots: dict[str, list[tuple[int, str]]] = {}
        self.doubtful: set[str] = set()  # their extents cannot be read, or their inode is what differs
        self.shared: dict[str, set[str]] = {}
        self._wanted = Ranges(self.ranges)
        self._images_dir = images_dir
        self._guests = guests
        self._new: list[Range] = []
        self._places: list[tuple[int, int, str]] = []

    # --- files ---------------------------------------------------------------------------------------------------

    def files(self, root_fd: int, block: int | None) -> Iterator[None]:
        """One step for each file. block: bytes of a block of OCFS2, where an inode's number is that of its block;
        None on another."""
        for entry in walk(root_fd, leave_out=(), folders=True, failed=self._failed):
            owner = owners.owner_of(entry.path, self._images_dir)
            if owner.kind is owners.Kind.SNAPSHOT and not entry.is_folder:
                self.snapshots.setdefault(owner.image, []).append((entry.status.st_ctime_ns, entry.path))
            if block is not None:
                self._inode(entry, block)
            found, others = self._pieces(entry)
            if entry.is_folder:
                for piece in found:
                    self._metadata(piece.physical, piece.length, f"the folder {shown_path(entry.path)}")
            elif found:
                self.owners[entry.path] = owner
                self._file(entry, owner, found)
                for piece in others:
                    total = self._sum(self._harm(owner, _PLAIN), entry.path, owner.what, _OTHERS)
                    total.count, total.bytes = total.count + piece.logical, total.bytes + piece.length
            yield
        self._cover([], last=True)
        self._find_shared()

    def _pieces(self, entry: Entry) -> tuple[list[Piece], list[Piece]]:
        """(those that are looked into, one for all others with their count for its place and their bytes for its
        length)."""
        kept: list[Piece] = []
        count = size = 0
        try:
            for piece in pieces(native.fiemap(entry.fd, path=entry.path), self._wanted):
                self._cover([(piece.physical, piece.length)])
                if len(kept) < max(_PIECES_MIN, _PIECES_MAX - len(self._places)):
                    kept.append(piece)
                else:
                    count, size = count + 1, size + piece.length
        except OSError as error:
            self.doubtful.add(entry.path)
            if error.errno not in _NO_EXTENTS or not entry.is_folder:
                self._failed(error)
        return kept, [Piece(count, 0, size)] if count else []

    def _inode(self, entry: Entry, block: int) -> None:
        at = entry.status.st_ino * block
        for start, length in self._wanted.between(at, at + block):
            self.doubtful.add(entry.path)
            self._metadata(start, length, f"the inode of {shown_path(entry.path)}")
            self._cover([(start, length)])

    def _file(self, entry: Entry, owner: owners.Owner, found: Sequence[Piece]) -> None:
        size = entry.status.st_size
        inside = []
        for piece in found:
            self._places.append((piece.physical, piece.physical + piece.length, entry.path))
            length = max(0, min(piece.length, size - piece.logical))
            if piece.unwritten:
                self._add(Harm.FREE, entry.path, owner.what, _RESERVED, _part(piece))
            elif length:
                inside.append(Piece(piece.logical, piece.physical, length))
            if length < piece.length and not piece.unwritten:
                rest = Piece(piece.logical + length, piece.physical + length, piece.length - length)
                self._add(Harm.FREE, entry.path, owner.what, _BEHIND, _part(rest))
        if not inside:
            return
        if owner.kind in (owners.Kind.IMAGE, owners.Kind.SNAPSHOT):
            for part, region in regions_of(entry.fd, shown_path(entry.path), size, owner.format, inside):
                self._add_data(self._harm(owner, region), entry.path, owner.what, region, part)
        else:
            for piece in inside:
                self._add_data(self._harm(owner, _PLAIN), entry.path, owner.what, _PLAIN, _part(piece))

    def _harm(self, owner: owners.Owner, region: Region) -> Harm:
        if owner.kind in _PLAIN_KINDS:
            return _PLAIN_KINDS[owner.kind]
        if region.nature is Nature.SWAP:
            return Harm.SWAP
        if owner.kind is owners.Kind.SNAPSHOT:
            return Harm.SNAPSHOT
        if region.nature is Nature.UNKNOWN:
            return Harm.UNKNOWN
        if self._guests is None:
            return Harm.RUNNING  # nobody knows, and that is the worse of the two
        guest = self._guests.get(owner.vmid) if owner.vmid is not None else None
        return Harm.RUNNING if guest is not None and guest.runs else Harm.GUEST

    def _find_shared(self) -> None:
        """Which files have the same blocks."""
        active: list[tuple[int, str]] = []
        for start, end, name in sorted(self._places):
            active = [(until, other) for until, other in active[-4 * _NAMES_MAX :] if until > start]
            for _, other in active:
                for one, two in ((name, other), (other, name)):
                    names = self.shared.setdefault(one, set())
                    if one != two and len(names) < 4 * _NAMES_MAX:
                        names.add(two)
            active.append((end, name))

    # --- what no file has ------------------------------------------------------------------------------------------

    def rest(self) -> tuple[Range, ...]:
        taken = Ranges(self.covered)
        return tuple(part for start, length in self.ranges for part in without(start, length, taken))

    def not_known(self) -> None:
        for start, length in self.rest():
            self._add(Harm.METADATA, "", "no file's", _NOT_KNOWN, Part(start, start, length))

    def in_space(self, found: Iterable[space.Spot]) -> Iterator[None]:
        """One step for each spot."""
        for spot in found:
            yield
            if spot.kind in (space.Kind.METADATA, space.Kind.UNKNOWN):
                region = (
                    _NOT_KNOWN
                    if spot.kind is space.Kind.UNKNOWN
                    else Region(Nature.DATA, spot.what or "its structures")
                )
                self._add(Harm.METADATA, "", "no file's", region, Part(spot.start, spot.start, spot.length))
            else:
                harm = Harm.WORK if spot.kind is space.Kind.REMOVED else Harm.FREE
                self._add(harm, "", "no file's", _SPACE[spot.kind], Part(spot.start, spot.start, spot.length))

    # --- keeping -----------------------------------------------------------------------------------------------------

    def remark(self, text: str) -> None:
        if len(self.remarks) < _REMARKS_MAX and text not in self.remarks:
            self.remarks.append(text)

    def _metadata(self, start: int, length: int, what: str) -> None:
        self._add(Harm.METADATA, "", "no file's", Region(Nature.DATA, what), Part(start, start, length))

    def _add(self, harm: Harm, path: str, what: str, region: Region, part: Part) -> None:
        self._sum(harm, path, what, region).add(part)

    def _add_data(self, harm: Harm, path: str, what: str, region: Region, part: Part) -> None:
        """What DRBD has seen changed while it was written is a class of its own, where whoever writes it will write it again."""
        start, length = part.device, part.length
        if harm not in _WRITTEN_AGAIN:
            self._add(harm, path, what, region, part)
            return
        for at, count in self._modified.between(start, start + length):
            self._add(Harm.IN_FLIGHT, path, what, region, cut(part, at, count))
        for at, count in without(start, length, self._modified):
            self._add(harm, path, what, region, cut(part, at, count))

    def _sum(self, harm: Harm, path: str, what: str, region: Region) -> Sum:
        return self.sums.setdefault((harm, path, what, region), Sum())

    def _cover(self, ranges: Iterable[Range], *, last: bool = False) -> None:
        self._new += ranges
        if last or len(self._new) > 10_000:
            self.covered = merged([*self.covered, *self._new])
            self._new = []

    def _failed(self, error: OSError) -> None:
        self.remark(f"{shown_path(str(error.filename or 'a folder'))}: {error.strerror}")


_WRITTEN_AGAIN = (Harm.RUNNING, Harm.GUEST, Harm.UNKNOWN, Harm.CONTENT)
"""Not so metadata, which OCFS2 never changes while it writes them, nor a snapshot, which nobody writes any more."""
_PLAIN_KINDS = {owners.Kind.WORK: Harm.WORK, owners.Kind.CONTENT: Harm.CONTENT}
_PLAIN = Region(Nature.DATA, "")
_OTHERS = Region(Nature.DATA, "more places, which were only counted")
_RESERVED = Region(Nature.DATA, "reserved, never written")
_BEHIND = Region(Nature.DATA, "behind its end, in its last cluster")
_NOT_KNOWN = Region(Nature.UNKNOWN, "its structures, or free space: the map of its clusters cannot be read")
_SPACE = {
    space.Kind.FREE: Region(Nature.DATA, "free space"),
    space.Kind.KEPT: Region(Nature.DATA, "free space that a node keeps for files to grow"),
    space.Kind.FREED: Region(Nature.DATA, "free space of removed files"),
    space.Kind.REMOVED: Region(Nature.DATA, "a file that is removed, and was open or is being freed"),
    space.Kind.OUTSIDE: Region(Nature.DATA, "behind the end of the file system"),
}


def _part(piece: Piece) -> Part:
    return Part(piece.logical, piece.physical, piece.length)


def where(
    ranges: Sequence[Range],
    root_fd: int,
    device: str,
    *,
    images_dir: str = "images",
    guests: Mapping[int, Guest] | None = None,
    used: Callable[[str], str] = lambda _: "",
    modified: Sequence[Range] = (),
    direct: Collection[str] = (),
) -> Meaning:
    """What byte ranges of a device are, whose file system is mounted with this root.

    guests: of the cluster; None where nobody knows: then all count as running. used: who uses `VMID/NAME`, in words. modified: blocks whose
    memory DRBD has seen changed while they were written. direct: the `VMID/NAME` of disks that are written with O_DIRECT.
    Raises OSError where the device cannot be read; what else cannot be read is a remark.
    """
    steps = looking(
        ranges, root_fd, device, images_dir=images_dir, guests=guests, used=used, modified=modified, direct=direct
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Meaning = end.value
            return found


def looking(
    ranges: Sequence[Range],
    root_fd: int,
    device: str,
    *,
    images_dir: str = "images",
    guests: Mapping[int, Guest] | None = None,
    used: Callable[[str], str] = lambda _: "",
    modified: Sequence[Range] = (),
    direct: Collection[str] = (),
) -> Generator[None, None, Meaning]:
    """The same in small steps, a file or a spot each, so that one can tell what is slow from what hangs."""
    native.fstatfs(root_fd)  # lets the other node bring its map of clusters to the disk (space.py)
    look = _Look(ranges, images_dir, guests, modified)
    with ExitStack() as stack:
        path = os.path.realpath(device)
        views = [stack.enter_context(Reader(path, buffered=buffered)) for buffered in (False, True)]
        superblock = _superblock(look, views[0], device)
        yield from look.files(root_fd, superblock.block_size if superblock is not None else None)
        rest = look.rest()
        if rest and superblock is not None:
            yield from _space(look, superblock, views, rest)
        else:
            look.not_known()
    return Meaning(
        _found(look, guests, used, direct),
        len(look.ranges),
        sum(length for _, length in look.ranges),
        tuple(look.remarks),
    )


def _superblock(look: _Look, device: Reader, name: str) -> Superblock | None:
    try:
        return parse_superblock(device.read(0, READ_SIZE), name)
    except NotOcfs2 as error:
        look.remark(str(error))
        return None


def _space(look: _Look, superblock: Superblock, views: Sequence[Reader], rest: Sequence[Range]) -> Iterator[None]:
    try:
        found = space.Space(superblock, [view.read for view in views], rest)
    except BadBlock as error:
        look.remark(str(error))
        look.not_known()
        return
    yield from look.in_space(found.spots(rest))
    for remark in found.remarks:
        look.remark(remark)


def _snapshot_name(path: str) -> str:
    return os.path.basename(path).removesuffix(".raw")


def _found(
    look: _Look, guests: Mapping[int, Guest] | None, used: Callable[[str], str], direct: Collection[str] = ()
) -> tuple[Found, ...]:
    not_intact = look.doubtful | set(look.owners)
    named: dict[str, str] = {}
    found = []
    for (harm, path, what, region), total in look.sums.items():
        owner = look.owners.get(path)
        vmid = owner.vmid if owner is not None else None
        intact = [_snapshot_name(name) for _, name in sorted(look.snapshots.get(path, ())) if name not in not_intact]
        if owner is not None and owner.image and owner.image not in named:
            named[owner.image] = used("/".join(owner.image.split("/")[-2:]))
        found.append(
            Found(
                harm=harm,
                path=shown_path(path),
                what=what,
                region=region.text,
                parts=tuple(sorted(total.parts, key=lambda part: part.offset)),
                count=total.count,
                bytes=total.bytes,
                vmid=vmid,
                guest=guests.get(vmid) if guests is not None and vmid is not None else None,
                snapshot=shown_path(owner.snapshot) if owner is not None else "",
                shared=tuple(shown_path(name) for name in sorted(look.shared.get(path, ()))[:_NAMES_MAX]),
                intact=tuple(name for name in intact if is_snapshot(name))[-_NAMES_MAX:],
                used=named.get(owner.image, "") if owner is not None else "",
                partition=region.partition,
                holds=region.holds,
                perhaps_in_flight=harm in (Harm.RUNNING, Harm.UNKNOWN)
                and vmid is not None
                and (guests is None or (vmid in guests and guests[vmid].runs))
                and "/".join(path.split("/")[-2:]) in direct,
            )
        )
    return tuple(sorted(found, key=lambda it: (it.harm.rank, it.path, it.parts[0].offset if it.parts else 0)))
