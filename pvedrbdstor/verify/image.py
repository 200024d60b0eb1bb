"""What is at a place inside a guest's disk: which partition, what that holds. Reads the image, which is hostile."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import BadImage, Error
from pvedrbdstor.mirror.extents import Piece, Ranges, without
from pvedrbdstor.verify import signatures
from pvedrbdstor.verify.direct import Reader
from pvedrbdstor.verify.partitions import Layout, Partition, read_layout
from pvedrbdstor.verify.qcow2_map import Map, Place
from pvedrbdstor.volumes.qcow2 import Header, is_qcow2, read_header

_CHUNK = 1 << 17


class Nature(StrEnum):
    DATA = "data"
    SWAP = "swap"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Region:
    """text: for people. partition: its number, None outside of one. holds: libblkid's word for what is in it."""

    nature: Nature
    text: str
    partition: int | None = None
    holds: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file that differ. guest: the place in the guest's disk, None where it has none or that is not known."""

    offset: int
    device: int
    length: int
    guest: int | None = None


class _Disk:
    """A guest's disk, whatever the format of its image is."""

    def __init__(self, read: signatures.Read, size: int) -> None:
        self._read = read
        self._size = size
        self._held: dict[Range, signatures.Signature | None] = {}
        whole = self._holds(0, size)
        # a file system that begins at the very start may end its first sector as an MBR does: then it is none
        has_own_end = whole is not None and whole.kind in ("vfat", "ntfs", "exfat")
        layout = Layout() if has_own_end else read_layout(read, size)
        self._kind = layout.kind
        self._places = _disjoint(layout)
        self._ranges = Ranges([(start, length) for start, length, _ in self._places])
        self._starts = [start for start, _, _ in self._places]

    def regions(self, start: int, end: int) -> Iterator[tuple[int, int, Region]]:
        """(start, length, what it is) of the parts from one place of the disk to before another, in order."""
        if not self._kind:
            yield start, end - start, self._region(None, 0, self._size)
            return
        at = start
        for first, length in self._ranges.between(start, end):
            if at < first:
                yield at, first - at, _OUTSIDE
            partition = self._places[bisect_right(self._starts, first) - 1][2]
            if partition is None:
                yield first, length, Region(Nature.DATA, f"the guest's partition table ({self._kind.upper()})")
            else:
                yield first, length, self._region(partition, partition.start, partition.length)
            at = first + length
        if at < end:
            yield at, end - at, _OUTSIDE

    def _region(self, partition: Partition | None, start: int, length: int) -> Region:
        held = self._holds(start, length)
        number = partition.number if partition is not None else None
        name = f"partition {number}" if number is not None else "the whole disk"
        if partition is not None and partition.name and (held is None or partition.name != held.label):
            name += f" '{partition.name}'"
        if held is None:
            swap = partition is not None and partition.swap
            return Region(Nature.UNKNOWN, f"{name} ({'no swap yet' if swap else 'no known file system'})", number)
        text = f"{name} ({held}{', with a hibernated guest in it' if held.hibernated else ''})"
        is_swap = held.kind == "swap" and not held.hibernated
        return Region(Nature.SWAP if is_swap else Nature.DATA, text, number, held.kind)

    def _holds(self, start: int, length: int) -> signatures.Signature | None:
        key = (start, length)
        if key not in self._held:

            def read(offset: int, count: int) -> bytes:
                return self._read(start + offset, max(0, min(count, length - offset)))

            self._held[key] = signatures.probe(read)
        return self._held[key]


def _disjoint(layout: Layout) -> list[tuple[int, int, Partition | None]]:
    """(start, length, partition, None for the table) in order; where a hostile table lets them overlap, the first has
    it."""
    taken = merged(list(layout.areas))
    found: list[tuple[int, int, Partition | None]] = [(start, length, None) for start, length in taken]
    for partition in layout.partitions:
        free = list(without(partition.start, partition.length, Ranges(taken)))
        found += [(start, length, partition) for start, length in free]
        taken = merged([*taken, *free])
    return sorted(found, key=lambda it: it[0])


_UNREADABLE = Region(Nature.UNKNOWN, "its contents cannot be looked at")
_REST = Region(Nature.UNKNOWN, "inside the qcow2 file: an internal snapshot, counts of references, or unused")
_OUTSIDE = Region(Nature.UNKNOWN, "outside of the guest's partitions")


class _Pieces:
    """Of one file, by their place in it."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = sorted(pieces)
        self._starts = [piece.logical for piece in self._pieces]
        self._ranges = Ranges([(piece.logical, piece.length) for piece in self._pieces])

    def parts(self, start: int, length: int) -> Iterator[Part]:
        """Those that some bytes of the file are of."""
        for at, count in self._ranges.between(start, start + length):
            piece = self._pieces[bisect_right(self._starts, at) - 1]
            yield Part(at, piece.physical + at - piece.logical, count)


def regions_of(fd: int, name: str, size: int, fmt: str, pieces: Sequence[Piece]) -> list[tuple[Part, Region]]:
    """Each part of an open image that differs, and where in the guest's disk it is. The pieces lie inside of the file.

    fmt: what its name says. An image that does not add up, or cannot be read, is not looked into.
    """
    try:
        with Reader(f"/proc/self/fd/{fd}", name=name) as reader:
            if fmt == "qcow2" and is_qcow2(reader.read(0, 4)):
                return list(_in_qcow2(reader, read_header(fd, name), pieces))
            if fmt == "raw":
                return list(_in_raw(_Disk(reader.read, size), pieces))
    except (OSError, Error):
        pass
    return [(Part(piece.logical, piece.physical, piece.length), _UNREADABLE) for piece in pieces]


def _in_raw(disk: _Disk, pieces: Iterable[Piece]) -> Iterator[tuple[Part, Region]]:
    for piece in pieces:
        for at, length, region in disk.regions(piece.logical, piece.logical + piece.length):
            yield Part(at, piece.physical + at - piece.logical, length, at), region


def _in_qcow2(reader: Reader, header: Header, pieces: Sequence[Piece]) -> Iterator[tuple[Part, Region]]:
    """Raises BadImage where its data lies elsewhere."""
    if header.external_data:
        raise BadImage(volume=reader.name, format="qcow2", detail="its data lies in another file")
    table = Map(reader.read, header)
    disk = None if header.encrypted else _Disk(table.read, header.size)
    wanted = merged([(piece.logical, piece.length) for piece in pieces])
    known = _Pieces(pieces)
    found = list(table.places(wanted))
    for place in found:
        for part in known.parts(place.start, place.length):
            yield from _of_place(place, part, disk)
    taken = Ranges(merged([(place.start, place.length) for place in found]))
    rest = _REST if table.complete else _UNREADABLE
    for start, length in wanted:
        for at, count in without(start, length, taken):
            yield from ((part, rest) for part in known.parts(at, count))


def _of_place(place: Place, part: Part, disk: _Disk | None) -> Iterator[tuple[Part, Region]]:
    if place.guest is None:
        yield part, Region(Nature.DATA, "the image's own tables (qcow2)")
        return
    start = place.guest if place.whole else place.guest + part.offset - place.start
    if disk is None:
        yield Part(part.offset, part.device, part.length, start), Region(Nature.DATA, "encrypted data (qcow2)")
    elif place.whole:
        region = next((region for _, _, region in disk.regions(start, start + 1)), _UNREADABLE)
        yield Part(part.offset, part.device, part.length, start), region
    else:
        for at, length, region in disk.regions(start, start + part.length):
            yield Part(part.offset + at - start, part.device + at - start, length, at), region
