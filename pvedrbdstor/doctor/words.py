"""Findings for people and for machines: worst first, what it means, what helps, and what was looked at. No I/O here."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict

from pvedrbdstor.doctor import storage_file
from pvedrbdstor.doctor.checks.reach import called
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Finding, Severity, accepts, counted, exit_status

_WIDTH = 120


def as_json(look: Look, found: Sequence[Finding], accepted: Collection[str] = ()) -> dict[str, object]:
    """accepted: as of finding.accepts(); those do not count for `healthy` and `exit_status`."""
    status = exit_status(counted(found, accepted))
    return {
        "healthy": status == 0,
        "exit_status": status,
        "storages": [storage.id for storage in look.storages],
        "findings": [{**_finding_json(finding), "accepted": accepts(accepted, finding)} for finding in found],
        "looked_at": {
            node.name: sorted(name for name, value in node.values.items() if value is not None) for node in look.nodes
        },
        "not_looked_at": {
            **{node.name: dict(node.unread) for node in look.nodes if node.unread},
            **{name: {"": why} for name, why in look.silent.items()},
        },
    }


def _finding_json(finding: Finding) -> dict[str, object]:
    return {**asdict(finding), "severity": finding.severity.word, "commands": list(finding.commands)}


def text(look: Look, found: Sequence[Finding], accepted: Collection[str] = ()) -> str:
    """Ends with a newline. accepted: as of finding.accepts(); those have one line each, at the end."""
    return "\n".join(_lines(look, found, accepted)) + "\n"


def _lines(look: Look, found: Sequence[Finding], accepted: Collection[str]) -> Iterator[str]:
    left = counted(found, accepted)
    for finding in left:
        yield from _finding(finding)
        yield ""
    yield _sum(left)
    for finding in found:
        if accepts(accepted, finding):
            yield from _wrapped(f"Accepted, and not counted: {_headline(finding)} [{finding.id}]", "", "  ")
    yield from _wrapped(_looked(look), "", "  ")
    for name, why in look.silent.items():
        yield from _wrapped(f"Not looked at: {name}, as {why}", "", "  ")
    for node in look.nodes:
        for source, why in node.unread.items():
            yield from _wrapped(f"Not looked at on {node.name}: {called(source)}, as {why}", "", "  ")
    if not look.storages and storage_file.SOURCE not in look.here.unread:
        yield "There is no storage of type drbdocfs2 for this node, so only the node itself was looked at."


def _headline(finding: Finding) -> str:
    where = ", ".join(node for node in finding.nodes if node not in finding.title)
    subject = f"storage {finding.storage}" if finding.storage is not None else ""
    about = f" ({', '.join(part for part in (subject, where) if part)})" if subject or where else ""
    return f"{finding.severity.name}: {finding.title}{about}"


def _finding(finding: Finding) -> Iterator[str]:
    yield from _wrapped(_headline(finding), "", "  ")
    yield from _wrapped(finding.meaning, "  What it means: ", "    ")
    yield from _wrapped(f"{finding.remedy}.", "  What helps: ", "    ")
    if finding.source is not None:
        yield f"  See: {finding.source}"
    yield f"  [{finding.id}]"


def _sum(found: Sequence[Finding]) -> str:
    counts = [(severity, sum(finding.severity is severity for finding in found)) for severity in reversed(Severity)]
    told = [f"{count} {severity.word}{'s' if count > 1 else ''}" for severity, count in counts if count]
    if found and exit_status(found) == 0:
        return f"No error and no warning: {told[0]}."
    return f"{', '.join(told)}." if told else "Nothing found: all is as it should be."


def _looked(look: Look) -> str:
    """The sources once, with the nodes that told them."""
    by_source: dict[str, list[str]] = {}
    for node in look.nodes:
        for source in (name for name, value in node.values.items() if value is not None):
            by_source.setdefault(source.partition(":")[0], []).append(node.name)
    by_nodes: dict[tuple[str, ...], list[str]] = {}
    for source, names in by_source.items():
        by_nodes.setdefault(tuple(dict.fromkeys(names)), []).append(called(source))
    parts = [f"on {' and '.join(names)}: {', '.join(sources)}" for names, sources in by_nodes.items()]
    return f"Looked at {'; '.join(parts)}." if parts else "Nothing could be looked at."


def _wrapped(sentence: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        sentence, _WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
