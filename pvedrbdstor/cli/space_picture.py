"""The space of a storage as a picture (SVG): one bar for all of it, one a guest, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from pvedrbdstor.cli.sizes import KIB, format_size
from pvedrbdstor.cli.space_table import guest_label
from pvedrbdstor.cli.svg_style import style_sheet

_WIDTH, _LEFT, _RIGHT = 920, 190, 250
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


def svg(storage: str, found: dict[str, Any]) -> str:
    """The whole file as text."""
    guests = found["guests"]
    whole = [part for part in _whole(found) if part.size > 0]
    # More than there is where files grew while they were looked at.
    scale = (_WIDTH - 2 * _EDGE) / max(1, found["total"], sum(part.size for part in whole))
    legend = list(_legend(whole, _WHOLE_AT + _BAR + 22))
    top = _WHOLE_AT + _BAR + 22 + _LINE * (-(-len(whole) // 3)) + 34
    height = top + (_ROW * len(guests) + 40 if guests else 0)
    title = f"Storage {storage}: {format_size(found['used'])} of {format_size(found['total'])} in use"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">',
        f"<style>{style_sheet(_FILLS)}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        f'<text class="title" x="{_EDGE}" y="32">{escape(title)}</text>',
        *_stacked(whole, _EDGE, _WHOLE_AT, scale),
        *legend,
    ]
    return "\n".join([*parts, *(_guests(guests, top) if guests else ()), "</svg>", ""])


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


def _guests(guests: Sequence[dict[str, Any]], top: int) -> Iterator[str]:
    most = max(1, *(guest["allocated"] for guest in guests))
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    bottom = top + _ROW * len(guests)
    for at in ticks(most):
        x = _LEFT + at * scale
        yield f'<line class="grid" x1="{x:.1f}" y1="{top - 8}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{format_size(at)}</text>'
    for number, guest in enumerate(guests):
        y = top + _ROW * number
        yield f'<text x="{_LEFT - 12}" y="{y + 13}" text-anchor="end">{escape(guest_label(guest))}</text>'
        yield from _stacked(_parts(guest), _LEFT, y, scale)
        end = _LEFT + guest["allocated"] * scale + 8
        told = f"{format_size(guest['allocated'])}, deleting frees {format_size(guest['frees'])}"
        yield f'<text class="small" x="{end:.1f}" y="{y + 12}">{escape(told)}</text>'


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
