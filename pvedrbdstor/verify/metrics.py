"""The last checks as Prometheus reads them, from a file that node_exporter's textfile collector picks up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from pvedrbdstor import files
from pvedrbdstor.verify.last import VERDICTS, Check, Record, differing

FILE = "pvedrbdstor_verify.prom"
NEVER = "never"

_GAUGES: tuple[tuple[str, str, Callable[[Record], float | None]], ...] = (
    (
        "last_end_timestamp_seconds",
        "When the last check ended, whatever it came to (seconds since 1970).",
        lambda record: record.last.ended,
    ),
    (
        "judged_end_timestamp_seconds",
        "When the last check ended that came to a verdict on the data (seconds since 1970).",
        lambda record: _judged(record, lambda check: check.ended),
    ),
    (
        "compared_bytes",
        "What the last check that came to a verdict has compared.",
        lambda record: _judged(record, lambda check: check.compared),
    ),
    (
        "diverged_bytes",
        "What differs between the nodes, until a check of all that is allocated has found it equal.",
        lambda record: (
            found.diverged if (found := differing(record)) else _judged(record, lambda check: check.diverged)
        ),
    ),
    ("unsettled_bytes", "What kept changing.", lambda record: _judged(record, lambda check: check.unsettled)),
    (
        "unreadable_bytes",
        "What a node could not read.",
        lambda record: _judged(record, lambda check: check.unreadable),
    ),
)


def text(records: Mapping[str, Record | None], rejoins: Mapping[str, Record | None] | None = None) -> str:
    """By storage; None: never checked. rejoins: of the comparisons after rejoins, of storages that have any; None: older than the last rejoin. In the text format 0.0.4. A storage
    without a value for a gauge has no line of it."""
    lines = [
        *_verdicts("last_verdict", "Which verdict the last check came to: 1 for that one, 0 for the others.", records)
    ]
    if rejoins:
        lines += _verdicts("rejoin_verdict", "The same of what was written before the nodes' last rejoin.", rejoins)
        lines += _head("rejoin_end_timestamp_seconds", "When that comparison ended (seconds since 1970).")
        lines += [
            _sample("rejoin_end_timestamp_seconds", {"storage": storage}, record.last.ended)
            for storage, record in rejoins.items()
            if record is not None
        ]
    for name, told, value_of in _GAUGES:
        lines += _head(name, told)
        for storage, record in records.items():
            value = None if record is None else value_of(record)
            if value is not None:
                lines.append(_sample(name, {"storage": storage}, value))
    return "\n".join(lines) + "\n"


def _verdicts(name: str, told: str, records: Mapping[str, Record | None]) -> Iterator[str]:
    yield from _head(name, told)
    for storage, record in records.items():
        verdict = NEVER if record is None else record.last.verdict
        for each in (*VERDICTS, NEVER):
            yield _sample(name, {"storage": storage, "verdict": each}, float(each == verdict))


def write(folder: str, content: str) -> str:
    """Into node_exporter's folder, which sees the old file or the new one; returns its path. Raises OSError."""
    path = os.path.join(folder, FILE)
    files.replace(path, content, beside=f"{path}.{os.getpid()}")  # not *.prom: the collector passes that over
    return path


def _judged(record: Record, value_of: Callable[[Check], float]) -> float | None:
    return None if record.judged is None else value_of(record.judged)


def _head(name: str, told: str) -> Iterable[str]:
    yield f"# HELP pvedrbdstor_verify_{name} {told}"
    yield f"# TYPE pvedrbdstor_verify_{name} gauge"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    number = str(int(value)) if value == int(value) else repr(value)
    return f"pvedrbdstor_verify_{name}{{{told}}} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
