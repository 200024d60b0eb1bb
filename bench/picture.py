"""The result as a picture: one pair of bars a line of the table, on a logarithmic scale, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from bench.goals import Comparison, Series, digits
from bench.report import Report, milliseconds
from pvedrbdstor.cli.svg_style import style_sheet

_WIDTH, _LEFT, _RIGHT, _TOP = 920, 290, 200, 78
_BAR, _GAP, _ROW = 13, 3, 48
_FILLS = {"ours": ("#1a7f64", "#3fb68b"), "reference": ("#8c959f", "#6e7681"), "missed": ("#b35900", "#e3812b")}


def svg(report: Report) -> str:
    """The picture. Times are medians without what is synced for durability."""
    shown = [row for row in report.rows if row.pictured]
    times = [series.own * 1e3 for row in shown for series in (row.ours, row.reference)]
    low, high = math.floor(math.log10(min(times) / 2)), math.ceil(math.log10(max(times)))
    height = _TOP + _ROW * len(shown) + 34

    def x(milli: float) -> float:
        share = (math.log10(milli) - low) / (high - low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{style_sheet(_FILLS)}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        f'<text class="title" x="20" y="30">{escape(report.title)}</text>',
        f'<rect class="ours" x="20" y="46" width="{_BAR}" height="{_BAR}"/>',
        f'<text class="small" x="39" y="57">{escape(report.ours)}</text>',
        f'<rect class="reference" x="320" y="46" width="{_BAR}" height="{_BAR}"/>',
        f'<text class="small" x="339" y="57">{escape(report.baseline)}</text>',
    ]
    bottom = _TOP + _ROW * len(shown)
    for exponent in range(low, high + 1):
        at = x(10.0**exponent)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="small" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_decade(exponent)}</text>'
        )
    for number, row in enumerate(shown):
        parts += _pair(row, _TOP + _ROW * number, x)
    return "\n".join([*parts, "</svg>", ""])


def _decade(exponent: int) -> str:
    return f"{10.0**exponent:g} ms" if exponent < 3 else f"{10.0 ** (exponent - 3):g} s"


def _pair(row: Comparison, top: int, x: Callable[[float], float]) -> list[str]:
    verdict = row.verdict
    missed = verdict.met is False
    word, ours_class = (", goal missed", "missed") if missed else ("", "ours")
    middle = top + _BAR + _GAP
    return [
        f'<text x="{_LEFT - 12}" y="{middle + 4}" text-anchor="end">{escape(row.title)}</text>',
        *_bar(row.ours, ours_class, top + 2, x, f"{_times(row)}{word}"),
        *_bar(row.reference, "reference", top + 2 + _BAR + _GAP, x, ""),
    ]


def _times(row: Comparison) -> str:
    if row.reference.own > row.ours.own:
        return f", {digits(row.reference.own / row.ours.own)} x faster"
    if row.verdict.met is None:
        return f", {digits(row.ours.own / row.reference.own)} x slower"
    return f", {milliseconds(row.ours.own - row.reference.own)} ms on top"


def _bar(series: Series, kind: str, top: int, x: Callable[[float], float], remark: str) -> list[str]:
    end = x(series.own * 1e3)
    return [
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{max(end - _LEFT, 1):.1f}" height="{_BAR}" rx="2"/>',
        f'<text class="small" x="{end + 6:.1f}" y="{top + _BAR - 2}">{milliseconds(series.own)} ms{escape(remark)}</text>',
    ]
