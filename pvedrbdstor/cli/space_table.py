"""The space of a storage as tables, with a bar beside each guest where there is room. Pure, but for the terminal's size."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any

from pvedrbdstor.cli.output import NOTHING, Column, size_cell, table, text_cell
from pvedrbdstor.sizes import format_size

_WHO = Column("Guest, image, snapshot")
_SIZES = tuple(Column(title, right=True) for title in ("Apparent", "Allocated", "Shared", "Exclusive", "Frees"))
_BAR = Column("")
_BAR_MIN, _BAR_MAX = 8, 24
_BLOCKS = "█▓░"  # only here, in images; only here, in snapshots; others have it too
_IN_USE = (Column("In use by"), Column("Files", right=True), Column("Bytes", right=True))
_FAMILIES = (
    Column("Template"),
    Column("Guests with its blocks"),
    Column("Allocated", right=True),
    Column("Deleting all frees", right=True),
)


def room_of_terminal() -> int:
    """How many columns there are for a table with bars; none where nobody looks, or the blocks cannot be written."""
    try:
        _BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return 0
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def text(storage: str, found: dict[str, Any], vmid: int | None, room: int) -> str:
    """vmid: the only guest of which there is something in what was found, which then is not all of the storage."""
    guests = found["guests"]
    if vmid is not None and not guests:
        return f"Guest {vmid} has nothing on storage {storage}.\n"
    parts = [_guests(guests, room)] if guests else []
    if found["families"]:
        parts.append(table(_FAMILIES, [_family(family) for family in found["families"]]))
    if vmid is None:
        parts.append(_in_use(storage, found))
    notes = list(_notes(found))
    return "\n".join([*parts, *(["".join(f"{note}\n" for note in notes)] if notes else [])])


def guest_label(guest: dict[str, Any]) -> str:
    kind = guest["kind"]
    if kind == "none":
        return f"{guest['vmid']} (no configuration)"
    return str(guest["vmid"]) if kind is None else f"{kind} {guest['vmid']}"


def _guests(guests: list[dict[str, Any]], room: int) -> str:
    rows: list[list[str]] = []
    at_row = {}
    for guest in guests:
        at_row[len(rows)] = guest
        rows += [[who, *sizes] for who, sizes in _rows(guest)]
    plain = table((_WHO, *_SIZES), rows)
    width = min(_BAR_MAX, room - max(map(len, plain.splitlines())) - 3)
    most = max(guest["allocated"] for guest in guests)
    if width < _BAR_MIN or not most:
        return plain
    with_bars = [[*row, bar(at_row[at], most, width) if at in at_row else ""] for at, row in enumerate(rows)]
    legend = f"{_BLOCKS[0]} only here  {_BLOCKS[1]} only in its snapshots  {_BLOCKS[2]} others have it too\n"
    return table((_WHO, *_SIZES, _BAR), with_bars) + legend


def _rows(guest: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield guest_label(guest), _sizes(guest)
    for image in guest["images"]:
        yield f"  {image['volume'].partition('/')[2]}", _sizes(image)
        for snapshot in image["snapshots"]:
            stray = " (of an earlier image)" if snapshot["stray"] else ""
            yield f"    {snapshot['name']}{stray}", _sizes(snapshot)
        if sum(not (snapshot["inside"] or snapshot["stray"]) for snapshot in image["snapshots"]) > 1:
            yield "    all its snapshots", [*[""] * 4, size_cell(image["snapshots_free"])]


def _sizes(row: dict[str, Any]) -> list[str]:
    return [size_cell(row[key]) for key in ("apparent", "allocated", "shared", "exclusive", "frees")]


def bar(guest: dict[str, Any], most: int, width: int) -> str:
    """What a guest has, as a part of ``most`` bytes in ``width`` characters."""
    parts = (guest["frees"] - guest["snapshots_only"], guest["snapshots_only"], guest["shared"])
    drawn, at, end = "", 0, 0
    for size, block in zip(parts, _BLOCKS, strict=True):
        end += size
        drawn += block * (round(end * width / most) - at)
        at = round(end * width / most)
    return drawn


def _family(family: dict[str, Any]) -> list[str]:
    clones = ", ".join(map(str, family["clones"]))
    return [str(family["template"]), clones, size_cell(family["allocated"]), size_cell(family["frees"])]


def _in_use(storage: str, found: dict[str, Any]) -> str:
    """Each byte once, so that it adds up to what df has."""
    alone = sum(guest["frees"] for guest in found["guests"])
    rows = [[f"{len(found['guests'])} guests, each alone", "", size_cell(alone)]] if found["guests"] else []
    if found["between"]:
        rows.append(["several of these together", "", size_cell(found["between"])])
    rows += [[text_cell(other["what"]), str(other["files"]), size_cell(other["frees"])] for other in found["others"]]
    rows.append(["the file system itself", "", signed(found["itself"])])
    rows.append(["in use, as df has it", "", size_cell(found["used"])])
    about = (
        f"Storage {storage}: {format_size(found['used'])} of {format_size(found['total'])} in use, "
        f"{format_size(found['available'])} available ({found['file_system']}).\n"
    )
    return about + table(_IN_USE, rows)


def signed(size: int) -> str:
    return format_size(size) if size >= 0 else f"-{format_size(-size)}"


def _notes(found: dict[str, Any]) -> Iterator[str]:
    if any(
        snapshot["inside"] for guest in found["guests"] for image in guest["images"] for snapshot in image["snapshots"]
    ):
        yield f"{NOTHING}: a snapshot inside a qcow2 image, which does not tell what it holds; the image's own line has it."
    if found["changed"]:
        yield f"In use changed by {signed(found['changed'])} while this was looked at: it is that far from exact."
