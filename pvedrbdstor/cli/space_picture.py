"""The space of a storage as a picture (SVG), for light and dark pages: a bar for all of it and one a guest, or one guest's files. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from pvedrbdstor.cli.space_table import guest_label
from pvedrbdstor.cli.svg_style import style_sheet
from pvedrbdstor.sizes import KIB, format_size

_WIDTH, _LEFT, _RIGHT = 920, 240, 290
_LABEL = 28  # letters that find room left of the bars
_EDGE, _BAR, _ROW, _LINE = 20, 16, 28, 20
_WHOLE_AT = 62
_FILLS = {
    "disks": ("#1a7f64", "#3fb68b"),
    "snapshots": ("#b35900", "#e3812b"),
    "shared": ("#8c959f", "#6e7681"),
    "content": ("#3b72b8", "#6ca4e8"),
    "itself": ("#57606a", "#b1bac4"),
    "free": ("#eaeef2", "#21262d"),
}


class _Part(NamedTuple):
    """A stretch of a bar: its colour, what it is, how many bytes."""

    kind: str
    what: str
    size: int


class _Bar(NamedTuple):
    """One row: whose it is, its bar, what is told beside it. All in bytes."""

    label: str
    parts: Sequence[_Part]
    told: str


def svg(storage: str, found: dict[str, Any], vmid: int | None = None) -> str:
    """The whole file as text. vmid: draw the images and snapshots of this guest, instead of all guests."""
    if vmid is not None:
        return _of_guest(storage, found, vmid)
    whole = [part for part in _whole(found) if part.size > 0]
    # More than there is where files grew while they were looked at.
    scale = (_WIDTH - 2 * _EDGE) / max(1, found["total"], sum(part.size for part in whole))
    title = f"Storage {storage}: {format_size(found['used'])} of {format_size(found['total'])} in use"
    bars = [_Bar(guest_label(guest), list(_parts(guest)), _told(guest)) for guest in found["guests"]]
    legend_at = _WHOLE_AT + _BAR + 22
    return _page(
        title, [*_stacked(whole, _EDGE, _WHOLE_AT, scale), *_legend(whole, legend_at)], len(whole), legend_at, bars
    )


def _of_guest(storage: str, found: dict[str, Any], vmid: int) -> str:
    guests = [guest for guest in found["guests"] if guest["vmid"] == vmid]
    bars = [bar for guest in guests for bar in _files(guest)]
    told = "".join(f": {_told(guest)}" for guest in guests) or " has nothing"
    parts = [part for guest in guests for part in _parts(guest)]
    title = f"Storage {storage}, {guest_label(guests[0]) if guests else f'guest {vmid}'}{told}"
    return _page(title, list(_legend(parts, _WHOLE_AT)), len(parts), _WHOLE_AT, bars)


def _page(title: str, above: Sequence[str], in_legend: int, legend_at: int, bars: Sequence[_Bar]) -> str:
    top = legend_at + _LINE * (-(-in_legend // 3)) + 34
    height = top + (_ROW * len(bars) + 40 if bars else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">',
        f"<style>{style_sheet(_FILLS)}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        f'<text class="title" x="{_EDGE}" y="32">{escape(title)}</text>',
        *above,
    ]
    return "\n".join([*parts, *(_bars(bars, top) if bars else ()), "</svg>", ""])


def _whole(found: dict[str, Any]) -> Iterator[_Part]:
    alone = sum(guest["frees"] for guest in found["guests"])
    snapshots = sum(guest["snapshots_only"] for guest in found["guests"])
    yield _Part("disks", "one guest's, in its images", alone - snapshots)
    yield _Part("snapshots", "only in snapshots", snapshots)
    yield _Part("shared", "of several guests", found["between"])
    yield _Part("content", "other files", sum(other["frees"] for other in found["others"]))
    yield _Part("itself", "the file system itself", found["itself"])
    yield _Part("free", "free", found["total"] - found["used"])


def _legend(parts: Sequence[_Part], top: int) -> Iterator[str]:
    for number, part in enumerate(parts):
        x, y = _EDGE + 290 * (number % 3), top + _LINE * (number // 3)
        yield f'<rect class="{part.kind}" x="{x}" y="{y}" width="12" height="12" rx="2"/>'
        yield f'<text class="small" x="{x + 18}" y="{y + 10}">{escape(part.what)}: {format_size(part.size)}</text>'


def _bars(bars: Sequence[_Bar], top: int) -> Iterator[str]:
    lengths = [sum(part.size for part in bar.parts) for bar in bars]
    most = max(1, *lengths)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    bottom = top + _ROW * len(bars)
    for at in ticks(most):
        x = _LEFT + at * scale
        yield f'<line class="grid" x1="{x:.1f}" y1="{top - 8}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{format_size(at)}</text>'
    for number, (bar, length) in enumerate(zip(bars, lengths, strict=True)):
        y = top + _ROW * number
        label = f"<title>{escape(bar.label)}</title>{escape(_shortened(bar.label))}"
        yield f'<text x="{_LEFT - 12}" y="{y + 13}" text-anchor="end">{label}</text>'
        yield from _stacked(bar.parts, _LEFT, y, scale)
        yield f'<text class="small" x="{_LEFT + length * scale + 8:.1f}" y="{y + 12}">{escape(bar.told)}</text>'


def _shortened(label: str) -> str:
    """A name that is too long loses its middle: both its ends tell it from others."""
    half = (_LABEL - 1) // 2
    return label if len(label) <= _LABEL else f"{label[:half]}\u2026{label[-half:]}"


def _told(row: dict[str, Any]) -> str:
    return f"{format_size(row['allocated'])}, deleting frees {format_size(row['frees'])}"


def _files(guest: dict[str, Any]) -> Iterator[_Bar]:
    """Each image's file, and below it its snapshots."""
    for image in guest["images"]:
        yield _Bar(image["volume"].partition("/")[2], list(_of_file(image, "disks")), _told(image))
        for snapshot in image["snapshots"]:
            if snapshot["inside"]:
                yield _Bar(snapshot["name"], (), "a snapshot inside the image, which does not tell what it holds")
            else:
                of = " (of an earlier image)" if snapshot["stray"] else ""
                yield _Bar(snapshot["name"], list(_of_file(snapshot, "snapshots")), _told(snapshot) + of)


def _of_file(file: dict[str, Any], kind: str) -> Iterator[_Part]:
    yield _Part(kind, "only in this file", file["exclusive"])
    yield _Part("shared", "other files have it too", file["shared"])


def _parts(guest: dict[str, Any]) -> Iterator[_Part]:
    yield _Part("disks", "only here, in images", guest["frees"] - guest["snapshots_only"])
    yield _Part("snapshots", "only here, in snapshots", guest["snapshots_only"])
    yield _Part("shared", "others have it too", guest["shared"])


def _stacked(parts: Iterator[_Part] | Sequence[_Part], left: float, top: int, scale: float) -> Iterator[str]:
    for part in parts:
        width = part.size * scale
        if width > 0:
            yield (
                f'<rect class="{part.kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}">'
                f"<title>{escape(part.what)}: {format_size(part.size)}</title></rect>"
            )
        left += width


def ticks(most: int) -> list[int]:
    """Round numbers of bytes from nothing to ``most``, at least three and at most six of them where there are as many."""
    step = KIB
    while most // step >= 6:
        step *= 2
    return list(range(0, most + 1, step))
