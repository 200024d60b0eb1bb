"""The result as a table for people, as JSON for machines, and as a section of docs/bench.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.goals import Comparison, Series, digits


@dataclass(frozen=True)
class Report:
    """One run of the bench. extra: further facts, as lines for people. command: what made it.

    ours: what our side is, for the picture.
    """

    title: str
    command: str
    machine: dict[str, str]
    baseline: str
    rows: Sequence[Comparison]
    extra: Sequence[str] = ()
    ours: str = "pvedrbdstor: Perl plugin, socket, service, disk"

    @property
    def missed(self) -> list[Comparison]:
        return [row for row in self.rows if row.verdict.met is False]


def milliseconds(seconds: float) -> str:
    """For people, without the unit."""
    return digits(seconds * 1e3)


_HEAD = ("what", "ours ms", "p95", "+ sync", "reference", "ms", "+ sync", "goal", "measured", "")


def _cells(row: Comparison) -> tuple[str, ...]:
    verdict = row.verdict
    met = {True: "met", False: "NOT MET", None: ""}[verdict.met]
    return (
        *(row.title, milliseconds(row.ours.own), milliseconds(row.ours.own_p95), _sync(row.ours)),
        *(row.reference.label, milliseconds(row.reference.own), _sync(row.reference)),
        *(verdict.goal, verdict.measured, met),
    )


def _sync(series: Series) -> str:
    return milliseconds(series.sync) if series.sync else "-"


def table(report: Report) -> str:
    """Aligned columns for a terminal."""
    rows = [_HEAD, *map(_cells, report.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(report: Report) -> str:
    """The same as a section of docs/bench.md."""
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    rows = [" | ".join(cells) for cells in map(_cells, report.rows)]
    head = [" | ".join(_HEAD[:-1]) + " | goal met", " | ".join("---" for _ in _HEAD)]
    lines = [f"Made by `{report.command}`. Reference: {report.baseline}. {facts}.", ""]
    lines += [f"| {line} |" for line in head + rows]
    if report.extra:
        lines += ["", *(f"- {line}" for line in report.extra)]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """Everything, single timings included; seconds."""
    content = {
        "title": report.title,
        "command": report.command,
        "machine": report.machine,
        "baseline": report.baseline,
        "rows": [_row(row) for row in report.rows],
        "extra": list(report.extra),
    }
    return json.dumps(content, indent=1) + "\n"


def _row(row: Comparison) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "what": row.title,
        "goal": verdict.goal,
        "measured": verdict.measured,
        "ratio": round(verdict.ratio, 3),
        "met": verdict.met,
        "ours": _series(row.ours),
        "reference": _series(row.reference),
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "label": series.label,
        "median": round(series.own, 6),
        "p95": round(series.own_p95, 6),
        "sync_median": round(series.sync, 6),
        "cpu_median": round(series.cpu(50), 6),
        "own": [round(timing.own, 6) for timing in series.timings],
    }


def replace_between(text: str, name: str, content: str) -> str:
    """Put ``content`` between the markers `<!-- NAME -->` and `<!-- /NAME -->`. Raises ValueError without them."""
    before, _, after = _parts(text, name)
    return f"{before}{content}\n{after}"


def between(text: str, name: str) -> str:
    """What replace_between() has put there. Raises ValueError without the markers."""
    return _parts(text, name)[1].removesuffix("\n")


def _parts(text: str, name: str) -> tuple[str, str, str]:
    """Up to the first marker, with it; what follows; and the rest, from the second marker on."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    content, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the markers {begin.strip()} and {end} are missing")
    return before + begin, content, end + after


def write(report: Report, folder: Path, name: str, picture: str) -> None:
    """``name``.json and ``name``.svg in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(as_json(report))
    (folder / f"{name}.svg").write_text(picture)
