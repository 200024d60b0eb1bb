"""What differences mean, in lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from pvedrbdstor.verify.image import Part
from pvedrbdstor.verify.meaning import Found, Meaning
from pvedrbdstor.verify.repairs import Repair

_FILES_MAX = 50
_PERHAPS = (
    "may be memory that was changed while it was written, which is harmless as a rule: the VM writes this disk with O_DIRECT. Nothing proves it, "
    "so take it for damage"
)
_UNWATCHED = " (to have DRBD say so of such writes from now on: data-integrity-alg in net { }, which costs speed, and drops the connection at some of them)"
_WATCHED = " (data-integrity-alg is set, and the logs have no such write of it: that makes it less likely)"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """`4 KiB`, `1.5 GiB`: exact below 1 MiB where it is whole, else to a tenth."""
    value, unit = float(count), "B"
    for larger in _UNITS:
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def lines(meaning: Meaning, most: int = 5) -> Iterator[str]:
    """most: of the places in a file that are told; of the files of one kind 50."""
    for harm, group in groupby(meaning.found, key=lambda found: found.harm):
        all_of_it = list(group)
        yield f"{harm.heading} ({size(sum(found.bytes for found in all_of_it))}):"
        yield f"  {harm.meaning}"
        for path, of_file in groupby(all_of_it[:_FILES_MAX], key=lambda found: found.path):
            yield from _file(path, list(of_file), most, meaning.watched)
        if len(all_of_it) > _FILES_MAX:
            yield f"  - and {len(all_of_it) - _FILES_MAX} more"
    for remark in meaning.remarks:
        yield f"Not looked at: {remark}"


def _file(path: str, found: list[Found], most: int, watched: bool | None) -> Iterator[str]:
    if path:
        yield f"  - {path}{_whose(found[0])}"
        yield from _relations(found[0])
        if found[0].perhaps_in_flight:
            yield f"    {_PERHAPS}{_WATCHED if watched else _UNWATCHED}"
    for region in found:
        head = "    " if path else "  - "
        where = region.region or region.what
        yield f"{head}{where}: {size(region.bytes)}{_places(region)}"
        for part in region.parts[:most]:
            yield f"      {_place(region, part)}"
        if region.count > most:
            yield f"      and {region.count - min(most, len(region.parts))} more places"


def _whose(found: Found) -> str:
    words = []
    if found.snapshot:
        words.append(f"snapshot '{found.snapshot}'")
    guest = found.guest
    if found.used:
        words.append(found.used)
    elif guest is not None:
        words.append(f"{guest.kind} {guest.vmid}")
    elif found.vmid is not None:
        words.append(f"guest {found.vmid}")
    if guest is not None:
        words.append(f"{'runs' if guest.runs else 'does not run'} on {guest.node or 'a node that is not told'}")
    if not words and found.what != "file":
        words.append(found.what)
    return f" ({', '.join(words)})" if words else ""


def _relations(found: Found) -> Iterator[str]:
    if found.shared:
        yield f"    shares such blocks with {', '.join(found.shared)}"
    if found.intact:
        yield f"    snapshots that have none of them: {', '.join(found.intact)}"


def _places(found: Found) -> str:
    return "" if found.count == 1 else f" in {found.count} places"


def _place(found: Found, part: Part) -> str:
    if not found.path:
        return f"{part.length} bytes at byte {part.device} of the device ({size(part.device)})"
    guest = ""
    if part.guest is not None and part.guest != part.offset:
        guest = f", at byte {part.guest} of the guest's disk"
    return f"{part.length} bytes at byte {part.offset} ({size(part.offset)}){guest}; byte {part.device} of the device"


def repair_lines(repairs: Sequence[Repair]) -> Iterator[str]:
    """The commands stand by themselves, under the words on where each is run, so that they can be copied."""
    for number, repair in enumerate(repairs, 1):
        yield f"{number}. {repair.title}. {repair.text}"
        for where, of_one in groupby(repair.commands, key=lambda command: command[0]):
            yield f"   {where}:"
            yield from (f"     {text}" for _, text in of_one)
