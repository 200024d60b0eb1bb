"""Where files lie on the device, and which bytes of it which of them hold. Pure, in bytes; 16 bytes of memory an extent."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

Sets = dict[int, int]
"""How many bytes of the device exactly these files hold. A set of files is a number: file n is its bit n."""

_EVENTS_A_TICK = 1 << 16
_Label = TypeVar("_Label", bound=Hashable)


class Places:
    """The bytes of the device that one file has. ``nowhere``: bytes allocated to it alone that have no place there yet.

    Where extents begin and where they end are kept apart, each in order: at any place as many extents are open as have
    begun before it and not ended, so nobody needs to know which end belongs to which beginning.
    """

    __slots__ = ("_ends", "_starts", "nowhere")

    def __init__(self) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        self.nowhere = 0

    def add(self, start: int, length: int) -> None:
        """One more extent, in any order; it may overlap others of the file, which then holds these bytes once."""
        if length <= 0:
            return
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = start + length
            return
        self._starts.append(start)
        self._ends.append(start + length)

    def sort(self) -> None:
        """To be called when all extents are there, and before any is asked for."""
        self._starts = array("Q", sorted(self._starts))
        self._ends = array("Q", sorted(self._ends))

    def __len__(self) -> int:
        """How many extents, neighbours that were added one after the other taken as one."""
        return len(self._starts)

    def tagged(self, opening: int, closing: int, shift: int) -> tuple[Iterator[int], Iterator[int]]:
        """Beginnings and ends, in order, as numbers: the place above ``shift`` bits, a tag below."""
        return (
            (place << shift | opening for place in self._starts),
            (place << shift | closing for place in self._ends),
        )


def sets_of_files(files: Sequence[Places], tick: Callable[[], None] = lambda: None) -> Sets:
    """One sweep over the device from its lowest to its highest byte that any file has. ``tick`` is called now and then.

    Takes time by the number of extents and, beside them, memory by the number of different sets of files that share
    something: few where files share whole stretches, as snapshots and clones do.
    """
    shift = (2 * len(files)).bit_length()
    tags = (1 << shift) - 1
    streams = (stream for at, places in enumerate(files) for stream in places.tagged(2 * at + 1, 2 * at, shift))
    open_extents = [0] * len(files)
    found: Sets = {}
    holders, last = 0, 0
    for count, event in enumerate(heapq.merge(*streams)):
        place, tag = event >> shift, event & tags
        if holders and place > last:
            found[holders] = found.get(holders, 0) + place - last
        last = place
        at = tag >> 1
        if tag & 1:
            open_extents[at] += 1
            if open_extents[at] == 1:
                holders |= 1 << at
        else:
            open_extents[at] -= 1
            if open_extents[at] == 0:
                holders ^= 1 << at
        if count % _EVENTS_A_TICK == 0:
            tick()
    for at, places in enumerate(files):
        if places.nowhere:
            found[1 << at] = found.get(1 << at, 0) + places.nowhere
    return found


class Held(NamedTuple):
    """Bytes that a group of files holds, each counted once, and how many of them no other file holds."""

    held: int = 0
    alone: int = 0

    @property
    def shared(self) -> int:
        return self.held - self.alone


def by_label(sets: Mapping[int, int], labels: Sequence[_Label]) -> dict[_Label, Held]:
    """What the files of each label hold together; labels: of file 0, 1, ... One that holds nothing is left out."""
    held: dict[_Label, int] = {}
    alone: dict[_Label, int] = {}
    for files, size in sets.items():
        holders = {labels[at] for at in members(files)}
        for label in holders:
            held[label] = held.get(label, 0) + size
        if len(holders) == 1:
            (label,) = holders
            alone[label] = alone.get(label, 0) + size
    return {label: Held(size, alone.get(label, 0)) for label, size in held.items()}


def of_group(sets: Mapping[int, int], group: int) -> Held:
    """What one set of files holds together."""
    held = sum(size for files, size in sets.items() if files & group)
    return Held(held, sum(size for files, size in sets.items() if not files & ~group))


def members(files: int) -> Iterator[int]:
    """The numbers of the files in a set."""
    while files:
        lowest = files & -files
        yield lowest.bit_length() - 1
        files ^= lowest


def set_of(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found
